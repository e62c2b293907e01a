package room_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/room"
)

const mib = 1 << 20

func TestSmallRequestsDoNotWaitForLargeOnes(t *testing.T) {
	t.Parallel()
	pool := room.NewPool(64 * mib)
	large := pool.Claim()
	if err := large.Take(t.Context(), pool.Largest()+room.Allowance); err != nil {
		t.Fatal(err)
	}
	small := pool.Claim()
	if err := small.TryTake(room.Allowance); err != nil {
		t.Errorf("a small request beside one that has everything: %v", err)
	}
	if err := small.TryTake(1); !errors.Is(err, aloft.ErrExhausted) {
		t.Errorf("above the allowance there was room: %v", err)
	}
	large.Release()
	if err := small.TryTake(mib); err != nil {
		t.Errorf("after the large one had gone: %v", err)
	}
	small.Release()
	if pool.Taken() != 0 {
		t.Errorf("%d bytes are still taken", pool.Taken())
	}
}

func TestAClaimThatWaitsIsServedInItsTurnOrRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPool(64 * mib)
		first := pool.Claim()
		if err := first.Take(t.Context(), 50*mib); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		group.Go(func() {
			second := pool.Claim()
			defer second.Release()
			if err := second.Take(t.Context(), 40*mib); err != nil {
				t.Errorf("second: %v", err)
			}
		})
		synctest.Wait()
		third := pool.Claim()
		if err := third.TryTake(mib); err == nil {
			t.Error("a small one overtook a large one that waits")
		}
		time.Sleep(room.Patience - time.Second) //nolint:forbidigo // the time of a synctest
		first.Release()
		group.Wait()

		if err := first.Take(t.Context(), 50*mib); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := third.Take(t.Context(), 30*mib)
		if !errors.Is(err, aloft.ErrExhausted) || time.Since(began) != room.Patience {
			t.Errorf("without room: %v after %v, want ErrExhausted after %v", err, time.Since(began), room.Patience)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := pool.Claim().Take(ctx, 30*mib); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline before: %v", err)
		}
		if err := third.Take(t.Context(), 1<<40); !errors.Is(err, aloft.ErrExhausted) || time.Since(began) > 2*room.Patience {
			t.Errorf("what can never be: %v", err)
		}
		first.Release()
		third.Release()
		if pool.Taken() != 0 {
			t.Errorf("%d bytes are still taken", pool.Taken())
		}
	})
}

func TestAReadBeginsAgainWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPool(64 * mib)
		other := pool.Claim()
		if err := other.Take(t.Context(), 50*mib); err != nil {
			t.Fatal(err)
		}
		claim := pool.Claim()
		ctx := room.With(t.Context(), claim)
		time.AfterFunc(time.Second, other.Release)
		reads := 0
		if err := room.Again(ctx, func() error {
			reads++
			for range 20 {
				if err := claim.TryTake(mib); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || reads < 2 {
			t.Errorf("%v after %d reads", err, reads)
		}
		claim.Release()
		if pool.Taken() != 0 {
			t.Errorf("%d bytes are still taken", pool.Taken())
		}
	})
}

// TestAReadWithPartsFindsTheRoomThatIsReservedForIt: the room was reserved in a claim that the parts of the read did not use,
// so with room for one and a half of such reads it was run again without a pause, and refused at the end.
func TestAReadWithPartsFindsTheRoomThatIsReservedForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPool(64 * mib)
		stays, goes := pool.Claim(), pool.Claim()
		if err := errors.Join(stays.Take(t.Context(), 26*mib), goes.Take(t.Context(), 20*mib)); err != nil {
			t.Fatal(err)
		}
		claim := pool.Claim()
		ctx := room.With(t.Context(), claim)
		time.AfterFunc(time.Second, goes.Release)
		reads := 0
		if err := room.Again(ctx, func() error {
			if reads++; reads > 10 {
				return errors.New("read too often")
			}
			for range 3 {
				release := room.Part(ctx)
				err := room.Of(ctx).TryTake(20 * mib)
				release()
				if err != nil {
					return err
				}
			}
			return nil
		}); err != nil || reads != 2 {
			t.Errorf("%v after %d reads", err, reads)
		}
		stays.Release()
		claim.Release()
		if pool.Taken() != 0 {
			t.Errorf("%d bytes are still taken", pool.Taken())
		}
	})
}

func TestAPartGivesBackWhatWasTakenInIt(t *testing.T) {
	t.Parallel()
	pool := room.NewPool(64 * mib)
	claim := pool.Claim()
	ctx := room.With(t.Context(), claim)
	for _, before := range []int64{1000, mib} { // below the allowance, and above
		if err := room.Take(ctx, before); err != nil {
			t.Fatal(err)
		}
		held := pool.Taken()
		outer := room.Part(ctx)
		for range 3 {
			inner := room.Part(ctx)
			if err := room.Take(ctx, 5*mib); err != nil {
				t.Fatal(err)
			}
			inner()
			if pool.Taken() != held {
				t.Errorf("after a part %d bytes are taken, and %d before it", pool.Taken(), held)
			}
		}
		if err := room.Take(ctx, 5*mib); err != nil {
			t.Fatal(err)
		}
		outer()
		if pool.Taken() != held {
			t.Errorf("after the outer part %d bytes are taken, and %d before it", pool.Taken(), held)
		}
	}
	claim.Release()
	if pool.Taken() != 0 {
		t.Errorf("%d bytes are still taken", pool.Taken())
	}
}

// TestAClaimWaitsForPatienceInAll: each Take waited for Patience, and a Take from both parts for twice as long.
func TestAClaimWaitsForPatienceInAll(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(t *testing.T, pool *room.Pool, claim *room.Claim) error{
		"for the small part and then for the large one": func(t *testing.T, pool *room.Pool, claim *room.Claim) error {
			for range 8*mib/room.Allowance - 1 { // the claim called stays has the last one
				other := pool.Claim()
				if err := other.TryTake(room.Allowance); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(3*time.Second, other.Release)
			}
			return claim.Take(t.Context(), room.Allowance+4*mib)
		},
		"for one Take after another": func(t *testing.T, pool *room.Pool, claim *room.Claim) error {
			other := pool.Claim()
			if err := other.Take(t.Context(), room.Allowance+3*mib); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, other.Release)
			if err := claim.Take(t.Context(), room.Allowance+3*mib); err != nil {
				t.Fatal(err)
			}
			return claim.Take(t.Context(), mib)
		},
		"for a place and then for room": func(t *testing.T, _ *room.Pool, claim *room.Claim) error {
			places := make(chan struct{}, 1)
			places <- struct{}{}
			time.AfterFunc(3*time.Second, func() { <-places })
			if entered, err := claim.Enter(t.Context(), places); !entered {
				t.Fatalf("no place: %v", err)
			}
			return claim.Take(t.Context(), room.Allowance+4*mib)
		},
		"for a read to begin again and then for room": func(t *testing.T, pool *room.Pool, claim *room.Claim) error {
			other := pool.Claim()
			if err := other.Take(t.Context(), room.Allowance+3*mib); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(3*time.Second, other.Release)
			return room.Again(room.With(t.Context(), claim), func() error {
				if err := claim.TryTake(room.Allowance + 3*mib); err != nil {
					return err
				}
				return claim.Take(t.Context(), mib)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pool := room.NewPool(64 * mib)
				stays, claim := pool.Claim(), pool.Claim()
				defer claim.Release()
				defer stays.Release()
				if err := stays.Take(t.Context(), room.Allowance+53*mib); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if err := wait(t, pool, claim); !errors.Is(err, aloft.ErrExhausted) {
					t.Errorf("there was room: %v", err)
				}
				if waited := time.Since(began); waited != room.Patience {
					t.Errorf("it waited for %v, want %v", waited, room.Patience)
				}
				if entered, err := claim.Enter(t.Context(), make(chan struct{})); entered || err != nil || time.Since(began) != room.Patience {
					t.Errorf("after that it entered a full place after %v: %v, %v", time.Since(began), entered, err)
				}
				room.Part(room.With(t.Context(), claim))
				if err := claim.Take(t.Context(), room.Allowance+4*mib); !errors.Is(err, aloft.ErrExhausted) || time.Since(began) != 2*room.Patience {
					t.Errorf("a part ended after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}

func TestAWaiterThatGivesUpLetsThoseBehindItIn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPool(64 * mib)
		first, second, third := pool.Claim(), pool.Claim(), pool.Claim()
		if err := first.Take(t.Context(), 50*mib); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		var group sync.WaitGroup
		group.Go(func() {
			if err := second.Take(ctx, 40*mib); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one that gives up: %v", err)
			}
		})
		synctest.Wait()
		if err := third.Take(t.Context(), 5*mib); err != nil || time.Since(began) != time.Second {
			t.Errorf("the one behind it, which needs less, after %v: %v", time.Since(began), err)
		}
		group.Wait()
		first.Release()
		third.Release()
		if pool.Taken() != 0 {
			t.Errorf("%d bytes are still taken", pool.Taken())
		}
	})
}
