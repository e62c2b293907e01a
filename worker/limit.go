package worker

import (
	"bytes"
	"slices"
	"strings"
)

// A task can write to the socket of its attempt as zygote.py does. So what comes from there is bounded before it is kept, told
// or written down, as the files of a task are: an exit record that is too long for a message would reach no server, ever.
const (
	maxSaid       = 2 << 20  // bytes that a warm child may say in all: two lists of maxTold names, and a little
	maxLines      = 16       // that it may say; it has six to say
	maxTold       = 5_000    // names of modules in one line (zygote.py)
	maxModuleName = 200      // bytes; a longer one is no module's that is worth importing ahead (zygote.py)
	maxListed     = 64 << 10 // bytes of the names of modules in an event
	maxSentence   = 1_000    // bytes of a reason
	maxIDs        = 10_000   // bytes of what the server calls an attempt, which is in each event
	maxFact       = 8 << 10  // bytes of a line of the journal, which is cut down above
)

// shortened is the beginning of a sentence of which a task's code may have written a part.
func shortened(sentence string) string {
	if len(sentence) <= maxSentence {
		return sentence
	}
	return strings.ToValidUTF8(sentence[:maxSentence], "") + " …"
}

// bound cuts down what a child says to what may be kept of it.
func (m *childDone) bound() {
	m.Modules = slices.DeleteFunc(m.Modules, func(name string) bool { return name == "" || len(name) > maxModuleName })
	m.Modules = m.Modules[:min(len(m.Modules), maxTold)]
	m.Unfit, m.Unmounted = shortened(m.Unfit), shortened(m.Unmounted)
}

// listed is as many of the names as an event has room for.
func listed(modules []string) []string {
	room := maxListed
	for i, name := range modules {
		if room -= len(name); room < 0 {
			return modules[:i]
		}
	}
	return modules
}

// kept is what is kept of an exit record once it was told.
func (r ExitRecord) kept() ExitRecord {
	r.Reason, r.WhyCold, r.Modules = shortened(r.Reason), shortened(r.WhyCold), nil
	return r
}

// withoutModules makes a whole line of the beginning of one that is too long, an event or a fact of a supervisor that did not
// bound what a task says: the list of modules is the last thing in it. Nothing else in JSON has these quotes.
func withoutModules(beginning []byte, objects int) []byte {
	head, _, found := bytes.Cut(beginning, []byte(`,"modules":["`))
	if !found {
		return nil
	}
	return append(slices.Clone(head), strings.Repeat("}", objects)+"\n"...)
}
