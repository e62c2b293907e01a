// Package aloft is the vocabulary of the whole program: typed ids, phase rules, limits and sentinel errors.
//
// All packages import it, and it imports only idl, so it has no logic that needs a clock, a disk or a network. Phases and
// messages are Flyte's own (package idl/flyteidl); this package defines only what Flyte's protocol has no word for.
package aloft
