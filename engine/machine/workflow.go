package machine

import (
	"fmt"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// enter opens the scope of a queued sub-workflow node.
func (t *step) enter(i uint32) error {
	return t.all(nodeRunning(t.at, i, t.at), &aloftv1.Event{At: t.at, Kind: &aloftv1.Event_ScopeOpened{
		ScopeOpened: &aloftv1.ScopeOpened{Node: i},
	}})
}

func (s *State) scopeOpened(at int64, e *aloftv1.ScopeOpened) error {
	i := e.GetNode()
	n := s.node(i)
	if n.phase != uint8(core.NodeExecution_RUNNING) || n.child != noIndex {
		return fmt.Errorf("the node is %s or has a scope", s.Ref(i).phase())
	}
	n.updated = at
	s.openScope(s.spec(i).sub, i, e.GetAttempt())
	return nil
}
