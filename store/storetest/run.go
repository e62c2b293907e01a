package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

var claims = []func(*suite){
	anExecutionIsReadBackAsItWasCreated,
	aNameCanBeTakenOnce,
	aCreationThatIsRepeatedFindsItsOwnExecution,
	aNewExecutionHasItsCreateMessageInTheInbox,
	aMessageIsInTheInboxOnceUntilItIsConsumed,
	nothingCanBeAppendedToWhatHasEndedOrIsNotThere,
	theInboxIsReadInOrderFromACursorByShard,
	theJournalIsLoadedInOrder,
	aSequenceIsTakenOnceAndLeavesNoHoles,
	aRepeatedCommitIsTheSameCommit,
	aStaleEpochIsRefused,
	aRefusedStepHasNoEffectAndDoesNotHinderOthers,
	aLeaseChangesHandsWhenItHasRunOutAndOnlyThen,
	releasedShardsAreFreeAtOnce,
	shardsAreSharedByThoseWhoAreThere,
	whatIsAnothersByNowIsNotGivenBack,
	nodesKeepInputsOutputsAndMetadataThatAStepLeavesOut,
	literalsOfANodeAreReadByKey,
	manyNodesAreReadWithTheirValues,
	aNodeThatHasEndedStaysAsItEnded,
	anAttemptIsReadBackWhole,
	theEngineDoesNotTouchWhatExecutorsOwn,
	anAttemptThatHasEndedOrHasAnotherTokenIsNotOverwritten,
	changesOfAnExecutionAreReadBack,
	endingEmptiesTheInboxAndTheTimer,
	anAcknowledgedTerminationIsNotOvertakenByTheEnd,
	dueExecutionsComeSoonestFirst,
	executionsSayWhatTimeItIs,
	messagesToOthersArriveOnceAndNeverHinderTheSender,
	onlyWhatIsDueFreeAndNotStoppedWaits,
	waitingReasonsAreForThoseNobodyHas,
	oneInstanceGetsAnAttempt,
	whatHasEndedOrIsToBeStoppedIsNotAssigned,
	whatTheEngineRunsIsHiddenFromExecutors,
	aReportEntersTheInboxOnce,
	aZombiesReportIsDropped,
	aStopOfWhatNobodyHasEndsIt,
	aStopOfWhatAnInstanceHasIsLeftToIt,
	attemptsAreAdoptedWithinAPlace,
	anInstanceIsOneProcessAtATime,
	anInstanceIsRemovedWhenItHasNothing,
	onlyWhatNothingWillMoveIsStuck,
	namedWaitsAreCounted,
	commitsWakeThoseWhoWait,
	listsOfOneExecutionArePagedInOrderOfCreation,
	whatWasCreatedAtOnceIsListedInTheOrderItWasWritten,
	whatIsHandedInAndOutIsNotShared,
	versionsAreWrittenOnceAndReadBack,
	oneLaunchPlanOfANameIsActive,
	projectsAreCreatedChangedAndListed,
	aNameExistsFromItsFirstVersionOn,
	metadataIsOfANameAndNotOfItsVersions,
	anArchivedExecutionSaysWhoDidIt,
	manyWritersAtOnceLoseNothing,
	theHealthOfServicesIsReadBackByName,
	aServiceIsWrittenByWhoReadItLast,
	ofManyWhoNoticeAnOutageOneWritesIt,
	aChangeOfHealthWakesThoseWhoWait,
	anExecutionSaysSinceWhenItWaits,
	aResultIsFoundByItsTagAndReadBackWhole,
	severalResultsAreFoundAtOnce,
	aTagGoesOnNamingTheFirstResult,
	anOverwritingResultReplacesTheOneThatWasThere,
	aResultOfACommitIsFoundOnceItIsCommitted,
	aRefusedStepMakesNoResultFindable,
	whatIsRemovedIsNotFoundAndSaysWhy,
	resultsArePinnedUsedAndListed,
	aResultMayHaveFurtherTags,
	datasetsAreStatedOnce,
	aReservationIsOneOwnersUntilItIsGivenBack,
	aReservationEndsWithItsNodeOrItsExecution,
	anOutsidersReservationRunsOut,
	givingAReservationBackWakesThoseWhoWaitOnce,
	aWakeUpIsNotLostInTheOneBeforeIt,
	anEndedExecutionHasNothingReserved,
	aNodeKeepsItsLookupAndSaysWhatItWaitsFor,
}

func anExecutionIsReadBackAsItWasCreated(s *suite) {
	e := s.make("e1")
	got, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	s.equal(got, e)
	loaded, journal, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	s.equal(loaded, e)
	if len(journal) != 0 {
		s.Fatalf("a new execution has %d journal entries", len(journal))
	}
	_, err = s.store.GetExecution(s.ctx, id("other"))
	s.is(err, aloft.ErrNotFound)
	_, _, err = Load(s.ctx, s.store, e.Key+1)
	s.is(err, aloft.ErrNotFound)
	counts, err := s.store.Counts(s.ctx)
	s.ok(err)
	s.equal(counts, store.Counts{Executions: 1, Running: 1})
}

func aNameCanBeTakenOnce(s *suite) {
	s.make("e1")
	s.is(s.store.CreateExecution(s.ctx, execution("e1"), create("again")), aloft.ErrExists)
	nameless := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{}}}
	s.ok(s.store.CreateExecution(s.ctx, execution("e2"), nameless))
	s.is(s.store.CreateExecution(s.ctx, execution("e2"), nameless), aloft.ErrExists)
	if rows := s.inbox(); len(rows) != 2 || rows[0].Inbox.GetCreate().GetSeed() != "e1" {
		s.Fatalf("the inbox is %v, want the first messages alone", rows)
	}
}

func aCreationThatIsRepeatedFindsItsOwnExecution(s *suite) {
	made := s.make("e1")
	again := func() {
		s.Helper()
		e := execution("e1")
		s.ok(s.store.CreateExecution(s.ctx, e, create("e1")))
		if e.Key != made.Key || e.Shard != made.Shard || e.JournalVersion != made.JournalVersion {
			s.Errorf("the repetition has key %d, shard %d and version %d, want those of the first: %d, %d, %d", e.Key, e.Shard, e.JournalVersion, made.Key, made.Shard, made.JournalVersion)
		}
		s.is(s.store.CreateExecution(s.ctx, execution("e1"), create("another")), aloft.ErrExists)
	}
	again()
	step := s.step(made) // the engine has read the message already, but could only record what it waits for
	step.Entry, step.Waiting = &aloftv1.JournalEntry{}, "the blob store"
	s.commit(step)
	again()
	step = s.step(made)
	step.Consumed = []int64{s.inbox()[0].Seq}
	step.Entry = &aloftv1.JournalEntry{Events: []*aloftv1.Event{{At: 1, Kind: &aloftv1.Event_ExecutionStarted{
		ExecutionStarted: &aloftv1.ExecutionStarted{Create: create("e1").GetCreate()},
	}}}}
	s.commit(step)
	again()
	step = s.step(made)
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_SUCCEEDED, EndedAt: at(1), UpdatedAt: at(1)}
	s.commit(step)
	again()
	if rows := s.inbox(); len(rows) != 0 {
		s.Errorf("the inbox is %v, want nothing", rows)
	}
}

func aNewExecutionHasItsCreateMessageInTheInbox(s *suite) {
	e := s.make("e1")
	rows := s.inbox()
	if len(rows) != 1 || rows[0].Execution != e.Key || rows[0].Shard != e.Shard {
		s.Fatalf("the inbox is %v", rows)
	}
	s.equal(rows[0].Inbox, create("e1"))
}

func aMessageIsInTheInboxOnceUntilItIsConsumed(s *suite) {
	e := s.make("e1")
	s.ok(s.store.Append(s.ctx, e.ID, terminate("first")))
	s.ok(s.store.Append(s.ctx, e.ID, terminate("second")))
	rows := s.inbox()
	if len(rows) != 2 || rows[1].Inbox.GetTerminate().GetCause() != "first" {
		s.Fatalf("the inbox is %v, want create and the first terminate", rows)
	}
	step := s.step(e)
	step.Consumed = []int64{rows[0].Seq, rows[1].Seq}
	s.commit(step)
	if rows := s.inbox(); len(rows) != 0 {
		s.Fatalf("consumed messages are still there: %v", rows)
	}
	s.ok(s.store.Append(s.ctx, e.ID, terminate("third")))
	again := s.inbox()
	if len(again) != 1 || again[0].Seq <= rows[1].Seq {
		s.Fatalf("the inbox is %v, want one message with a sequence above %d", again, rows[1].Seq)
	}
}

func nothingCanBeAppendedToWhatHasEndedOrIsNotThere(s *suite) {
	e := s.make("e1")
	s.end(e, core.WorkflowExecution_SUCCEEDED)
	s.is(s.store.Append(s.ctx, e.ID, terminate("too late")), aloft.ErrPrecondition)
	s.is(s.store.Append(s.ctx, id("other"), terminate("nobody")), aloft.ErrNotFound)
}

func theInboxIsReadInOrderFromACursorByShard(s *suite) {
	var made []*store.Execution
	for i := range 5 {
		made = append(made, s.make(fmt.Sprintf("e%d", i)))
	}
	rows := s.inbox()
	for i, row := range rows {
		if row.Execution != made[i].Key || i > 0 && row.Seq <= rows[i-1].Seq {
			s.Fatalf("row %d is %v, want executions in order of creation", i, row)
		}
	}
	after, err := s.store.Inbox(s.ctx, shards(), rows[1].Seq, 2)
	s.ok(err)
	s.equal(after, rows[2:4])
	one, err := s.store.Inbox(s.ctx, []int{made[3].Shard}, 0, 0)
	s.ok(err)
	for _, row := range one {
		if row.Shard != made[3].Shard {
			s.Fatalf("asked for shard %d, got %v", made[3].Shard, row)
		}
	}
	if len(one) == 0 {
		s.Fatal("asked for the shard of an execution, got nothing")
	}
	none, err := s.store.Inbox(s.ctx, nil, 0, 0)
	s.ok(err)
	if len(none) != 0 {
		s.Fatalf("asked for no shard, got %v", none)
	}
}

func theJournalIsLoadedInOrder(s *suite) {
	e, other := s.make("e1"), s.make("e2")
	for range 12 {
		s.commit(s.step(e))
		s.commit(s.step(other))
	}
	_, journal, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	var want []store.JournalRow
	for seq := int64(1); seq <= 12; seq++ {
		want = append(want, store.JournalRow{Seq: seq, Entry: entry(seq)})
	}
	s.equal(journal, want)

	// The journal is handed out entry by entry, until got returns an error.
	enough, seen := errors.New("enough"), 0
	err = s.store.Journal(s.ctx, e.Key, func(row store.JournalRow) error {
		if seen++; row.Seq != int64(seen) {
			s.Errorf("entry %d comes as the %dth", row.Seq, seen)
		}
		if seen == 5 {
			return enough
		}
		return nil
	})
	if err != enough || seen != 5 { //nolint:errorlint // the error of got itself is returned
		s.Errorf("after 5 entries the reader has enough: it was given %d, the error is %v", seen, err)
	}
	s.ok(s.store.Journal(s.ctx, e.Key+100, func(store.JournalRow) error { s.Error("what is not there has a journal"); return nil }))
}

func aSequenceIsTakenOnceAndLeavesNoHoles(s *suite) {
	e := s.make("e1")
	s.commit(s.step(e))
	again := s.step(e)
	again.Seq, again.CommitID = 1, "another"
	s.refused(again, aloft.ErrConflict)
	hole := s.step(e)
	hole.Seq = 3
	s.refused(hole, aloft.ErrConflict)
	zero := s.step(e)
	zero.Seq = 0
	s.refused(zero, aloft.ErrConflict)
}

func aRepeatedCommitIsTheSameCommit(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	step.Consumed = s.consumeAll(e)
	step.Nodes = []*store.Node{node("n0", core.NodeExecution_RUNNING)}
	step.Appends = []store.Append{{ID: e.ID, Message: terminate("once")}}
	s.commit(step)
	s.commit(s.step(e))
	taken := s.consumeAll(e)
	next := s.step(e)
	next.Seq, next.Consumed = 3, taken
	s.ok(s.store.Commit(s.ctx, []*store.Step{next})[0])
	// A repetition is also recognised when the lease has changed hands since.
	_, err := s.store.AcquireShards(s.ctx, "other engine", at(3600), time.Minute)
	s.ok(err)
	for range 2 {
		s.ok(s.store.Commit(s.ctx, []*store.Step{step})[0])
	}
	if rows := s.inbox(); len(rows) != 0 {
		s.Fatalf("a repetition put %v into the inbox", rows)
	}
	_, journal, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	if len(journal) != 3 {
		s.Fatalf("the journal has %d entries, want 3", len(journal))
	}
}

func aStaleEpochIsRefused(s *suite) {
	e := s.make("e1")
	stale := s.step(e)
	_, err := s.store.AcquireShards(s.ctx, "other engine", at(3600), time.Minute)
	s.ok(err)
	s.refused(stale, aloft.ErrFenced)

	// The shard comes back to the first owner under another epoch.
	s.acquire(at(7200))
	s.refused(stale, aloft.ErrFenced)
	forged := s.step(e)
	forged.Lease.Owner = "other engine"
	s.refused(forged, aloft.ErrFenced)
	wrong := s.step(e)
	wrong.Lease = s.leases[(e.Shard+1)%store.Shards]
	s.refused(wrong, aloft.ErrFenced)
	s.commit(s.step(e))
}

func aRefusedStepHasNoEffectAndDoesNotHinderOthers(s *suite) {
	var made []*store.Execution
	var steps []*store.Step
	for i := range 6 {
		e := s.make(fmt.Sprintf("e%d", i))
		step := s.step(e)
		step.Consumed = s.consumeAll(e)
		step.Nodes = []*store.Node{node("n0", core.NodeExecution_SUCCEEDED)}
		step.Attempts = []*store.Attempt{attempt(e, "n0", 0)}
		step.DueAt = at(60)
		made, steps = append(made, e), append(steps, step)
	}
	s.commit(steps[1])
	s.commit(steps[4])
	steps[0].Lease.Epoch++
	steps[1] = s.step(made[1])
	steps[1].Seq, steps[1].CommitID = 1, "conflicting"
	steps[2].Execution = 1 << 40
	// A step that is refused after its journal entry and its inbox rows were written.
	steps[4] = s.step(made[4])
	steps[4].Nodes = []*store.Node{node("n1", core.NodeExecution_RUNNING), node("n0", core.NodeExecution_RUNNING)}
	steps[4].DueAt = at(90)
	s.ok(s.store.Append(s.ctx, made[4].ID, terminate("stays")))
	steps[4].Consumed = s.consumeAll(made[4])

	errs := s.store.Commit(s.ctx, steps)
	for i, want := range []error{aloft.ErrFenced, aloft.ErrConflict, aloft.ErrNotFound, nil, aloft.ErrConflict, nil} {
		if want == nil {
			s.ok(errs[i])
		} else {
			s.is(errs[i], want)
		}
	}
	for i, want := range []int{0, 1, 0, 1, 1, 1} {
		_, journal, err := Load(s.ctx, s.store, made[i].Key)
		s.ok(err)
		if len(journal) != want {
			s.Errorf("execution %d has %d journal entries, want %d", i, len(journal), want)
		}
		if waits := len(s.consumeAll(made[i])); (waits == 0) != (want == 1 && i != 4) {
			s.Errorf("execution %d has %d inbox messages", i, waits)
		}
	}
	_, err := s.store.GetNode(s.ctx, made[4].ID, "n1")
	s.is(err, aloft.ErrNotFound)
	due, err := s.store.Due(s.ctx, shards(), at(100), 0)
	s.ok(err)
	for _, row := range due {
		if !row.DueAt.Equal(at(60)) {
			s.Errorf("a refused step set the timer to %v", row.DueAt)
		}
	}
}

func aLeaseChangesHandsWhenItHasRunOutAndOnlyThen(s *suite) {
	first, err := s.store.AcquireShards(s.ctx, "a", at(0), 10*time.Second)
	s.ok(err)
	if len(first) != store.Shards {
		s.Fatalf("got %d of %d free shards", len(first), store.Shards)
	}
	none, err := s.store.AcquireShards(s.ctx, "b", at(9), 10*time.Second)
	s.ok(err)
	if len(none) != 0 {
		s.Fatalf("b got %d shards that a has", len(none))
	}
	renewed, err := s.store.AcquireShards(s.ctx, "a", at(9), 10*time.Second)
	s.ok(err)
	for i, lease := range renewed {
		if lease.Epoch != first[i].Epoch || !lease.Expires.Equal(at(19)) || lease.Owner != "a" || lease.Shard != first[i].Shard {
			s.Fatalf("renewing gave %+v after %+v", lease, first[i])
		}
	}
	none, err = s.store.AcquireShards(s.ctx, "b", at(18), 10*time.Second)
	s.ok(err)
	if len(none) != 0 {
		s.Fatalf("b got %d shards that a renewed", len(none))
	}
	taken, err := s.store.AcquireShards(s.ctx, "b", at(19), 10*time.Second)
	s.ok(err)
	if len(taken) != store.Shards {
		s.Fatalf("b got %d shards whose lease has run out", len(taken))
	}
	for i, lease := range taken {
		if lease.Epoch <= first[i].Epoch {
			s.Fatalf("shard %d changed hands under epoch %d after %d", lease.Shard, lease.Epoch, first[i].Epoch)
		}
	}
}

func releasedShardsAreFreeAtOnce(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	s.ok(s.store.ReleaseShards(s.ctx, "somebody else"))
	s.commit(step)
	s.ok(s.store.ReleaseShards(s.ctx, s.owner))
	s.refused(s.step(e), aloft.ErrFenced)
	leases, err := s.store.AcquireShards(s.ctx, "other", at(1), time.Minute)
	s.ok(err)
	if len(leases) != store.Shards || leases[0].Epoch <= s.leases[leases[0].Shard].Epoch {
		s.Fatalf("got %d shards, the first under epoch %d", len(leases), leases[0].Epoch)
	}
}

func shardsAreSharedByThoseWhoAreThere(s *suite) {
	var last [store.Shards]store.Lease
	// acquire checks the invariants of leases after each call, and gives surplus shards back.
	acquire := func(owner string, second, want, wantSurplus int) {
		s.Helper()
		leases, err := s.store.AcquireShards(s.ctx, owner, at(second), 10*time.Second)
		s.ok(err)
		var surplus []store.Lease
		for i, l := range leases {
			if before := last[l.Shard]; l.Owner != owner || i > 0 && l.Shard <= leases[i-1].Shard || (l.Epoch > before.Epoch) != (before.Owner != owner) {
				s.Fatalf("%s has %+v, it was %+v", owner, l, before)
			}
			last[l.Shard] = l
			if l.Surplus {
				surplus = append(surplus, l)
			}
		}
		if len(leases) != want || len(surplus) != wantSurplus {
			s.Fatalf("%s has %d shards, %d of them surplus, want %d and %d", owner, len(leases), len(surplus), want, wantSurplus)
		}
		s.ok(s.store.YieldShards(s.ctx, surplus))
		for _, l := range surplus {
			last[l.Shard].Owner = ""
		}
	}
	acquire("a", 0, 64, 0)
	acquire("b", 1, 0, 0)
	acquire("a", 2, 64, 32)
	acquire("b", 3, 32, 0)
	acquire("c", 4, 0, 0)
	acquire("a", 5, 32, 10)
	acquire("b", 5, 32, 10)
	acquire("c", 6, 20, 0)
	acquire("a", 7, 22, 0)
	// b renews its leases no more.
	acquire("a", 13, 22, 0)
	acquire("c", 13, 20, 0)
	acquire("a", 15, 32, 0)
	acquire("c", 15, 32, 0)
	s.ok(s.store.ReleaseShards(s.ctx, "c"))
	acquire("a", 16, 64, 0)
}

func whatIsAnothersByNowIsNotGivenBack(s *suite) {
	e := s.make("e1")
	s.acquire(at(0))
	old := s.leases[e.Shard]
	_, err := s.store.AcquireShards(s.ctx, "other", at(3600), time.Minute)
	s.ok(err)
	s.ok(s.store.YieldShards(s.ctx, []store.Lease{old}))
	s.acquire(at(7200)) // the suite's engine has the shard again, under another epoch
	s.ok(s.store.YieldShards(s.ctx, []store.Lease{old}))
	s.commit(s.step(e))
	stale := s.step(e)
	s.ok(s.store.YieldShards(s.ctx, []store.Lease{s.leases[e.Shard]}))
	s.refused(stale, aloft.ErrFenced)
}

func nodesKeepInputsOutputsAndMetadataThatAStepLeavesOut(s *suite) {
	e := s.make("e1")
	n := node("n0", core.NodeExecution_QUEUED)
	n.Parent, n.RetryGroup, n.IsParent, n.IsArray = "p0", "0", true, true
	n.Inputs, n.Metadata = literals("in"), &admin.TaskNodeMetadata{CacheStatus: core.CatalogCacheStatus_CACHE_MISS}
	step := s.step(e)
	step.Nodes = []*store.Node{n}
	s.commit(step)

	second := *n
	second.Phase, second.Inputs, second.Metadata, second.IsDynamic = core.NodeExecution_RUNNING, nil, nil, true
	second.StartedAt, second.UpdatedAt, second.DeckURI = at(2), at(2), "aloft://blob/deck"
	second.Outputs = &aloftv1.Literals{} // empty, which is not the same as none
	step = s.step(e)
	step.Nodes = []*store.Node{&second}
	s.commit(step)

	third := second
	third.Phase, third.Outputs, third.EndedAt, third.UpdatedAt = core.NodeExecution_FAILED, nil, at(3), at(3)
	third.Error = &core.ExecutionError{Code: "USER:Bad", Message: "no", Kind: core.ExecutionError_USER}
	step = s.step(e)
	step.Nodes = []*store.Node{&third}
	s.commit(step)

	got, err := s.store.GetNode(s.ctx, e.ID, "n0")
	s.ok(err)
	want := third
	want.Execution, want.Inputs, want.Metadata, want.Outputs = e.ID, n.Inputs, n.Metadata, &aloftv1.Literals{}
	s.equal(got, &want)
	if got.Outputs == nil {
		s.Fatal("empty outputs were read as none")
	}
}

func literalsOfANodeAreReadByKey(s *suite) {
	e := s.make("e1")
	n := node("n0", core.NodeExecution_QUEUED)
	n.Inputs = literals("in")
	step := s.step(e)
	step.Nodes = []*store.Node{n}
	s.commit(step)
	in, err := s.store.NodeInputs(s.ctx, e.Key, "n0")
	s.ok(err)
	s.equal(in, literals("in"))
	_, err = s.store.NodeOutputs(s.ctx, e.Key, "n0")
	s.is(err, aloft.ErrNotFound)
	_, err = s.store.NodeInputs(s.ctx, e.Key, "n1")
	s.is(err, aloft.ErrNotFound)

	done := node("n0", core.NodeExecution_SUCCEEDED)
	done.Outputs = &aloftv1.Literals{Ref: &aloftv1.LiteralRef{Uri: "aloft://blob/large", Size: 1 << 20}}
	step = s.step(e)
	step.Nodes = []*store.Node{done}
	s.commit(step)
	out, err := s.store.NodeOutputs(s.ctx, e.Key, "n0")
	s.ok(err)
	s.equal(out, done.Outputs)
}

func manyNodesAreReadWithTheirValues(s *suite) {
	e, other := s.make("first"), s.make("other")
	step := s.step(e)
	var wanted []aloft.NodeID
	want := map[aloft.NodeID]*store.Node{}
	for i := range 150 { // more nodes than one statement names
		n := node(fmt.Sprintf("n%d", i), core.NodeExecution_SUCCEEDED)
		n.Inputs, n.Outputs = literals(fmt.Sprintf("in %d", i)), literals(fmt.Sprintf("out %d", i))
		step.Nodes = append(step.Nodes, n)
		if i%3 != 0 {
			wanted, want[n.ID] = append(wanted, n.ID), n
		}
	}
	s.commit(step)
	same := s.step(other) // a node of the same name in another execution
	same.Nodes = []*store.Node{node("n1", core.NodeExecution_FAILED)}
	s.commit(same)
	got, err := s.store.NodeValues(s.ctx, e.ID, append(wanted, "not there"))
	s.ok(err)
	if len(got) != len(want) {
		s.Fatalf("got %d nodes, want %d", len(got), len(want))
	}
	for _, n := range got {
		s.equal(n.Inputs, want[n.ID].Inputs)
		s.equal(n.Outputs, want[n.ID].Outputs)
		s.equal(n.Phase, want[n.ID].Phase)
		delete(want, n.ID)
	}
	s.equal(len(want), 0)
	none, err := s.store.NodeValues(s.ctx, e.ID, nil)
	s.ok(err)
	s.equal(len(none), 0)
	_, err = s.store.NodeValues(s.ctx, id("missing"), wanted)
	s.is(err, aloft.ErrNotFound)
}

func aNodeThatHasEndedStaysAsItEnded(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	step.Nodes = []*store.Node{node("n0", core.NodeExecution_SUCCEEDED)}
	s.commit(step)
	for _, phase := range []core.NodeExecution_Phase{core.NodeExecution_RUNNING, core.NodeExecution_FAILED} {
		step = s.step(e)
		step.Nodes = []*store.Node{node("n0", phase)}
		s.refused(step, aloft.ErrConflict)
	}
	again := node("n0", core.NodeExecution_SUCCEEDED)
	again.DeckURI = "aloft://blob/deck"
	step = s.step(e)
	step.Nodes = []*store.Node{again}
	s.commit(step)
}

func anAttemptIsReadBackWhole(s *suite) {
	e := s.make("e1")
	a := attempt(e, "n0", 3)
	a.NotBefore = at(7)
	step := s.step(e)
	step.Nodes, step.Attempts = []*store.Node{node("n0", core.NodeExecution_QUEUED)}, []*store.Attempt{a}
	s.commit(step)
	s.equal(s.attempt(a), a)

	done := *a
	done.Phase, done.StartedAt, done.EndedAt, done.UpdatedAt = core.TaskExecution_RETRYABLE_FAILED, at(8), at(9), at(9)
	done.Error, done.Lost, done.Stop = &core.ExecutionError{Code: "Lost"}, true, "because"
	done.DeckURI, done.Environment = "aloft://blob/deck", "sha256:00"
	done.Outputs = &aloftv1.LiteralRef{Size: 3}
	done.Objects = []*aloftv1.ObjectDigest{{Uri: "aloft://blob/o", Digest: "sha256:01", Size: 9}}
	done.Usage = &aloftv1.AttemptUsage{PeakMemory: 1 << 20, Mode: "warm"}
	step = s.step(e)
	step.Attempts = []*store.Attempt{&done}
	s.commit(step)
	s.equal(s.attempt(a), &done)

	// Fields that come from the outcome alone stay when a later step writes the record without them.
	later := done
	later.Objects, later.Usage, later.Environment, later.UpdatedAt = nil, nil, "", at(10)
	step = s.step(e)
	step.Attempts = []*store.Attempt{&later}
	s.commit(step)
	done.UpdatedAt = at(10)
	s.equal(s.attempt(a), &done)
	_, err := s.store.GetAttempt(s.ctx, aloft.AttemptID{Execution: e.ID, Node: "n0", Attempt: 0})
	s.is(err, aloft.ErrNotFound)
}

func theEngineDoesNotTouchWhatExecutorsOwn(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0", "n1")
	s.ok(s.store.SetWaiting(s.ctx, "", keys(a[1:]), "no room"))
	s.assign("x", a[0])
	// The engine writes whole records and has not seen the start.
	for _, try := range a {
		try.Executor, try.Waiting, try.Spec, try.CreatedAt = "somebody", "something", nil, at(50)
	}
	step := s.step(e)
	step.Attempts = a
	s.commit(step)
	got := s.attempt(a[0])
	if got.Executor != "x" || got.Waiting != "" || got.Phase != core.TaskExecution_INITIALIZING || got.Spec == nil || !got.CreatedAt.Equal(at(1)) {
		s.Errorf("an assigned attempt became %+v", got)
	}
	got = s.attempt(a[1])
	if got.Executor != "" || got.Waiting != "no room" || got.Phase != core.TaskExecution_QUEUED {
		s.Errorf("a waiting attempt became %+v", got)
	}
	a[0].Phase, a[0].StartedAt = core.TaskExecution_RUNNING, at(4)
	step = s.step(e)
	step.Attempts = a[:1]
	s.commit(step)
	if got := s.attempt(a[0]); got.Phase != core.TaskExecution_RUNNING || got.Executor != "x" || !got.StartedAt.Equal(at(4)) {
		s.Errorf("a running attempt is %+v", got)
	}
}

func anAttemptThatHasEndedOrHasAnotherTokenIsNotOverwritten(s *suite) {
	e := s.make("e1")
	a := s.schedule(e, "n0")[0]
	other := *a
	other.Token = "another"
	step := s.step(e)
	step.Attempts = []*store.Attempt{&other}
	s.refused(step, aloft.ErrConflict)

	a.Phase, a.EndedAt = core.TaskExecution_SUCCEEDED, at(5)
	step = s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	a.Phase = core.TaskExecution_FAILED
	step = s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.refused(step, aloft.ErrConflict)
}

func changesOfAnExecutionAreReadBack(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	step.Waiting = "a signal"
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTING, StartedAt: at(1), UpdatedAt: at(2), AbortCause: "enough", AbortPrincipal: "ada"}
	s.commit(step)
	want := *e
	want.Phase, want.StartedAt, want.UpdatedAt, want.Waiting = core.WorkflowExecution_ABORTING, at(1), at(2), "a signal"
	want.AbortCause, want.AbortPrincipal = "enough", "ada"
	got, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	s.equal(got, &want)

	step = s.step(e)
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_FAILED, StartedAt: at(1), EndedAt: at(3), UpdatedAt: at(3),
		Error: &core.ExecutionError{Code: "Bad"}, Outputs: literals("partial")}
	s.commit(step)
	s.commit(s.step(e)) // without a change it stays
	want.Phase, want.EndedAt, want.UpdatedAt, want.Waiting = core.WorkflowExecution_FAILED, at(3), at(3), ""
	want.AbortCause, want.AbortPrincipal = "", ""
	want.Error, want.Outputs = &core.ExecutionError{Code: "Bad"}, literals("partial")
	got, err = s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	s.equal(got, &want)
	counts, err := s.store.Counts(s.ctx)
	s.ok(err)
	s.equal(counts, store.Counts{Executions: 1})
}

func endingEmptiesTheInboxAndTheTimer(s *suite) {
	e, other := s.make("e1"), s.make("e2")
	s.ok(s.store.Append(s.ctx, e.ID, terminate("never read")))
	step := s.step(e)
	step.DueAt = at(1)
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, EndedAt: at(1), UpdatedAt: at(1)}
	s.commit(step)
	if rows := s.inbox(); len(rows) != 1 || rows[0].Execution != other.Key {
		s.Fatalf("the inbox is %v, want the message of the other execution alone", rows)
	}
	due, err := s.store.Due(s.ctx, shards(), at(100), 0)
	s.ok(err)
	if len(due) != 0 {
		s.Fatalf("what has ended is due: %v", due)
	}
}

func anAcknowledgedTerminationIsNotOvertakenByTheEnd(s *suite) {
	for i, phase := range []core.WorkflowExecution_Phase{core.WorkflowExecution_SUCCEEDED, core.WorkflowExecution_FAILED, core.WorkflowExecution_TIMED_OUT} {
		e, other := s.make(fmt.Sprint("e", i)), s.make(fmt.Sprint("other", i))
		s.ok(s.store.Append(s.ctx, e.ID, terminate("enough")))
		var messages []int64
		for _, row := range s.inbox() {
			if row.Execution == e.Key {
				messages = append(messages, row.Seq)
			}
		}
		step, beside := s.step(e), s.step(other)
		step.Consumed = messages[:1]
		step.Change = &store.ExecutionChange{Phase: phase, EndedAt: at(1), UpdatedAt: at(1)}
		beside.Change = step.Change
		errs := s.store.Commit(s.ctx, []*store.Step{step, beside})
		s.is(errs[0], aloft.ErrConflict)
		s.ok(errs[1]) // the other step is not refused with it
		if got, err := s.store.GetExecution(s.ctx, e.ID); err != nil || got.Phase != core.WorkflowExecution_QUEUED {
			s.Fatalf("a step that was refused made %v (%v)", got, err)
		}
		step.Consumed, step.CommitID = messages, step.CommitID+" again"
		step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_ABORTED, EndedAt: at(1), UpdatedAt: at(1), AbortCause: "enough"}
		s.commit(step)
		s.ok(s.store.Commit(s.ctx, []*store.Step{step})[0]) // a repetition
		s.is(s.store.Append(s.ctx, e.ID, terminate("again")), aloft.ErrPrecondition)
	}
	// A step that was committed before the termination came, and whose outcome was unknown, stays committed.
	e := s.make("committed")
	step := s.step(e)
	step.Change = &store.ExecutionChange{Phase: core.WorkflowExecution_SUCCEEDED, EndedAt: at(1), UpdatedAt: at(1)}
	s.commit(step)
	s.is(s.store.Append(s.ctx, e.ID, terminate("too late")), aloft.ErrPrecondition)
	s.ok(s.store.Commit(s.ctx, []*store.Step{step})[0])
}

func dueExecutionsComeSoonestFirst(s *suite) {
	var want []store.DueRow
	for i, seconds := range []int{30, 10, 20, 0, 40} {
		e := s.make(fmt.Sprintf("e%d", i))
		step := s.step(e)
		if seconds > 0 {
			step.DueAt = at(seconds)
			want = append(want, store.DueRow{Execution: e.Key, Shard: e.Shard, DueAt: at(seconds)})
		}
		s.commit(step)
	}
	got, err := s.store.Due(s.ctx, shards(), at(30), 0)
	s.ok(err)
	s.equal(got, []store.DueRow{want[1], want[2], want[0]})
	got, err = s.store.Due(s.ctx, shards(), at(30), 1)
	s.ok(err)
	s.equal(got, want[1:2])
	got, err = s.store.Due(s.ctx, []int{want[2].Shard}, at(19), 0)
	s.ok(err)
	for _, row := range got {
		if row.Shard != want[2].Shard {
			s.Fatalf("got %v of another shard", row)
		}
	}
	// The next step without a timer clears it.
	e, _, err := Load(s.ctx, s.store, want[1].Execution)
	s.ok(err)
	s.commit(s.step(e))
	got, err = s.store.Due(s.ctx, shards(), at(30), 0)
	s.ok(err)
	s.equal(got, []store.DueRow{want[2], want[0]})
}

func executionsSayWhatTimeItIs(s *suite) {
	var want []store.ClockRow
	for i := range 5 {
		e := s.make(fmt.Sprintf("e%d", i))
		row := store.ClockRow{Execution: e.Key, Shard: e.Shard}
		for n := range i { // the first has no journal yet
			step := s.step(e)
			step.Entry.Events[0].At = at(10*i + n).UnixNano()
			row.Latest = at(10*i + n)
			if n == 2 { // a step that only says what the execution waits for
				step.Entry.Events, row.Latest = nil, at(10*i+n-1)
				step.DueAt, step.Waiting, step.WaitingSince = at(100), "for a service", at(7)
				row.DueAt, row.Waiting = at(100), true
			} else {
				row.DueAt, row.Waiting = time.Time{}, false
			}
			s.commit(step)
		}
		if i == 4 {
			s.end(e, core.WorkflowExecution_SUCCEEDED)
			continue
		}
		want = append(want, row)
	}
	got, err := s.store.Clocks(s.ctx, shards(), 0, 0)
	s.ok(err)
	s.equal(got, want)
	got, err = s.store.Clocks(s.ctx, shards(), want[0].Execution, 2)
	s.ok(err)
	s.equal(got, want[1:3])
	got, err = s.store.Clocks(s.ctx, []int{(want[0].Shard + 1) % store.Shards}, 0, 0)
	s.ok(err)
	for _, row := range got {
		if row.Shard == want[0].Shard {
			s.Fatalf("got %v of another shard", row)
		}
	}
}

func messagesToOthersArriveOnceAndNeverHinderTheSender(s *suite) {
	child, parent, ended := s.make("child"), s.make("parent"), s.make("ended")
	s.end(ended, core.WorkflowExecution_SUCCEEDED)
	step := s.step(child)
	step.Appends = []store.Append{
		{ID: parent.ID, Message: terminate("one")}, {ID: parent.ID, Message: terminate("two")},
		{ID: ended.ID, Message: terminate("late")}, {ID: id("nobody"), Message: terminate("lost")},
	}
	s.commit(step)
	if got := len(s.consumeAll(parent)); got != 2 {
		s.Errorf("the parent has %d messages, want create and one more", got)
	}
	if got := len(s.consumeAll(ended)); got != 0 {
		s.Errorf("what has ended got %d messages", got)
	}
}

func onlyWhatNothingWillMoveIsStuck(s *suite) {
	stuck := func(want ...string) {
		s.Helper()
		ids, err := s.store.Stuck(s.ctx, 0)
		s.ok(err)
		var got []string
		for _, id := range ids {
			got = append(got, id.Name)
		}
		s.equal(got, want)
	}
	e, other := s.make("e1"), s.make("e2")
	stuck()
	step := s.step(e)
	step.Consumed = s.consumeAll(e)
	step.DueAt = at(60)
	s.commit(step)
	stuck()
	s.commit(s.step(e))
	stuck("e1")
	step = s.step(e)
	step.Waiting, step.Waits = "a signal", 1
	s.commit(step)
	stuck()
	s.commit(s.step(e))
	stuck("e1")
	step = s.step(e)
	step.Waits = 1 // of a node
	s.commit(step)
	stuck()
	a := attempt(e, "n0", 0)
	engines := attempt(e, "n1", 0)
	engines.ByEngine = true
	step = s.step(e)
	step.Attempts = []*store.Attempt{a, engines}
	s.commit(step)
	stuck()
	a.Phase, a.EndedAt = core.TaskExecution_SUCCEEDED, at(5)
	step = s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	stuck("e1") // an attempt of the engine is moved by a timer only
	s.end(e, core.WorkflowExecution_SUCCEEDED)
	stuck()
	step = s.step(other)
	step.Consumed = s.consumeAll(other)
	s.commit(step)
	stuck("e2")
}

func namedWaitsAreCounted(s *suite) {
	counts := func(waiting, waits int64, want ...store.Wait) {
		s.Helper()
		got, err := s.store.Counts(s.ctx)
		s.ok(err)
		if got.Waiting != waiting || got.Waits != waits {
			s.Errorf("%d executions wait, %d times in all, want %d and %d", got.Waiting, got.Waits, waiting, waits)
		}
		named, err := s.store.Waits(s.ctx, 0)
		s.ok(err)
		s.equal(named, want)
	}
	e, other := s.make("e1"), s.make("e2")
	s.make("e3")
	counts(0, 0)
	step := s.step(e)
	done, n := node("n0", core.NodeExecution_SUCCEEDED), node("n1", core.NodeExecution_QUEUED)
	n.Waiting = "waits for a result"
	step.Nodes, step.Waits = []*store.Node{done, n}, 2
	s.commit(step)
	step = s.step(other)
	step.Waiting, step.Waits, step.DueAt = "waiting for the blob store", 1, at(60)
	s.commit(step)
	first := store.Wait{Execution: e.ID, Waits: 2, Reason: "waits for a result"}
	second := store.Wait{Execution: other.ID, Waits: 1, Reason: "waiting for the blob store"}
	counts(2, 3, first, second)
	got, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	if got.Waits != 2 {
		s.Errorf("the record says that it has %d waits, want 2", got.Waits)
	}
	if named, err := s.store.Waits(s.ctx, 1); err != nil || len(named) != 1 {
		s.Errorf("of two that wait, one is asked for and %v is said (%v)", named, err)
	}
	s.commit(s.step(other))
	counts(1, 2, first)
	s.end(e, core.WorkflowExecution_SUCCEEDED)
	counts(0, 0)
}

func commitsWakeThoseWhoWait(s *suite) {
	subscribe := func(topic store.Topic) <-chan struct{} {
		wake, cancel := s.store.Subscribe(topic)
		s.Cleanup(cancel)
		return wake
	}
	inbox, attempts := subscribe(store.TopicInbox), subscribe(store.TopicAttempts)
	mine, others := subscribe(store.TopicExecution(id("e1"))), subscribe(store.TopicExecution(id("e2")))
	want := func(when string, wantInbox, wantAttempts, wantMine bool) {
		s.Helper()
		if got := [3]bool{woken(inbox), woken(attempts), woken(mine)}; got != [3]bool{wantInbox, wantAttempts, wantMine} {
			s.Errorf("%s: woke inbox, attempts, execution: %v, want %v %v %v", when, got, wantInbox, wantAttempts, wantMine)
		}
		if woken(others) {
			s.Errorf("%s: another execution's topic was woken", when)
		}
	}
	e := s.make("e1")
	want("create", true, false, false)
	s.ok(s.store.Append(s.ctx, e.ID, terminate("x")))
	want("append", true, false, false)
	a := s.schedule(e, "n0")[0]
	want("schedule", false, true, true)
	s.ok(s.store.SetWaiting(s.ctx, "", keys([]*store.Attempt{a}), "no room"))
	want("waiting", false, false, true)
	s.assign("x", a)
	want("assign", false, false, true)
	s.ok(s.store.Report(s.ctx, "x", []store.Report{started(a)})[0])
	want("report", true, false, false)
	a.Phase = core.TaskExecution_RUNNING
	step := s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	want("running", false, false, true)
	a.Stop = "because"
	step = s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	want("stop", false, true, true)
	a.Phase = core.TaskExecution_ABORTED
	step = s.step(e)
	step.Attempts = []*store.Attempt{a}
	s.commit(step)
	want("ended", false, true, true)
	engines := attempt(e, "n1", 0)
	engines.ByEngine = true
	step = s.step(e)
	step.Attempts = []*store.Attempt{engines}
	s.commit(step)
	want("the engine's own", false, false, true)
}

func listsOfOneExecutionArePagedInOrderOfCreation(s *suite) {
	e, other := s.make("e1"), s.make("e2")
	s.schedule(other, "n0")
	step := s.step(e)
	for i := range 7 {
		n := node(fmt.Sprintf("n%d", i), core.NodeExecution_QUEUED)
		n.CreatedAt, n.Inputs = at(i), literals("in")
		if i > 4 {
			n.Parent = "n1"
		}
		a := attempt(e, string(n.ID), 0)
		a.CreatedAt = at(i)
		step.Nodes, step.Attempts = append(step.Nodes, n), append(step.Attempts, a)
	}
	s.commit(step)
	nodes := func(parent aloft.NodeID, all bool, q store.Query) (names []string) {
		s.Helper()
		rows, err := s.store.ListNodes(s.ctx, e.ID, parent, all, q)
		s.ok(err)
		for _, n := range rows {
			if n.Inputs != nil || n.Execution != e.ID || n.Target == nil {
				s.Fatalf("listed %+v, want no inputs but the execution's id", n)
			}
			names = append(names, string(n.ID))
		}
		return names
	}
	s.equal(nodes("", false, store.Query{Ascending: true}), []string{"n0", "n1", "n2", "n3", "n4"})
	s.equal(nodes("n1", false, store.Query{}), []string{"n6", "n5"})
	s.equal(nodes("", true, store.Query{Ascending: true, Limit: 3, Offset: 5}), []string{"n5", "n6"})
	s.equal(nodes("", true, store.Query{Limit: 2, Offset: 1}), []string{"n5", "n4"})
	s.equal(nodes("", true, store.Query{SortBy: "created_at", Limit: 2, Offset: 1}), []string{"n5", "n4"})
	rows, err := s.store.ListAttempts(s.ctx, e.ID, "", store.Query{Ascending: true, Limit: 2, Offset: 2})
	s.ok(err)
	s.equal(nodesOf(rows), []string{"n2", "n3"})
	rows, err = s.store.ListAttempts(s.ctx, e.ID, "n6", store.Query{Limit: 10})
	s.ok(err)
	s.equal(nodesOf(rows), []string{"n6"})
	_, err = s.store.ListNodes(s.ctx, id("nobody"), "", true, store.Query{})
	s.is(err, aloft.ErrNotFound)
	_, err = s.store.ListAttempts(s.ctx, id("nobody"), "", store.Query{})
	s.is(err, aloft.ErrNotFound)
}

func whatWasCreatedAtOnceIsListedInTheOrderItWasWritten(s *suite) {
	e := s.make("e1")
	step := s.step(e)
	names := []string{"start-node", "n1", "n0", "late", "n3", "n2"} // sorted neither by name nor by time
	for i, name := range names {
		n, a := node(name, core.NodeExecution_QUEUED), attempt(e, name, 0)
		if name == "late" {
			n.CreatedAt, a.CreatedAt = at(2), at(2)
		}
		step.Nodes, step.Attempts = append(step.Nodes, n), append(step.Attempts, a)
		if i > 0 {
			s.make(name)
		}
	}
	s.commit(step)
	step = s.step(e) // a node that changes keeps its place
	step.Nodes = []*store.Node{node("start-node", core.NodeExecution_SUCCEEDED)}
	s.commit(step)
	want := []string{"start-node", "n1", "n0", "n3", "n2", "late"}
	for _, ascending := range []bool{true, false} {
		var nodes, attempts []string
		for q := (store.Query{Ascending: ascending, Limit: 4}); q.Offset < 8; q.Offset += 4 { // pages do not overlap
			found, err := s.store.ListNodes(s.ctx, e.ID, "", true, q)
			s.ok(err)
			for _, n := range found {
				nodes = append(nodes, string(n.ID))
			}
			tries, err := s.store.ListAttempts(s.ctx, e.ID, "", q)
			s.ok(err)
			attempts = append(attempts, nodesOf(tries)...)
		}
		s.equal(nodes, want)
		s.equal(attempts, want)
		slices.Reverse(want)
	}
	s.equal(s.executions(store.Query{Limit: 2}), []string{"n2", "n3"})
	s.equal(s.executions(store.Query{Limit: 2, Ascending: true}), []string{"e1", "n1"})
}

func whatIsHandedInAndOutIsNotShared(s *suite) {
	e := s.make("e1")
	e.Spec.Metadata.Principal = "changed after it was handed in"
	got, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	got.Workflow.Name = "changed after it was handed out"
	n := node("n0", core.NodeExecution_QUEUED)
	n.Inputs = literals("in")
	step := s.step(e)
	step.Nodes, step.Attempts = []*store.Node{n}, []*store.Attempt{attempt(e, "n0", 0)}
	s.commit(step)
	n.Inputs.Ref.Size = 99
	step.Attempts[0].Spec.TaskType = "changed"
	step.Entry.Events[0].At = 99
	again, journal, err := Load(s.ctx, s.store, e.Key)
	s.ok(err)
	if again.Spec.GetMetadata().GetPrincipal() != "ada" || again.Workflow.GetName() != "wf" || journal[0].Entry.GetEvents()[0].GetAt() != 1 {
		s.Errorf("the store shares memory with its callers: %v %v", again, journal)
	}
	in, err := s.store.NodeInputs(s.ctx, e.Key, "n0")
	s.ok(err)
	if in.GetRef().GetSize() != 2 || s.attempt(step.Attempts[0]).Spec.GetTaskType() != "python-task" {
		s.Errorf("the store shares memory with its callers: %v", in)
	}
}

func anArchivedExecutionSaysWhoDidIt(s *suite) {
	e := s.make("e1")
	s.ok(s.store.SetExecutionState(s.ctx, e.ID, admin.ExecutionState_EXECUTION_ARCHIVED, "ada"))
	got, err := s.store.GetExecution(s.ctx, e.ID)
	s.ok(err)
	if got.State != admin.ExecutionState_EXECUTION_ARCHIVED || got.StatePrincipal != "ada" || got.StateChangedAt.IsZero() {
		s.Errorf("archived: %+v", got)
	}
	s.is(s.store.SetExecutionState(s.ctx, id("nobody"), 0, ""), aloft.ErrNotFound)
}

// manyWritersAtOnceLoseNothing runs at once creators, engines that commit to the same executions, executors that assign the same
// attempts, and readers. Then it checks what must hold whichever of them succeeded.
func manyWritersAtOnceLoseNothing(s *suite) {
	const executions, nodes, engines, executors = 12, 5, 3, 3
	s.acquire(at(0))
	made := make([]*store.Execution, executions)
	var group sync.WaitGroup
	fail := func(format string, args ...any) { s.Errorf(format, args...) }
	for i := range made {
		group.Go(func() {
			e := execution(fmt.Sprintf("e%d", i))
			if err := s.store.CreateExecution(s.ctx, e, create("x")); err != nil {
				fail("create: %v", err)
			}
			made[i] = e
		})
	}
	group.Wait()

	// Each entry is committed by exactly one engine, and its attempt exists exactly once.
	wins := make([][]int, engines)
	for engine := range engines {
		wins[engine] = make([]int, executions)
		group.Go(func() {
			for seq := int64(1); seq <= nodes; seq++ {
				var steps []*store.Step
				for _, e := range made {
					a := attempt(e, fmt.Sprintf("n%d", seq), 0)
					steps = append(steps, &store.Step{
						Execution: e.Key, ID: e.ID, Lease: s.leases[e.Shard], Seq: seq, CommitID: fmt.Sprintf("%d by %d", seq, engine), Entry: entry(int64(engine)),
						Nodes: []*store.Node{node(string(a.Node), core.NodeExecution_QUEUED)}, Attempts: []*store.Attempt{a},
					})
				}
				for i, err := range s.store.Commit(s.ctx, steps) {
					if err == nil {
						wins[engine][i]++
					}
				}
			}
		})
	}
	group.Wait()
	var attempts []*store.Attempt
	for i, e := range made {
		total := 0
		for engine := range engines {
			total += wins[engine][i]
		}
		_, journal, err := Load(s.ctx, s.store, e.Key)
		s.ok(err)
		if total != nodes || len(journal) != nodes {
			s.Fatalf("execution %d: %d commits were won and %d entries written, want %d of both", i, total, len(journal), nodes)
		}
	}
	attempts, err := s.store.Waiting(s.ctx, at(10), 0)
	s.ok(err)
	if len(attempts) != executions*nodes {
		s.Fatalf("%d attempts wait, want %d", len(attempts), executions*nodes)
	}

	// Each attempt is assigned to exactly one executor, which alone reports on it.
	got := make([]int, executors)
	for x := range executors {
		s.known(fmt.Sprintf("x%d", x))
		group.Go(func() {
			name := fmt.Sprintf("x%d", x)
			for _, a := range attempts {
				if s.store.Assign(s.ctx, name, "", []store.AttemptKey{a.AttemptKey}, at(2))[0] != nil {
					continue
				}
				got[x]++
				if err := s.store.Report(s.ctx, name, []store.Report{started(a), outcome(a)}); err[0] != nil || err[1] != nil {
					fail("report: %v", err)
				}
			}
		})
	}
	group.Wait()
	total := 0
	for x := range executors {
		total += got[x]
		has, err := s.store.Assigned(s.ctx, fmt.Sprintf("x%d", x))
		s.ok(err)
		if len(has) != got[x] {
			s.Errorf("x%d was given %d attempts and has %d", x, got[x], len(has))
		}
	}
	if total != len(attempts) {
		s.Errorf("%d of %d attempts were given away", total, len(attempts))
	}
	if rows := s.inbox(); len(rows) != executions+2*len(attempts) {
		s.Errorf("the inbox has %d messages, want %d", len(rows), executions+2*len(attempts))
	}
}
