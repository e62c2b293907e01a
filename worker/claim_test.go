package worker

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// load returns the attempts that a supervisor finds in the content of a journal's file.
func load(t testing.TB, content []byte) []storedAttempt {
	t.Helper()
	left, err := new(journal).load(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

func newJournal(t *testing.T) (*journal, folder) {
	t.Helper()
	f, err := newFolder(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j, left, err := openJournal(f)
	if err != nil || len(left) != 0 {
		t.Fatalf("a new journal: %v, %v", left, err)
	}
	return j, f
}

// told is the state of each attempt, in words.
func told(left []storedAttempt) map[string]string {
	all := map[string]string{}
	for _, s := range left {
		words := "claimed"
		if s.process != nil {
			words = fmt.Sprintf("process %d", s.process.PID)
		}
		if s.exit != nil {
			words = fmt.Sprintf("exit %d", s.exit.Code)
		}
		all[s.claim.AttemptID] = words
	}
	return all
}

func TestAfterACutAnywhereTheJournalTellsWhatWasSynced(t *testing.T) {
	t.Parallel()
	j, f := newJournal(t)
	// The states of all attempts after each line, and where the line ends.
	type moment struct {
		said map[string]string
		size int64
	}
	moments := []moment{{said: map[string]string{}}}
	step := func(change func(map[string]string), do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		said := maps.Clone(moments[len(moments)-1].said)
		change(said)
		moments = append(moments, moment{said, j.size})
	}
	for i := range 4 {
		id := fmt.Sprintf("attempt/%d", i)
		step(func(m map[string]string) { m[id] = "claimed" }, func() error { return j.claim(claim{AttemptID: id, Token: "t"}) })
		step(func(m map[string]string) { m[id] = "process 7" }, func() error { return j.process(id, process{PID: 7}) })
		if i%2 == 0 {
			step(func(m map[string]string) { m[id] = "exit 3" }, func() error { return j.exit(ExitRecord{AttemptID: id, Code: 3}) })
			step(func(m map[string]string) { delete(m, id) }, func() error { j.forget(id); return nil })
		}
	}
	content, err := os.ReadFile(f.journal())
	if err != nil {
		t.Fatal(err)
	}
	for cut := range int(j.size) + 1 {
		// Of the bytes after the cut, which were not synced, the disk may have none, or anything.
		for _, tail := range []string{"", strings.Repeat("\x00", 50), "\x00\x00}}\n", `{"attempt_id":"x","claim":{"attempt_id":"x"`} {
			got := told(load(t, append(slices.Clone(content[:cut]), tail...)))
			var want map[string]string
			for _, m := range moments {
				if m.size <= int64(cut) {
					want = m.said
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("cut at %d, then %q: got (+), want (-):\n%s", cut, tail, diff)
			}
		}
	}
	_, left, err := openJournal(f)
	if diff := cmp.Diff(moments[len(moments)-1].said, told(left)); err != nil || diff != "" {
		t.Errorf("the next supervisor, %v: got (+), want (-):\n%s", err, diff)
	}
	if _, left, err = openJournal(f); err != nil || len(left) != 2 { // from the file that the first openJournal wrote
		t.Errorf("the one after it: got %v, %v, want two attempts", left, err)
	}
}

func TestClaimsThatComeTogetherShareASync(t *testing.T) {
	t.Parallel()
	j, _ := newJournal(t)
	disk, entered, together := j.sync, make(chan struct{}), make(chan struct{})
	var once sync.Once
	j.sync = func(file *os.File) error {
		once.Do(func() {
			close(entered)
			<-together
		})
		return disk(file)
	}
	var claims sync.WaitGroup
	errs := make(chan error, 21)
	claims.Go(func() { errs <- j.claim(claim{AttemptID: "first"}) })
	<-entered // the sync of the first claim is under way
	for i := range 20 {
		claims.Go(func() { errs <- j.claim(claim{AttemptID: fmt.Sprint(i)}) })
	}
	for written := uint64(0); written < 21; {
		j.mu.Lock()
		written = j.written
		j.mu.Unlock()
	}
	close(together)
	claims.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if j.syncs != 2 {
		t.Errorf("got %d syncs for 21 claims, want 2", j.syncs)
	}
}

func TestAFullJournalIsReplacedByWhatIsNotForgotten(t *testing.T) {
	t.Parallel()
	j, f := newJournal(t)
	if err := j.claim(claim{AttemptID: "long"}); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		id := fmt.Sprint(i)
		for _, err := range []error{j.claim(claim{AttemptID: id}), j.exit(ExitRecord{AttemptID: id, Modules: []string{strings.Repeat("m", 10_000)}})} {
			if err != nil {
				t.Fatal(err)
			}
		}
		j.forget(id)
	}
	if info, err := os.Stat(f.journal()); err != nil || info.Size() != journalRoom {
		t.Errorf("after 3 MB of lines: got %v, %v, want %d bytes", info.Size(), err, journalRoom)
	}
	if _, left, err := openJournal(f); err != nil || len(left) != 1 || left[0].claim.AttemptID != "long" {
		t.Errorf("got %v, %v, want the one that was not forgotten", told(left), err)
	}
}

func TestAClaimThatTheDiskRefusesIsNoClaimAndTheNextIsWrittenAnew(t *testing.T) {
	t.Parallel()
	j, f := newJournal(t)
	if err := j.claim(claim{AttemptID: "before"}); err != nil {
		t.Fatal(err)
	}
	disk := j.sync
	j.sync = func(*os.File) error { return errors.New("input/output error") }
	if err := j.claim(claim{AttemptID: "refused"}); err == nil || !strings.Contains(err.Error(), "claim attempt: input/output error") {
		t.Errorf("got %v", err)
	}
	j.sync = disk
	if err := j.claim(claim{AttemptID: "after"}); err != nil {
		t.Error(err)
	}
	if _, left, err := openJournal(f); err != nil || !cmp.Equal(told(left), map[string]string{"before": "claimed", "after": "claimed"}) {
		t.Errorf("got %v, %v", told(left), err)
	}
	if err := os.RemoveAll(filepath.Dir(f.journal())); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(f); err == nil || !strings.Contains(err.Error(), "write claims: ") {
		t.Errorf("no folder: got %v", err)
	}
}
