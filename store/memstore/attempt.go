package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// Heartbeat registers an executor instance, or renews its registration.
func (s *Store) Heartbeat(_ context.Context, instance store.Instance) error {
	return s.do("Heartbeat", func() ([]store.Topic, error) {
		if old, known := s.instances[instance.ID]; known && old.Nonce != instance.Nonce && old.Nonce != instance.Follows {
			return nil, fmt.Errorf("heartbeat of executor %s: another process is this executor by now: %w", instance.ID, aloft.ErrFenced)
		}
		instance.Follows = ""
		s.instances[instance.ID] = instance
		return nil, nil
	})
}

// Instances returns the instances, by id.
func (s *Store) Instances(context.Context) (instances []store.Instance, err error) {
	err = s.do("Instances", func() ([]store.Topic, error) {
		instances = slices.SortedFunc(maps.Values(s.instances), func(a, b store.Instance) int { return cmp.Compare(a.ID, b.ID) })
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return instances, nil
}

// RemoveInstance forgets an instance that has no attempts.
func (s *Store) RemoveInstance(_ context.Context, executor string) error {
	return s.do("RemoveInstance", func() ([]store.Topic, error) {
		if o := s.assigned[executor]; o != nil && len(o.rows) > 0 {
			return nil, fmt.Errorf("remove executor %s: it has %d attempts: %w", executor, len(o.rows), aloft.ErrPrecondition)
		}
		delete(s.instances, executor)
		delete(s.assigned, executor)
		return nil, nil
	})
}

// Waiting returns attempts that can be assigned to an executor.
func (s *Store) Waiting(_ context.Context, now time.Time, limit int) (attempts []*store.Attempt, err error) {
	err = s.do("Waiting", func() ([]store.Topic, error) {
		attempts = nil
		for _, try := range s.unassigned.rows {
			if limit > 0 && len(attempts) == limit {
				break
			}
			if !try.rec.NotBefore.After(now) {
				attempts = append(attempts, cloneAttempt(&try.rec, true))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return attempts, nil
}

// try finds the attempt that the key names; nil: there is none with this token.
func (s *Store) try(key store.AttemptKey) (*execution, *attempt) {
	e := s.find(key.Execution)
	if e == nil {
		return nil, nil
	}
	try := e.attempts[attemptName{key.Node, key.Attempt}]
	if try == nil || try.rec.Token != key.Token {
		return e, nil
	}
	return e, try
}

// SetWaiting records why attempts wait.
func (s *Store) SetWaiting(_ context.Context, executor string, attempts []store.AttemptKey, reason string) error {
	return s.do("SetWaiting", func() (topics []store.Topic, err error) {
		for _, key := range attempts {
			e, try := s.try(key)
			if try == nil || try.rec.Executor != executor || try.rec.ByEngine || aloft.Terminal(try.rec.Phase) || try.rec.Waiting == reason ||
				executor != "" && try.rec.Phase != core.TaskExecution_INITIALIZING {
				continue
			}
			try.rec.Waiting = reason
			topics = append(topics, store.TopicExecution(e.rec.ID))
		}
		return topics, nil
	})
}

func conflict(verb string, key store.AttemptKey, why string) error {
	return fmt.Errorf("%s attempt %d of node %s: %s: %w", verb, key.Attempt, key.Node, why, aloft.ErrConflict)
}

// Assign assigns attempts to an executor instance.
func (s *Store) Assign(_ context.Context, executor, nonce string, attempts []store.AttemptKey, now time.Time) []error {
	return s.doEach("Assign", len(attempts), func(first int) (topics []store.Topic, errs []error) {
		errs = make([]error, first)
		for i, key := range attempts[:first] {
			e, try := s.try(key)
			switch {
			case s.instances[executor].ID == "", s.instances[executor].Nonce != nonce:
				errs[i] = conflict("assign", key, "executor "+executor+" is not known, or another process (any more)")
				continue
			case try == nil:
				errs[i] = conflict("assign", key, "there is none with this token")
				continue
			case aloft.Terminal(try.rec.Phase):
				errs[i] = conflict("assign", key, "it has ended")
				continue
			case try.rec.ByEngine:
				errs[i] = conflict("assign", key, "the engine runs it")
				continue
			case try.rec.Executor == executor:
				continue
			case try.rec.Executor != "":
				errs[i] = conflict("assign", key, "executor "+try.rec.Executor+" has it")
				continue
			case try.rec.Stop != "":
				errs[i] = conflict("assign", key, "it is to be stopped")
				continue
			}
			s.unlist(try)
			try.rec.Executor, try.rec.Waiting = executor, ""
			try.rec.Phase, try.rec.UpdatedAt = core.TaskExecution_INITIALIZING, now
			s.listForExecutors(try)
			topics = append(topics, store.TopicExecution(e.rec.ID))
		}
		return topics, errs
	})
}

// Assigned returns the attempts that are assigned to the instance and have not ended.
func (s *Store) Assigned(_ context.Context, executor string) (attempts []*store.Attempt, err error) {
	err = s.do("Assigned", func() ([]store.Topic, error) {
		attempts = nil
		if o := s.assigned[executor]; o != nil {
			for _, try := range o.rows {
				attempts = append(attempts, cloneAttempt(&try.rec, true))
			}
		}
		return nil, nil
	})
	if err != nil {
		return nil, err
	}
	return attempts, nil
}

// Report puts an executor's messages into the inbox.
func (s *Store) Report(_ context.Context, executor string, reports []store.Report) []error {
	return s.doEach("Report", len(reports), func(first int) (topics []store.Topic, errs []error) {
		errs = make([]error, first)
		for i, report := range reports[:first] {
			dedup, err := store.ReportDedup(report)
			if err != nil {
				errs[i] = err
				continue
			}
			e, try := s.try(report.Attempt)
			switch {
			case try == nil:
				errs[i] = conflict("report", report.Attempt, "there is none with this token")
			case aloft.Terminal(try.rec.Phase) || e.ended:
				errs[i] = conflict("report", report.Attempt, "it has ended")
			case try.rec.Executor != executor:
				errs[i] = conflict("report", report.Attempt, "executor "+executor+" does not have it")
			default:
				s.put(e, store.Message{Dedup: dedup, Inbox: report.Inbox})
				topics = []store.Topic{store.TopicInbox}
			}
		}
		return topics, errs
	})
}

// Adopt assigns the attempts of an instance that is gone to another instance of the same place.
func (s *Store) Adopt(_ context.Context, from, to string) (adopted int, err error) {
	err = s.do("Adopt", func() (topics []store.Topic, err error) {
		adopted = 0
		old, mine := s.instances[from], s.instances[to]
		if mine.ID == "" || old.ID != "" && old.Place != mine.Place {
			return nil, fmt.Errorf("adopt attempts of executor %s for %s: they are not known at the same place: %w", from, to, aloft.ErrPrecondition)
		}
		o := s.assigned[from]
		if from == to || o == nil {
			return nil, nil
		}
		for _, try := range slices.Clone(o.rows) {
			s.unlist(try)
			try.rec.Executor = to
			s.listForExecutors(try)
			topics = append(topics, store.TopicExecution(try.rec.ID.Execution))
			adopted++
		}
		return append(topics, store.TopicAttempts), nil
	})
	if err != nil {
		return 0, err
	}
	return adopted, nil
}
