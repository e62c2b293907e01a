// Package literal knows Flyte's typed values: it infers, checks, casts, binds, hashes, rewrites and prints them.
//
// It stands beside the flow rather than in it: api and launch check and merge inputs with it (Validate, ResolveInputs),
// compiler asks it what may be assigned to what (TypeOf, Castable), engine/machine resolves the inputs of a node that is
// ready (Resolve), catalog computes keys (HashInputs), executor and api turn locations into paths and back (RewriteURIs), cli prints.
//
// Everything here is a pure function of its arguments. It relies on messages that were decoded by the protobuf runtime and
// on nothing else about them: any message a client can send is answered, with an error where it makes no sense, and nothing
// here panics. What recurses stops at MaxDepth.
package literal

import (
	"strings"

	"github.com/aloft-dev/aloft"
)

// MaxDepth is how deep collections, maps, unions and types may be nested. Python clients cannot read messages that are
// nested deeper than a hundred levels, and a level here is at least two of theirs.
const MaxDepth = 64

// Mistakes are all that is wrong with an input, one sentence each. It wraps aloft.ErrInvalid.
type Mistakes []string

func (m Mistakes) Error() string { return strings.Join(m, "; ") }

func (m Mistakes) Unwrap() error { return aloft.ErrInvalid }

func (m *Mistakes) add(format string, args ...any) {
	*m = append(*m, aloft.Messagef(format, args...))
}

// err is nil when nothing is wrong.
func (m Mistakes) err() error {
	if len(m) == 0 {
		return nil
	}
	return m
}
