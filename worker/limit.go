package worker

import (
	"bytes"
	"slices"
	"strings"
)

// A task can write to the socket of its attempt as zygote.py does. So every message from there is bounded before it is kept, sent on
// or written down, as the files of a task are: an exit record that is too long for a message would reach no server, ever.
const (
	maxSaid       = 2 << 20  // bytes that are read from a warm child: two lists of maxTold names, and a little
	maxLines      = 16       // lines that are read from a warm child, which writes six
	maxTold       = 5_000    // names of modules in one line (zygote.py)
	maxModuleName = 200      // bytes; a module with a longer name is not imported ahead (zygote.py)
	maxListed     = 64 << 10 // bytes of the names of modules in an event
	maxSentence   = 1_000    // bytes of a reason
	maxIDs        = 10_000   // bytes of attempt id, token and digest together, which are in each event
	maxEntry      = 8 << 10  // bytes of a line of the journal; a longer entry is cut down
)

// shortened is the beginning of a sentence, of which a task's code may have written a part.
func shortened(sentence string) string {
	if len(sentence) <= maxSentence {
		return sentence
	}
	return strings.ToValidUTF8(sentence[:maxSentence], "") + " …"
}

// bound cuts a message of a warm child down to the limits above.
func (m *childDone) bound() {
	m.Modules = slices.DeleteFunc(m.Modules, func(name string) bool { return name == "" || len(name) > maxModuleName })
	m.Modules = m.Modules[:min(len(m.Modules), maxTold)]
	m.Unfit, m.Unmounted = shortened(m.Unfit), shortened(m.Unmounted)
}

// fitInEvent are the first of the names, as many as an event has room for.
func fitInEvent(modules []string) []string {
	room := maxListed
	for i, name := range modules {
		if room -= len(name); room < 0 {
			return modules[:i]
		}
	}
	return modules
}

// bounded is an exit record as it is kept once its event was sent: without modules, and with texts within the limits.
func (r ExitRecord) bounded() ExitRecord {
	r.Reason, r.WhyCold, r.Modules = shortened(r.Reason), shortened(r.WhyCold), nil
	return r
}

// withoutModules makes a complete line of the beginning of a line that is too long: an event or a journal entry of an earlier
// release, which did not bound the messages of tasks. The list of modules is the last field in it, followed by as many closing
// braces as objects says. No string in JSON can hold these quotes.
func withoutModules(beginning []byte, objects int) []byte {
	head, _, found := bytes.Cut(beginning, []byte(`,"modules":["`))
	if !found {
		return nil
	}
	return append(slices.Clone(head), strings.Repeat("}", objects)+"\n"...)
}
