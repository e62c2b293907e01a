package hang

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
)

// stuck is a call that returns when its channel is closed, and not when its ctx ends.
func stuck(until <-chan struct{}) func(context.Context) (int, error) {
	return func(context.Context) (int, error) {
		<-until
		return 1, nil
	}
}

func quick(context.Context) (int, error) { return 2, nil }

func TestACallerDoesNotWaitForADiskThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, thaw, dropped := &Guard{Name: "the disk of /data", Most: 3}, make(chan struct{}), make(chan int, 9)
		drop := func(n int) { dropped <- n }
		began := time.Now()
		_, err := Do(t.Context(), g, stuck(thaw), drop)
		if !errors.Is(err, aloft.ErrUnavailable) || !strings.Contains(err.Error(), "the disk of /data has not answered for 30s") {
			t.Fatalf("the error is %v", err)
		}
		if took := time.Since(began); took != Limit {
			t.Errorf("it waited for %s, want %s", took, Limit)
		}
		if err := g.Err(); !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("the disk counts as well: %v", err)
		}
		// While the disk counts as hung, no caller waits long, and only a few calls go to the disk.
		for n := range 2 {
			began = time.Now()
			if _, err := Do(t.Context(), g, stuck(thaw), drop); !errors.Is(err, aloft.ErrUnavailable) || time.Since(began) != brief {
				t.Errorf("call %d: %v after %s", n, err, time.Since(began))
			}
		}
		began = time.Now()
		if _, err := Do(t.Context(), g, func(context.Context) (int, error) { t.Error("it was called"); return 0, nil }, drop); !errors.Is(err, aloft.ErrUnavailable) || time.Since(began) != 0 {
			t.Errorf("one call too many: %v after %s", err, time.Since(began))
		}
		close(thaw)
		synctest.Wait()
		if n := len(dropped); n != 3 {
			t.Errorf("%d results were dropped, want 3", n)
		}
		if err := g.Err(); err != nil {
			t.Errorf("it answers again and counts as hung: %v", err)
		}
		if n, err := Do(t.Context(), g, quick, nil); n != 2 || err != nil {
			t.Errorf("it answers again and gives %d, %v", n, err)
		}
	})
}

// A call that returns while others hang gives its result.
func TestACallThatReturnsIsBelievedWhileOthersHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, thaw := &Guard{Name: "it"}, make(chan struct{})
		defer close(thaw)
		_, _ = Do(t.Context(), g, stuck(thaw), nil)
		if n, err := Do(t.Context(), g, quick, nil); n != 2 || err != nil {
			t.Errorf("it is %d, %v", n, err)
		}
	})
}

func TestACallThatGetsOnIsNotLeft(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(ctx context.Context){
		"progress": func(ctx context.Context) {
			for range 5 {
				time.Sleep(Limit - time.Second) //nolint:forbidigo // of the clock of the bubble
				Progress(ctx)
			}
		},
		"syncing": func(ctx context.Context) {
			Syncing(ctx, 300*leastRate)
			time.Sleep(299 * time.Second) //nolint:forbidigo // of the clock of the bubble
		},
		"outside": func(ctx context.Context) {
			Outside(ctx, func() { time.Sleep(time.Hour) }) //nolint:forbidigo // of the clock of the bubble
			time.Sleep(Limit - time.Second)                //nolint:forbidigo // of the clock of the bubble
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				if n, err := Do(t.Context(), &Guard{Name: "it"}, func(ctx context.Context) (int, error) { do(ctx); return 2, nil }, nil); n != 2 || err != nil {
					t.Errorf("it is %d, %v", n, err)
				}
			})
		})
	}
}

func TestACallIsLeftWhenItsProgressEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		thaw := make(chan struct{})
		defer close(thaw)
		_, err := Do(t.Context(), &Guard{Name: "it"}, func(ctx context.Context) (int, error) {
			Progress(ctx)
			Syncing(ctx, 100*leastRate)
			Outside(ctx, func() { time.Sleep(time.Minute) }) //nolint:forbidigo // of the clock of the bubble
			<-thaw
			return 0, nil
		}, nil)
		if !errors.Is(err, aloft.ErrUnavailable) {
			t.Errorf("the error is %v", err)
		}
	})
}

// That a caller goes does not make the disk count as hung: only a call that is silent for the limit does.
func TestACallerWhoGoesIsLetGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, thaw := &Guard{Name: "it"}, make(chan struct{})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if _, err := Do(ctx, g, stuck(thaw), nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 6*time.Second {
			t.Errorf("it is %v after %s", err, time.Since(began))
		}
		if err := g.Err(); err != nil {
			t.Errorf("it counts as hung after 6 s: %v", err)
		}
		time.Sleep(Limit + time.Second) //nolint:forbidigo // of the clock of the bubble
		if err := g.Err(); err == nil {
			t.Error("it does not count as hung after half a minute")
		}
		close(thaw)
		synctest.Wait()
		if err := g.Err(); err != nil {
			t.Errorf("it answers again and counts as hung: %v", err)
		}
	})
}

func TestTheCallOfACallerWhoGoesMayReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := Do(ctx, &Guard{Name: "it"}, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 2, nil
		}, nil); n != 2 || err != nil {
			t.Errorf("it is %d, %v", n, err)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	g := &Guard{Name: "it"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Do(b.Context(), g, quick, nil); err != nil {
			b.Fatal(err)
		}
	}
}
