package process

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A try of a large folder on a slow disk takes minutes.
func TestAFolderThatCannotBeRemovedIsToldOfOnceWhileItIsTriedAgain(t *testing.T) {
	t.Parallel()
	b := New(Config{})
	now := time.Now()
	b.removeLater("/attempts/gone-a", firstPause, errors.New("it is immutable"))
	d, _ := b.nextDiscarded(now.Add(time.Hour))
	if d == nil || d.path != "/attempts/gone-a" {
		t.Fatalf("the turn is of %v", d)
	}
	told := func(when string) {
		if got := b.Remains(t.Context()); len(got) != 1 || !strings.Contains(got[0], "/attempts/gone-a") {
			t.Errorf("%s, it tells of %q, want the folder once", when, got)
		}
	}
	told("while it is tried")
	b.removeLater("/attempts/gone-a", 0, nil) // as sweep does for a server that begins
	if again, _ := b.nextDiscarded(now.Add(time.Hour)); again != nil {
		t.Errorf("%s is tried twice at once", again.path)
	}
	b.endTry(d, false, errors.New("it is still immutable"), now)
	told("after the try")
	b.endTry(d, true, nil, now)
	if got := b.Remains(t.Context()); len(got) > 0 {
		t.Errorf("it is gone, and it tells of %q", got)
	}
}
