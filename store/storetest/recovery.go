package storetest

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var recoveryClaims = []func(*suite, store.Recoveries){
	aJobIsReadBackWithItsItems,
	aJobIsSavedOnTheVersionThatWasRead,
	aJobHasOneOwnerUntilItsLeaseHasRunOut,
	recoveriesAreFoundByWhatTheyRecover,
	aLaterSuccessWithEqualInputsIsFound,
}

// RunRecoveries tests a store that has recovery jobs against the contract of store.Recoveries.
func RunRecoveries(t *testing.T, open Open) {
	for _, claim := range recoveryClaims {
		t.Run(nameOf(claim), func(t *testing.T) {
			t.Parallel()
			s := &suite{T: t, store: open(t), ctx: t.Context(), owner: "engine"}
			r, ok := s.store.(store.Recoveries)
			if !ok {
				t.Fatalf("%T has no recovery jobs", s.store)
			}
			claim(s, r)
		})
	}
}

func job(name string) (*aloftv1.RecoveryJob, []*aloftv1.RecoveryItem) {
	items := make([]*aloftv1.RecoveryItem, 70) // more items than one statement writes
	for i := range items {
		items[i] = &aloftv1.RecoveryItem{Position: uint32(i), Execution: id("e").Proto()}
	}
	return &aloftv1.RecoveryJob{Name: name, Selection: &aloftv1.RecoverySelection{Project: "flytesnacks", Domain: "development"}, Phase: aloftv1.RecoveryJob_RUNNING}, items
}

func aJobIsReadBackWithItsItems(s *suite, r store.Recoveries) {
	wake, cancel := s.store.Subscribe(store.TopicRecovery)
	defer cancel()
	j, items := job("a")
	s.ok(r.CreateRecoveryJob(s.ctx, j, items))
	if !woken(wake) || j.GetVersion() == 0 {
		s.Fatalf("nobody was woken, or it has no version: %v", j)
	}
	got, err := r.GetRecoveryJob(s.ctx, "a")
	s.ok(err)
	s.equal(got, j)
	all, err := r.RecoveryItems(s.ctx, "a")
	s.ok(err)
	s.equal(all, items)
	s.is(r.CreateRecoveryJob(s.ctx, proto.CloneOf(j), items[:1]), aloft.ErrExists)
	_, err = r.GetRecoveryJob(s.ctx, "missing")
	s.is(err, aloft.ErrNotFound)
	_, err = r.RecoveryItems(s.ctx, "missing")
	s.is(err, aloft.ErrNotFound)

	other, none := job("b")
	other.Selection.Domain, other.Phase = "production", aloftv1.RecoveryJob_ENDED
	s.ok(r.CreateRecoveryJob(s.ctx, other, none[:0]))
	list, err := r.ListRecoveryJobs(s.ctx, "", "", 0)
	s.ok(err)
	s.equal(list, []*aloftv1.RecoveryJob{other, j})
	list, err = r.ListRecoveryJobs(s.ctx, "flytesnacks", "development", 5)
	s.ok(err)
	s.equal(list, []*aloftv1.RecoveryJob{j})
}

func aJobIsSavedOnTheVersionThatWasRead(s *suite, r store.Recoveries) {
	j, items := job("a")
	s.ok(r.CreateRecoveryJob(s.ctx, j, items))
	late := proto.CloneOf(j)
	j.Reason = "first"
	items[3].Phase = aloftv1.RecoveryItem_STARTED
	s.ok(r.SaveRecoveryJob(s.ctx, j, items[3:4]))
	late.Reason = "late"
	changed := proto.CloneOf(items[3])
	changed.Phase = aloftv1.RecoveryItem_SKIPPED
	s.is(r.SaveRecoveryJob(s.ctx, late, []*aloftv1.RecoveryItem{changed}), aloft.ErrConflict)
	got, err := r.GetRecoveryJob(s.ctx, "a")
	s.ok(err)
	s.equal(got, j)
	all, err := r.RecoveryItems(s.ctx, "a")
	s.ok(err)
	s.equal(all, items)
	s.ok(r.SaveRecoveryJob(s.ctx, j, nil))
	missing, _ := job("missing")
	s.is(r.SaveRecoveryJob(s.ctx, missing, nil), aloft.ErrNotFound)
}

func aJobHasOneOwnerUntilItsLeaseHasRunOut(s *suite, r store.Recoveries) {
	none, err := r.AcquireRecoveryJobs(s.ctx, "first", time.Now(), time.Minute)
	s.ok(err)
	s.equal(len(none), 0)
	j, items := job("a")
	s.ok(r.CreateRecoveryJob(s.ctx, j, items))
	ended, _ := job("ended")
	ended.Phase = aloftv1.RecoveryJob_ENDED
	s.ok(r.CreateRecoveryJob(s.ctx, ended, nil))
	acquire := func(owner string, ttl time.Duration, want int) {
		s.Helper()
		got, err := r.AcquireRecoveryJobs(s.ctx, owner, time.Now(), ttl)
		s.ok(err)
		s.equal(len(got), want)
	}
	acquire("first", time.Hour, 1)
	acquire("second", time.Hour, 0)
	acquire("first", -time.Hour, 1) // as if an hour had gone by
	acquire("second", time.Hour, 1)
	acquire("first", time.Hour, 0)
	j.Phase = aloftv1.RecoveryJob_ENDED
	s.ok(r.SaveRecoveryJob(s.ctx, j, nil))
	acquire("second", time.Hour, 0)
}

func recoveriesAreFoundByWhatTheyRecover(s *suite, r store.Recoveries) {
	recovering := func(name, of, domain string, mode admin.ExecutionMetadata_ExecutionMode) *store.Execution {
		e := execution(name)
		e.ID.Domain = domain
		reference := aloft.ExecutionID{Project: e.ID.Project, Domain: domain, Name: of}
		e.Spec.Metadata = &admin.ExecutionMetadata{Mode: mode, ReferenceExecution: reference.Proto()}
		s.ok(s.store.CreateExecution(s.ctx, e, create(name)))
		return e
	}
	s.make("a")
	first := recovering("r1", "a", "development", admin.ExecutionMetadata_RECOVERED)
	recovering("r2", "a", "development", admin.ExecutionMetadata_RECOVERED)
	recovering("r3", "r1", "development", admin.ExecutionMetadata_RECOVERED)
	recovering("again", "a", "development", admin.ExecutionMetadata_RELAUNCH)
	recovering("r4", "a", "production", admin.ExecutionMetadata_RECOVERED)
	step := s.step(first)
	step.Consumed = s.consumeAll(first)
	failure := &core.ExecutionError{Code: "USER:Oops"}
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_FAILED, EndedAt: at(9), UpdatedAt: at(9), Error: failure}
	s.commit(step)

	ids := []aloft.ExecutionID{id("a"), id("missing")}
	for range 70 {
		ids = append(ids, id("nobody"))
	}
	got, err := r.RecoveriesOf(s.ctx, ids)
	s.ok(err)
	s.equal(got, []store.Recovered{
		{Execution: id("a"), Recovery: id("r2"), Phase: core.WorkflowExecution_QUEUED},
		{Execution: id("a"), Recovery: id("r1"), Phase: core.WorkflowExecution_FAILED, Error: failure},
	})
	got, err = r.RecoveriesOf(s.ctx, nil)
	s.ok(err)
	s.equal(len(got), 0)
}

func aLaterSuccessWithEqualInputsIsFound(s *suite, r store.Recoveries) {
	made := func(name, workflow, version string, inputs *aloftv1.Literals) {
		e := execution(name)
		e.Workflow, e.Inputs = identifier(core.ResourceType_WORKFLOW, workflow, version), inputs
		s.ok(s.store.CreateExecution(s.ctx, e, create(name)))
		if name[0] != '-' {
			s.end(e, core.WorkflowExecution_SUCCEEDED)
		}
	}
	made("before", "wf", "v1", literals("x"))
	made("-failed", "wf", "v1", literals("x"))
	made("-alone", "wf", "v1", literals("alone"))
	made("-nothing", "wf", "v1", nil)
	found := func(of, want string) {
		s.Helper()
		got, err := r.SucceededSince(s.ctx, id(of))
		s.ok(err)
		wanted := aloft.ExecutionID{}
		if want != "" {
			wanted = id(want)
		}
		s.equal(got, wanted)
	}
	found("-failed", "")
	made("other inputs", "wf", "v1", literals("y"))
	made("other workflow", "wf2", "v1", literals("x"))
	made("-not succeeded", "wf", "v1", literals("x"))
	found("-failed", "")
	made("fixed", "wf", "v2", literals("x"))
	made("without", "wf", "v1", nil)
	found("-failed", "fixed")
	found("-alone", "")
	found("-nothing", "without")
	found("missing", "")
}
