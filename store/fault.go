package store

import (
	"fmt"

	"github.com/aloft-dev/aloft"
)

// Fault is what goes wrong with one call, for simulators and fault sweeps.
type Fault int

const (
	NoFault    Fault = iota
	FailBefore       // ErrUnavailable, and nothing was done
	FailAfter        // ErrUnavailable, although it was done: the caller does not know
	FailPartly       // ErrUnavailable, although the first half of its members was done; of a single call: nothing was done
)

// Faults says what goes wrong with the next call of the method named op. Nil: nothing ever.
type Faults func(op string) Fault

// Do carries out one call under the faults: DoEach of a single member.
func (f Faults) Do(op string, call func() error) error {
	if f == nil {
		return call()
	}
	return f.DoEach(op, 1, func(first int) []error {
		if first == 0 {
			return nil
		}
		return []error{call()}
	})[0]
}

// DoEach carries out a call that has n members and an error for each: call does the first so many of them. The error of a
// fault is that of all members.
func (f Faults) DoEach(op string, n int, call func(first int) []error) []error {
	fault, done := NoFault, "before it was done"
	if f != nil {
		fault = f(op)
	}
	switch fault { // what the call would have answered is exactly what gets lost
	case NoFault:
		return call(n)
	case FailPartly:
		_ = call(n / 2)
		done = fmt.Sprintf("%d of %d were done", n/2, n)
	case FailAfter:
		_ = call(n)
		done = "outcome unknown"
	}
	told := fmt.Errorf("%s: injected fault, %s: %w", op, done, aloft.ErrUnavailable)
	errs := make([]error, n)
	for i := range errs {
		errs[i] = told
	}
	return errs
}
