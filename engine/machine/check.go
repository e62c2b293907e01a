package machine

import (
	"errors"
	"fmt"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Check returns the invariants that the state violates. It looks at every node: for tests and for the doctor.
func (s *State) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var outstanding, engineAttempts int
	var tasks, runnables uint32
	active := make([]uint32, len(s.scopes))
	pending := make([]uint32, len(s.scopes))
	misses := make([]uint32, len(s.homes)) // upstream nodes that have not succeeded, counted again
	for i := range s.homes {
		if s.scopeOf(uint32(i)).nodes == nil {
			continue
		}
		if !aloft.Succeeded(core.NodeExecution_Phase(s.node(uint32(i)).phase)) {
			for _, d := range s.spec(uint32(i)).downstream {
				misses[s.scopeOf(uint32(i)).first+d]++
			}
		}
		if c := s.scopeOf(uint32(i)); c.body.isArm() {
			for _, p := range c.body.producers {
				if !aloft.Succeeded(core.NodeExecution_Phase(s.around(c).nodes[p].phase)) {
					misses[i]++
				}
			}
		}
	}
	for i := range s.homes {
		if s.scopeOf(uint32(i)).nodes == nil { // given back
			continue
		}
		n, r := s.node(uint32(i)), s.Ref(uint32(i))
		c, spec := s.scopeOf(uint32(i)), s.spec(uint32(i))
		phase := core.NodeExecution_Phase(n.phase)
		// P2: what has begun has only succeeded upstreams.
		missing := misses[i]
		if missing != n.missing && !c.done { // what a node of an arm waited for may come when the branch is over
			bad("node %s misses %d upstream nodes and counts %d", r.ID(), missing, n.missing)
		}
		if missing > 0 && phase != core.NodeExecution_UNDEFINED && phase != core.NodeExecution_SKIPPED {
			bad("node %s is %s before its upstream nodes have succeeded", r.ID(), phase)
		}
		live := 0
		for a := n.attempt; a != noIndex; a = c.attempts[a].prev {
			if c.attempts[a].ended != 0 {
				continue
			}
			live++
			if c.attempts[a].byEngine {
				engineAttempts++
			} else if outstanding++; s.outstanding[r.ID()] != uint32(i) {
				bad("node %s has an attempt of an executor that State.outstanding lacks", r.ID())
			}
		}
		isActive := phase == core.NodeExecution_QUEUED || phase == core.NodeExecution_RUNNING
		_, parked := s.waits[uint32(i)]
		if parked {
			live++
		}
		var want activity
		switch {
		case isActive && spec.kind.can().scope:
			want = inScope
		case parked:
			want = inWait
		case live > 0:
			want = inAttempt
		}
		if n.activity != want {
			bad("node %s is %s with activity %d, want %d", r.ID(), phase, n.activity, want)
		}
		if spec.kind.can().attempt && isActive != (live == 1) {
			bad("node %s is %s with %d live attempts", r.ID(), phase, live)
		}
		if isActive {
			active[s.homes[i]]++
			if spec.kind.can().room {
				tasks++
			}
			if spec.kind.can().scope && n.child == noIndex {
				bad("node %s is %s without a scope", r.ID(), phase)
			}
		}
		if phase == core.NodeExecution_UNDEFINED && (n.skip && c.runs() || s.mayBegin(uint32(i))) {
			pending[s.homes[i]]++
		}
		if spec.kind.can().room && s.mayBegin(uint32(i)) {
			runnables++
		}
		if aloft.Terminal(phase) != (n.ended != 0) {
			bad("node %s is %s and its end is %d", r.ID(), phase, n.ended)
		}
		if n.child != noIndex && aloft.Terminal(phase) != s.scopes[n.child].done {
			bad("node %s is %s and its scope does not agree", r.ID(), phase)
		}
	}
	blockBytes := 0
	for i := range s.scopes {
		c := s.scopes[i]
		blockBytes += c.block.bytes()
		if c.active != active[i] || !c.done && c.pending != pending[i] {
			bad("scope %q counts %d active and %d pending nodes and has %d and %d", c.id, c.active, c.pending, active[i], pending[i])
		}
	}
	if blockBytes != s.blockBytes {
		bad("counted %d bytes of blocks; found %d", s.blockBytes, blockBytes)
	}
	if outstanding != len(s.outstanding) || engineAttempts != s.engineAttempts || tasks != s.tasks {
		bad("counted %d attempts, %d by the engine, %d tasks; found %d, %d, %d", len(s.outstanding), s.engineAttempts, s.tasks, outstanding, engineAttempts, tasks)
	}
	if s.ended == 0 && runnables != s.runnables {
		bad("counted %d runnable nodes; found %d", s.runnables, runnables)
	}
	switch {
	case s.ended != 0 && (outstanding > 0 || engineAttempts > 0 || tasks > 0):
		bad("the execution has ended with %d attempts and %d by the engine left", outstanding, engineAttempts)
	case s.ended == 0 && s.create != nil && outstanding == 0 && engineAttempts == 0 && len(s.waits) == 0 && !s.More():
		bad("the execution is stuck: nothing is outstanding and nothing is left to decide")
	}
	return errors.Join(errs...)
}
