package engine

import (
	"reflect"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/store"
)

func TestALeaseIsWhatTheStoreSaysUntilItsTimeIsOver(t *testing.T) {
	t.Parallel()
	now := time.Unix(100, 0)
	of := func(shard int, epoch int64, surplus bool) store.Lease {
		return store.Lease{Shard: shard, Owner: "me", Epoch: epoch, Surplus: surplus}
	}
	var l leases
	renew := func(at time.Time, wantBegun, wantOver []int, ours ...store.Lease) {
		t.Helper()
		begun, over := l.renew(ours, at, at.Add(10*time.Second))
		if !reflect.DeepEqual(begun, wantBegun) || !reflect.DeepEqual(over, wantOver) {
			t.Errorf("begun %v, over %v, want %v and %v", begun, over, wantBegun, wantOver)
		}
	}
	moving := func(at time.Time, want ...int) {
		t.Helper()
		if got := l.movingShards(at); len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("moving are %v, want %v", got, want)
		}
	}
	renew(now, []int{1, 2, 3}, nil, of(1, 1, false), of(2, 1, false), of(3, 1, false))
	moving(now, 1, 2, 3)
	moving(now.Add(10 * time.Second))

	// Renewed; given to another and had again meanwhile; one above the share.
	renew(now.Add(5*time.Second), []int{2}, []int{2}, of(1, 1, false), of(2, 3, false), of(3, 1, true))
	moving(now.Add(12*time.Second), 1, 2)
	if one, two := l.shards[1].heldSince, l.shards[2].heldSince; !one.Equal(now) || !two.Equal(now.Add(5*time.Second)) {
		t.Errorf("they are ours since %s and %s, want since they came, and came again", one, two)
	}
	if l.covers(of(2, 1, false), now) || !l.covers(of(2, 3, false), now) || !l.covers(of(3, 1, false), now) {
		t.Error("a step commits under the epoch of its shard alone, and what was begun of a surplus shard is committed")
	}
	if got := l.surplus(); len(got) != 1 || got[0].Shard != 3 {
		t.Errorf("surplus are %v, want shard 3", got)
	}
	renew(now.Add(6*time.Second), []int{3}, nil, of(1, 1, false), of(2, 3, false), of(3, 1, false)) // shard 3 stays after all

	if l.forget(of(2, 1, false)) || !l.forget(of(2, 3, false)) {
		t.Error("a lease is given up by its epoch")
	}
	renew(now.Add(7*time.Second), nil, []int{3}, of(1, 1, false)) // another engine has shard 3
	moving(now.Add(8*time.Second), 1)
	if got := l.expire(now.Add(17 * time.Second)); !reflect.DeepEqual(got, []int{1}) {
		t.Errorf("expired are %v, want shard 1", got)
	}
	if l.covers(of(1, 1, false), now) {
		t.Error("what has expired covers no step, whatever the clock says then")
	}
}

func TestALeaseIsGoodBeforeItsEndAndUnderItsEpoch(t *testing.T) {
	t.Parallel()
	asked := time.Unix(100, 0)
	until := asked.Add(10 * time.Second)
	const ours = 3 // the epoch
	for name, test := range map[string]struct {
		now           time.Time
		surplus, held bool
		epoch         int64 // under which a step was decided
		moving        bool  // steps may begin
		covers        bool  // the step may be committed
	}{
		"when it was asked for":        {now: asked, held: true, epoch: ours, moving: true, covers: true},
		"just before its end":          {now: until.Add(-1), held: true, epoch: ours, moving: true, covers: true},
		"at its end":                   {now: until, held: true, epoch: ours},
		"after its end":                {now: until.Add(time.Hour), held: true, epoch: ours},
		"of an earlier epoch":          {now: asked, held: true, epoch: ours - 1, moving: true},
		"of a later epoch":             {now: asked, held: true, epoch: ours + 1, moving: true},
		"surplus, just before its end": {now: until.Add(-1), surplus: true, held: true, epoch: ours, covers: true},
		"surplus, at its end":          {now: until, surplus: true, held: true, epoch: ours},
		"given up":                     {now: asked, epoch: ours},
	} {
		var l leases
		l.shards[5] = lease{Lease: store.Lease{Shard: 5, Owner: "me", Epoch: ours, Surplus: test.surplus}, held: test.held, until: until}
		if got := l.moving(5, test.now); got != test.moving {
			t.Errorf("%s: steps may begin: %t, want %t", name, got, test.moving)
		}
		if got := l.covers(store.Lease{Shard: 5, Owner: "me", Epoch: test.epoch}, test.now); got != test.covers {
			t.Errorf("%s: the step may be committed: %t, want %t", name, got, test.covers)
		}
	}
}
