package worker

import (
	"bytes"
	"slices"
	"strings"
)

const (
	maxIDs      = 10_000 // bytes of what the server calls an attempt, which is in each event
	maxSentence = 1_000  // bytes of a reason
)

// shortened is the beginning of a sentence of which a task's code may have written a part.
func shortened(sentence string) string {
	if len(sentence) <= maxSentence {
		return sentence
	}
	return strings.ToValidUTF8(sentence[:maxSentence], "") + " …"
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
