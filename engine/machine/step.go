package machine

import (
	"time"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

// Decision is what one step decided: to be committed whole or not at all.
type Decision struct {
	Events []*aloftv1.Event // in order; empty: nothing happened
	More   bool             // the limit was reached and there is more to decide now: step again, without messages
	DueAt  time.Time        // when to step again if nothing happens before; zero: no timer
	Ended  bool             // the execution has ended: nothing will ever follow
}

// Facts are reads that are answered within a step. The values stay outside, the state holds references only.
//
// Each returns either a reference (nil: no values), or a Failure: it cannot be had, for good, and that is the node's
// result; or a Go error: it cannot be had now. Facts must give the same answer each time they are asked.
// An implementer stores the value that a reference means together with the node's record in the commit of the step.
type Facts interface {
	// Inputs resolves the bindings of a node. For an end-node they are the outputs of its scope. For the failure node
	// NodeRef.Handles gives the error that its input "err" describes.
	Inputs(node NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error)
	// Echo gives the outputs of a task of type echo: its inputs under new names, the sorted names of its inputs paired
	// with the sorted names of its outputs.
	Echo(node NodeRef) (*aloftv1.LiteralRef, *aloftv1.Failure, error)
	// Duration gives the single input of a task of type core-sleep.
	Duration(node NodeRef) (time.Duration, *aloftv1.Failure, error)
}
