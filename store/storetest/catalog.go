package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func cacheID(tag string) store.ResultID {
	return store.ResultID{Project: "flytesnacks", Domain: "development", Name: "flyte_task-t", Version: "1-a-b", Tag: tag}
}

// result has something in every field.
func result(name, tag string) *store.Result {
	return &store.Result{
		ResultID: cacheID(tag), ID: name, Outputs: literals("outputs of " + name),
		Objects:   []*aloftv1.ObjectDigest{{Uri: "aloft://blob/" + name, Digest: "sha256:00", Size: 3}},
		Key:       &aloftv1.CacheKey{Task: "t", CacheVersion: "1", Tag: tag, Inputs: []*aloftv1.CacheInput{{Name: "x", Hash: "h"}}},
		Source:    aloft.AttemptID{Execution: id("source"), Node: "n0", Attempt: 1},
		Metadata:  map[string]string{"execution-name": "source"},
		Dataset:   map[string]string{"task-version": "v1"},
		CreatedAt: at(1), UsedAt: at(1), Size: 17,
	}
}

func (s *suite) put(e *store.Result, overwrite bool) *store.Result {
	s.Helper()
	now, err := s.store.PutResult(s.ctx, e, overwrite)
	s.ok(err)
	return now
}

func (s *suite) found(tag string) *store.Result {
	s.Helper()
	e, err := s.store.FindResult(s.ctx, cacheID(tag))
	s.ok(err)
	return e
}

func (s *suite) notFound(tag string) {
	s.Helper()
	_, err := s.store.FindResult(s.ctx, cacheID(tag))
	s.is(err, aloft.ErrNotFound)
}

func aResultIsFoundByItsTagAndReadBackWhole(s *suite) {
	s.notFound("x")
	s.equal(s.put(result("r1", "x"), false), result("r1", "x"))
	s.equal(s.found("x"), result("r1", "x"))
	s.notFound("y")
	for _, other := range []store.ResultID{
		{Project: "other", Domain: "development", Name: "flyte_task-t", Version: "1-a-b", Tag: "x"},
		{Project: "flytesnacks", Domain: "staging", Name: "flyte_task-t", Version: "1-a-b", Tag: "x"},
		{Project: "flytesnacks", Domain: "development", Name: "flyte_task-u", Version: "1-a-b", Tag: "x"},
		{Project: "flytesnacks", Domain: "development", Name: "flyte_task-t", Version: "2-a-b", Tag: "x"},
	} {
		_, err := s.store.FindResult(s.ctx, other)
		s.is(err, aloft.ErrNotFound)
	}
	got, err := s.store.GetResult(s.ctx, "r1")
	s.ok(err)
	s.equal(got, result("r1", "x"))
	_, err = s.store.GetResult(s.ctx, "r2")
	s.is(err, aloft.ErrNotFound)
	_, err = s.store.PutResult(s.ctx, func() *store.Result { e := result("r1", "z"); e.Source = aloft.AttemptID{}; return e }(), false)
	s.is(err, aloft.ErrExists)
}

func severalResultsAreFoundAtOnce(s *suite) {
	find := func(ids ...store.ResultID) []*store.Result {
		s.Helper()
		all, err := s.store.FindResults(s.ctx, ids)
		s.ok(err)
		return all
	}
	usable := func(e *store.Result) *store.Result {
		return &store.Result{
			ResultID: e.ResultID, ID: e.ID, Outputs: e.Outputs, Objects: e.Objects, Source: e.Source, Dataset: e.Dataset, CreatedAt: e.CreatedAt,
		}
	}
	s.equal(len(find()), 0)
	s.equal(find(cacheID("x"), cacheID("")), []*store.Result{nil, nil})
	other := result("r-other", "x")
	other.Version = "2-a-b"
	s.put(other, false)
	var ids []store.ResultID
	var want []*store.Result
	for i := range 100 {
		tag := fmt.Sprint("t", i)
		ids, want = append(ids, cacheID(tag)), append(want, nil)
		if i%3 > 0 {
			want[i] = usable(s.put(result("r-"+tag, tag), false))
		}
	}
	ids, want = append(ids, other.ResultID, cacheID("x"), cacheID("t1")), append(want, usable(other), nil, want[1])
	s.equal(find(ids...), want)

	// A further tag finds the result, and a result that is gone is not found.
	s.ok(s.store.TagResult(s.ctx, "r-t1", "further"))
	_, err := s.store.RemoveResults(s.ctx, []string{"r-t2"}, "old", at(9))
	s.ok(err)
	s.put(result("r-new", "t4"), true)
	got := find(cacheID("further"), cacheID("t1"), cacheID("t2"), cacheID("t4"))
	s.equal(got, []*store.Result{usable(s.found("further")), usable(s.found("t1")), nil, usable(s.found("t4"))})
	s.equal(got[3].ID, "r-new")
}

func aTagGoesOnNamingTheFirstResult(s *suite) {
	s.put(result("r1", "x"), false)
	s.equal(s.put(result("r2", "x"), false), result("r1", "x"))
	s.equal(s.found("x"), result("r1", "x"))
	_, err := s.store.GetResult(s.ctx, "r2")
	s.is(err, aloft.ErrNotFound)
}

func anOverwritingResultReplacesTheOneThatWasThere(s *suite) {
	s.put(result("r1", "x"), false)
	newer := result("r2", "x")
	newer.CreatedAt, newer.UsedAt = at(2), at(2)
	s.equal(s.put(newer, true), newer)
	s.equal(s.found("x"), newer)
	old, err := s.store.GetResult(s.ctx, "r1")
	s.ok(err)
	if !old.GoneAt.Equal(at(2)) || old.GoneReason != "replaced by r2" {
		s.Fatalf("the old one went %v: %q", old.GoneAt, old.GoneReason)
	}
	s.put(result("r3", "fresh"), true)
	s.equal(s.found("fresh").ID, "r3")
}

func aResultOfACommitIsFoundOnceItIsCommitted(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	for _, tag := range []string{"a", "b", "c", "d", "e"} {
		step.Results = append(step.Results, result("r-"+tag, tag))
	}
	s.commit(step)
	s.ok(s.store.Commit(s.ctx, []*store.Step{step})[0]) // a repetition
	s.equal(s.found("c"), result("r-c", "c"))
	all, err := s.store.ListResults(s.ctx, store.ResultQuery{})
	s.ok(err)
	if len(all) != 5 {
		s.Fatalf("%d results, want 5", len(all))
	}
	again := s.step(e)
	again.Results = []*store.Result{result("r1", "other"), result("r2", "c")}
	beside := s.step(s.make("e2"))
	errs := s.store.Commit(s.ctx, []*store.Step{again, beside})
	var taken *store.TakenError
	if !errors.As(errs[0], &taken) || !errors.Is(errs[0], aloft.ErrConflict) || errs[1] != nil {
		s.Fatalf("a commit of results of which one is there: %v", errs)
	}
	if by := taken.By[cacheID("c")]; len(taken.By) != 1 || by.ID != "r-c" || by.Source != result("r-c", "c").Source {
		s.Errorf("they were taken by %v, want r-c", taken.By)
	}
	s.equal(s.found("c").ID, "r-c")
	s.notFound("other")
	again.Results = again.Results[:1]
	s.commit(again)
	s.equal(s.found("other").ID, "r1")
	over := s.step(e)
	over.Results, over.Overwrite = []*store.Result{result("r3", "c"), result("r4", "new")}, true
	s.commit(over)
	s.equal(s.found("c").ID, "r3")
	s.equal(s.found("new").ID, "r4")
	old, err := s.store.GetResult(s.ctx, "r-c")
	s.ok(err)
	s.equal(old.GoneReason, "replaced by r3")
}

func aRefusedStepMakesNoResultFindable(s *suite) {
	e, other := s.make("e1"), s.make("e2")
	bad, good := s.step(e), s.step(other)
	bad.Lease.Epoch++
	bad.Results, good.Results = []*store.Result{result("r1", "x")}, []*store.Result{result("r2", "y")}
	errs := s.store.Commit(s.ctx, []*store.Step{bad, good})
	s.is(errs[0], aloft.ErrFenced)
	s.ok(errs[1])
	s.notFound("x")
	s.equal(s.found("y").ID, "r2")
}

func whatIsRemovedIsNotFoundAndSaysWhy(s *suite) {
	s.put(result("r1", "x"), false)
	s.put(result("r2", "y"), false)
	n, err := s.store.RemoveResults(s.ctx, []string{"r1", "unknown"}, "removed by ada", at(5))
	s.ok(err)
	s.equal(n, 1)
	s.notFound("x")
	s.found("y")
	n, err = s.store.RemoveResults(s.ctx, []string{"r1"}, "again", at(6))
	s.ok(err)
	s.equal(n, 0)
	gone, err := s.store.GetResult(s.ctx, "r1")
	s.ok(err)
	want := result("r1", "x")
	want.GoneAt, want.GoneReason = at(5), "removed by ada"
	s.equal(gone, want)
	s.equal(s.put(result("r3", "x"), false).ID, "r3") // the tag is free
}

func resultsArePinnedUsedAndListed(s *suite) {
	for i, tag := range []string{"a", "b", "c"} {
		r := result("r-"+tag, tag)
		r.CreatedAt, r.UsedAt = at(i), at(i)
		s.put(r, false)
	}
	outside := result("r-d", "d")
	outside.Name, outside.Source, outside.CreatedAt, outside.UsedAt = "other", aloft.AttemptID{}, at(3), at(3)
	s.put(outside, false)
	n, err := s.store.PinResults(s.ctx, []string{"r-a", "r-b", "unknown"}, true)
	s.ok(err)
	s.equal(n, 2)
	n, err = s.store.PinResults(s.ctx, []string{"r-a", "r-b"}, false)
	s.ok(err)
	s.equal(n, 2)
	_, err = s.store.PinResults(s.ctx, []string{"r-c"}, true)
	s.ok(err)
	s.ok(s.store.UsedResults(s.ctx, []string{"r-a"}, at(60)))
	s.ok(s.store.UsedResults(s.ctx, []string{"r-a"}, at(50))) // an earlier use, noted late
	_, err = s.store.RemoveResults(s.ctx, []string{"r-b"}, "old", at(61))
	s.ok(err)

	list := func(q store.ResultQuery) (ids []string) {
		s.Helper()
		all, err := s.store.ListResults(s.ctx, q)
		s.ok(err)
		for _, e := range all {
			if e.Outputs != nil || e.Objects != nil {
				s.Fatal("a list has outputs")
			}
			ids = append(ids, e.ID)
		}
		return ids
	}
	s.equal(list(store.ResultQuery{}), []string{"r-d", "r-c", "r-a"})
	s.equal(list(store.ResultQuery{Gone: true, Ascending: true}), []string{"r-a", "r-b", "r-c", "r-d"})
	s.equal(list(store.ResultQuery{Gone: true, Limit: 2, Offset: 1}), []string{"r-c", "r-b"})
	s.equal(list(store.ResultQuery{Before: at(2)}), []string{"r-a"})
	s.equal(list(store.ResultQuery{Tag: "c"}), []string{"r-c"})
	s.equal(list(store.ResultQuery{ID: "r-a", Project: "flytesnacks", Domain: "development", Version: "1-a-b"}), []string{"r-a"})
	s.equal(list(store.ResultQuery{Name: "other"}), []string{"r-d"})
	s.equal(list(store.ResultQuery{Project: "nobody's"}), []string(nil))
	s.equal(list(store.ResultQuery{Execution: id("source").Proto()}), []string{"r-c", "r-a"})
	a, err := s.store.GetResult(s.ctx, "r-a")
	s.ok(err)
	s.equal(a.UsedAt, at(60))
	c, err := s.store.GetResult(s.ctx, "r-c")
	s.ok(err)
	s.equal(c.Pinned, true)
}

func aResultMayHaveFurtherTags(s *suite) {
	r := result("r1", "")
	r.Partitions = map[string]string{"day": "monday"}
	s.put(r, false)
	s.ok(s.store.TagResult(s.ctx, "r1", "x"))
	s.ok(s.store.TagResult(s.ctx, "r1", "z"))
	s.ok(s.store.TagResult(s.ctx, "r1", "y"))
	s.is(s.store.TagResult(s.ctx, "r1", "y"), aloft.ErrExists)
	s.is(s.store.TagResult(s.ctx, "unknown", "w"), aloft.ErrNotFound)
	want := result("r1", "x")
	want.Key, want.Partitions, want.Tags = r.Key, r.Partitions, []string{"y", "z"}
	for _, tag := range []string{"x", "y", "z"} {
		s.equal(s.found(tag), want)
	}
	// One of its tags is given to another result: the result is gone, with all its tags.
	s.put(result("r2", "y"), true)
	s.equal(s.found("y").ID, "r2")
	s.notFound("x")
	s.notFound("z")
	s.is(s.store.TagResult(s.ctx, "r1", "w"), aloft.ErrNotFound)
	s.equal(s.put(result("r3", "z"), false).ID, "r3")
}

func datasetsAreStatedOnce(s *suite) {
	d := &store.Dataset{Project: "p", Domain: "d", Name: "n", Version: "v", Metadata: map[string]string{"a": "b"}, PartitionKeys: []string{"day"}, CreatedAt: at(1)}
	s.ok(s.store.CreateDataset(s.ctx, d))
	s.is(s.store.CreateDataset(s.ctx, d), aloft.ErrExists)
	s.put(result("r1", "x"), false)
	s.put(result("r2", "y"), false)
	made := &store.Dataset{Project: "flytesnacks", Domain: "development", Name: "flyte_task-t", Version: "1-a-b"}
	s.is(s.store.CreateDataset(s.ctx, made), aloft.ErrExists)
	made.Metadata, made.CreatedAt = map[string]string{"task-version": "v1"}, at(1)
	all, err := s.store.ListDatasets(s.ctx, store.ResultQuery{})
	s.ok(err)
	s.equal(all, []*store.Dataset{made, d})
	all, err = s.store.ListDatasets(s.ctx, store.ResultQuery{Name: "n", Limit: 1})
	s.ok(err)
	s.equal(all, []*store.Dataset{d})
}

func (s *suite) reserve(r store.Reservation, now time.Time) store.Reservation {
	s.Helper()
	holds, err := s.store.Reserve(s.ctx, r, now)
	s.ok(err)
	return holds
}

func mine(e *store.Execution, node aloft.NodeID) store.Reservation {
	return store.Reservation{ID: cacheID("x"), Owner: e.ID.Name + "/" + string(node), Execution: e.Key, Node: node}
}

func aReservationIsOneOwnersUntilItIsGivenBack(s *suite) {
	a, b := s.make("a"), s.make("b")
	s.equal(s.reserve(mine(a, "n0"), at(0)), mine(a, "n0"))
	s.equal(s.reserve(mine(a, "n0"), at(1)), mine(a, "n0"))
	s.equal(s.reserve(mine(b, "n0"), at(2)), mine(a, "n0"))
	s.equal(s.reserve(mine(a, "n1"), at(3)), mine(a, "n0")) // another node of the same execution
	s.ok(s.store.Release(s.ctx, cacheID("x"), "b/n0"))      // b does not hold it
	s.equal(s.reserve(mine(b, "n0"), at(4)), mine(a, "n0"))
	s.ok(s.store.Release(s.ctx, cacheID("x"), "a/n0"))
	s.equal(s.reserve(mine(b, "n0"), at(5)), mine(b, "n0"))
}

func aReservationEndsWithItsNodeOrItsExecution(s *suite) {
	a, b, c := s.make("a"), s.make("b"), s.make("c")
	s.reserve(mine(a, "n0"), at(0))
	step := s.step(a)
	step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_RUNNING, CreatedAt: at(1), UpdatedAt: at(1)}}
	s.commit(step)
	s.equal(s.reserve(mine(b, "n0"), at(100)), mine(a, "n0")) // a node's reservation does not expire
	step = s.step(a)
	step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_FAILED, CreatedAt: at(1), UpdatedAt: at(2), EndedAt: at(2)}}
	s.commit(step)
	s.equal(s.reserve(mine(b, "n0"), at(101)), mine(b, "n0"))
	step = s.step(b) // b ends before its node had a record
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, EndedAt: at(3), UpdatedAt: at(3)}
	s.commit(step)
	s.equal(s.reserve(mine(c, "n0"), at(102)), mine(c, "n0"))
}

func anOutsidersReservationRunsOut(s *suite) {
	outside := func(owner string, expires time.Time) store.Reservation {
		return store.Reservation{ID: cacheID("x"), Owner: owner, Heartbeat: 10 * time.Second, Expires: expires}
	}
	s.equal(s.reserve(outside("o1", at(30)), at(0)), outside("o1", at(30)))
	s.equal(s.reserve(outside("o2", at(50)), at(20)), outside("o1", at(30)))
	s.equal(s.reserve(outside("o1", at(50)), at(20)), outside("o1", at(50))) // extended
	s.equal(s.reserve(outside("o2", at(70)), at(40)), outside("o1", at(50)))
	s.equal(s.reserve(outside("o2", at(80)), at(50)), outside("o2", at(80)))
	e := s.make("e")
	s.equal(s.reserve(mine(e, "n0"), at(60)), outside("o2", at(80)))
	s.equal(s.reserve(mine(e, "n0"), at(80)), mine(e, "n0"))
}

func givingAReservationBackWakesThoseWhoWaitOnce(s *suite) {
	a, b, c, d := s.make("a"), s.make("b"), s.make("c"), s.make("d")
	s.drain(a, b, c, d)
	s.reserve(mine(a, "n0"), at(0))
	s.reserve(mine(b, "n0"), at(1))
	s.reserve(mine(b, "n1"), at(1))
	s.reserve(mine(c, "n0"), at(1))
	s.reserve(mine(d, "n0"), at(1))
	end := s.step(d) // an execution that has ended is not woken
	end.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, EndedAt: at(2), UpdatedAt: at(2)}
	s.commit(end)
	wrong := s.step(b)
	wrong.Releases = []store.Release{{ID: cacheID("x"), Owner: "b/n0"}} // b does not hold it
	s.commit(wrong)
	if rows := s.inbox(); len(rows) != 0 {
		s.Fatalf("woken although nothing was given back: %v", rows)
	}
	step := s.step(a)
	step.Results = []*store.Result{result("r1", "x")}
	step.Releases = []store.Release{{ID: cacheID("x"), Owner: "a/n0"}}
	s.commit(step)
	rows := s.inbox()
	if len(rows) != 2 || rows[0].Execution != b.Key || rows[1].Execution != c.Key {
		s.Fatalf("woken: %v, want b and c once", rows)
	}
	s.equal(rows[0].Inbox, store.ResultWake(store.WaitForResult(cacheID("x")), "").Inbox)
	s.equal(s.reserve(mine(b, "n0"), at(3)), mine(b, "n0"))
	s.ok(s.store.Release(s.ctx, cacheID("x"), "b/n0"))
	if again := s.inbox(); len(again) != 2 {
		s.Fatalf("woken again without having waited again: %v", again)
	}
}

func aWakeUpIsNotLostInTheOneBeforeIt(s *suite) {
	a, b := s.make("a"), s.make("b")
	s.drain(a, b)
	s.reserve(mine(a, "n0"), at(0))
	s.reserve(mine(b, "n0"), at(1))
	s.ok(s.store.Release(s.ctx, cacheID("x"), "a/n0"))
	first := s.inbox()
	if len(first) != 1 {
		s.Fatalf("woken: %v, want b", first)
	}
	// b has read this wake and finds the result reserved anew. The reservation is given back before b commits the step that
	// consumes the wake.
	s.reserve(mine(a, "n1"), at(2))
	s.reserve(mine(b, "n0"), at(3))
	s.ok(s.store.Release(s.ctx, cacheID("x"), "a/n1"))
	step := s.step(b)
	step.Consumed = []int64{first[0].Seq}
	s.commit(step)
	if left := s.inbox(); len(left) != 1 || left[0].Execution != b.Key {
		s.Fatalf("left to wake: %v, want b", left)
	}
}

func anEndedExecutionHasNothingReserved(s *suite) {
	a, b, c := s.make("a"), s.make("b"), s.make("c")
	s.drain(a, b, c)
	s.reserve(mine(a, "n0"), at(0)) // a node that never gets a record
	s.reserve(mine(b, "n0"), at(1))
	other := mine(c, "n0")
	other.ID = cacheID("y")
	s.reserve(other, at(1))
	end := s.step(a)
	end.ReleasesAll = true
	end.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, EndedAt: at(2), UpdatedAt: at(2)}
	s.commit(end)
	if rows := s.inbox(); len(rows) != 1 || rows[0].Execution != b.Key {
		s.Fatalf("woken: %v, want b", rows)
	}
	other.Execution, other.Owner = b.Key, "b/n1"
	s.equal(s.reserve(other, at(3)).Owner, "c/n0") // c has not ended
}

// drain consumes the first messages of executions.
func (s *suite) drain(all ...*store.Execution) {
	s.Helper()
	of := map[store.Key]*store.Execution{}
	for _, e := range all {
		of[e.Key] = e
	}
	for _, row := range s.inbox() {
		step := s.step(of[row.Execution])
		step.Consumed = []int64{row.Seq}
		s.commit(step)
	}
}

func aNodeKeepsItsLookupAndSaysWhatItWaitsFor(s *suite) {
	e := s.make("e1")
	lookup := &aloftv1.CacheLookup{Status: core.CatalogCacheStatus_CACHE_MISS, Reason: "never computed", Key: &aloftv1.CacheKey{Task: "t"}}
	n := &store.Node{ID: "n0", Phase: core.NodeExecution_QUEUED, CreatedAt: at(1), UpdatedAt: at(1), Cache: lookup, Waiting: "somebody computes it"}
	step := s.step(e)
	step.Nodes = []*store.Node{n}
	s.commit(step)
	got, err := s.store.GetNode(s.ctx, e.ID, "n0")
	s.ok(err)
	s.equal(got.Cache, lookup)
	s.equal(got.Waiting, "somebody computes it")
	step = s.step(e)
	step.Nodes = []*store.Node{{ID: "n0", Phase: core.NodeExecution_RUNNING, CreatedAt: at(1), UpdatedAt: at(2)}}
	s.commit(step)
	all, err := s.store.ListNodes(s.ctx, e.ID, "", true, store.Query{})
	s.ok(err)
	s.equal(all[0].Cache, lookup)
	s.equal(all[0].Waiting, "")
}
