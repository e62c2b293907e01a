// Package literal knows Flyte's typed values: it infers, checks, casts, binds, hashes, rewrites and prints them.
//
// It stands beside the flow rather than in it: api and launch check and merge inputs with it (Validate, ResolveInputs),
// compiler checks which type may be assigned to which (TypeOf, Castable), engine/machine resolves the inputs of a node that is
// ready (Resolve), catalog computes keys (HashInputs), executor and api turn locations into paths and back (RewriteURIs), cli prints.
//
// All functions depend on their arguments alone. They rely only on the fact that messages were decoded by the protobuf runtime: for
// any message that a client can send they return a result or an error, and never panic. Recursion stops at MaxDepth.
package literal

import (
	"strings"

	"github.com/aloft-dev/aloft"
)

// MaxDepth is how deep collections, maps, unions and types may be nested. Python clients cannot read messages that are
// nested deeper than a hundred levels, and a nested literal takes at least two levels of messages.
const MaxDepth = 64

// Mistakes are all mistakes of a request's literals, one sentence each. They wrap aloft.ErrInvalid.
type Mistakes []string

func (m Mistakes) Error() string { return strings.Join(m, "; ") }

func (m Mistakes) Unwrap() error { return aloft.ErrInvalid }

func (m *Mistakes) add(format string, args ...any) {
	*m = append(*m, aloft.Messagef(format, args...))
}

// err is nil if there is no mistake.
func (m Mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return m
}
