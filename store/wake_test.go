package store_test

import (
	"sync"
	"testing"

	"github.com/aloft-dev/aloft/store"
)

func received(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestManyWakeUpsBeforeTheSubscriberLooksBecomeOne(t *testing.T) {
	t.Parallel()
	var hub store.Hub
	wake, cancel := hub.Subscribe("a")
	defer cancel()
	hub.Wake("a")
	hub.Wake("a", "b")
	if !received(wake) || received(wake) {
		t.Error("want exactly one wake-up")
	}
	hub.Wake("a")
	if !received(wake) {
		t.Error("a wake-up after the first was received is lost")
	}
}

func TestAWakeUpReachesEverySubscriberOfItsTopicAndNobodyElse(t *testing.T) {
	t.Parallel()
	var hub store.Hub
	a, cancelA := hub.Subscribe("a")
	other, cancelOther := hub.Subscribe("a")
	b, cancelB := hub.Subscribe("b")
	defer cancelA()
	defer cancelB()
	hub.Wake("a")
	if !received(a) || !received(other) || received(b) {
		t.Error("want both subscribers of a woken and that of b not")
	}
	cancelOther()
	cancelOther() // twice is harmless
	hub.Wake("a")
	if !received(a) || received(other) {
		t.Error("want only the subscriber that stayed woken")
	}
}

func TestNoWakeUpIsLostBetweenConcurrentWritersAndAReader(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 1000
	var (
		hub     store.Hub
		mu      sync.Mutex
		written int
	)
	wake, cancel := hub.Subscribe("a")
	defer cancel()
	for range writers {
		go func() {
			for range each {
				mu.Lock()
				written++
				mu.Unlock()
				hub.Wake("a")
			}
		}()
	}
	// The reader waits for nothing but wake-ups: were the last one lost, the test would hang.
	for seen := 0; seen < writers*each; {
		<-wake
		mu.Lock()
		seen = written
		mu.Unlock()
	}
}
