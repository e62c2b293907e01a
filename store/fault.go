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

// Do carries out one call under the faults.
func (f Faults) Do(op string, call func() error) error {
	if f == nil {
		return call()
	}
	switch f(op) {
	case FailBefore, FailPartly:
		return fmt.Errorf("%s: injected fault before it was done: %w", op, aloft.ErrUnavailable)
	case FailAfter:
		_ = call() // what it would have answered is exactly what gets lost
		return fmt.Errorf("%s: injected fault, outcome unknown: %w", op, aloft.ErrUnavailable)
	default:
		return call()
	}
}

// DoEach is Do for a call that has one error for each of n members, of which it is given the first so many: a fault is told
// to all of them.
func (f Faults) DoEach(op string, n int, call func(first int) []error) []error {
	fault := NoFault
	if f != nil {
		fault = f(op)
	}
	var told error
	switch fault {
	case FailBefore:
		told = fmt.Errorf("%s: injected fault before it was done: %w", op, aloft.ErrUnavailable)
	case FailPartly:
		_ = call(n / 2)
		told = fmt.Errorf("%s: injected fault, half of it was done: %w", op, aloft.ErrUnavailable)
	case FailAfter:
		_ = call(n)
		told = fmt.Errorf("%s: injected fault, outcome unknown: %w", op, aloft.ErrUnavailable)
	default:
		return call(n)
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = told
	}
	return errs
}
