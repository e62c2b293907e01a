package process

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft/internal/removal"
)

// # Removing the folders of attempts
//
// A task may have left a million files in its folders, or a file that cannot be removed at all, such as one that root has made
// immutable. No attempt waits for the removal, nor does the end of the server: a folder of few files is removed at once, and
// every other folder is renamed to <data>/attempts/gone-<random> and removed in the background while Watch runs:
//
//	discard ──(few files)──▶ removed
//	   │
//	   └──(many, or an error)──▶ gone-… ──▶ discarded ──removeDiscarded──▶ removed
//	                                            └──(an error)──▶ logged once, tried again with growing pauses
//
// Folders gone-… that an earlier server has left are found by sweep.

const (
	discardedPrefix = "gone-"
	discardAtOnce   = 1000 // entries that are removed while the caller waits, and in one try in the background
	firstPause      = time.Minute
	longestPause    = time.Hour
)

// discardedFolder is a folder that is removed in the background. The back end's lock guards it, and while it is busy only
// removeDiscarded writes to it.
type discardedFolder struct {
	path  string
	busy  bool          // a try is under way
	due   time.Time     // of the next try
	pause time.Duration // before the next try; 0: no try has failed
	err   error         // of the last try
}

// discard removes a folder, or leaves it to removeDiscarded.
func (b *Backend) discard(path string) {
	if strings.HasPrefix(filepath.Base(path), discardedPrefix) {
		b.removeLater(path, 0, nil)
		return
	}
	done, err := removal.Some(path, discardAtOnce)
	if done {
		return
	}
	aside := filepath.Join(filepath.Dir(path), discardedPrefix+rand.Text())
	if os.Rename(path, aside) != nil {
		aside = path // the folder itself, immutable perhaps, is what cannot be removed
	}
	if err != nil {
		b.config.Logger.Warn("files of an attempt cannot be removed", "folder", aside, "error", err)
		b.removeLater(aside, firstPause, err)
		return
	}
	b.removeLater(aside, 0, nil)
}

// removeLater adds a folder to those of removeDiscarded. Its next try comes after the pause, which is 0 unless a try has failed.
func (b *Backend) removeLater(path string, pause time.Duration, err error) {
	d := &discardedFolder{path: path, due: time.Now().Add(pause), pause: pause, err: err}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, known := range b.discarded {
		if known.path == path {
			return
		}
	}
	b.discarded = append(b.discarded, d)
	select {
	case b.discardedWake <- struct{}{}:
	default:
	}
}

// removeDiscarded removes folders until ctx ends, some files of each in turn.
func (b *Backend) removeDiscarded(ctx context.Context) {
	for ctx.Err() == nil {
		d, wait := b.nextDiscarded(time.Now())
		if d == nil {
			select {
			case <-ctx.Done():
			case <-b.discardedWake:
			case <-time.After(wait):
			}
			continue
		}
		done, err := removal.Some(d.path, discardAtOnce)
		if err != nil && d.pause == 0 {
			b.config.Logger.Warn("files of an attempt cannot be removed", "folder", d.path, "error", err)
		}
		b.endTry(d, done, err, time.Now())
	}
}

// Remains says what is left of attempts that have ended, a sentence each: folders that cannot be removed, and processes that cannot
// be ended. It does not wait for a supervisor that is not connected.
func (b *Backend) Remains(ctx context.Context) (sentences []string) {
	b.mu.Lock()
	client := b.client
	for _, d := range b.discarded {
		if d.err != nil {
			sentences = append(sentences, fmt.Sprintf("the folder %s of an attempt that has ended cannot be removed: %v", d.path, d.err))
		}
	}
	b.mu.Unlock()
	if client == nil {
		return sentences
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	undead, err := client.Undead(ctx)
	if err != nil {
		b.config.Logger.Debug("ask for processes that cannot be ended", "error", err)
	}
	for _, u := range undead {
		sentences = append(sentences, fmt.Sprintf("process %d of the attempt %s, which has ended, was killed and is still there (%s): a disk does not answer, or it is frozen", u.PID, u.AttemptID, u.Condition))
	}
	return sentences
}

// nextDiscarded begins a try of the first folder that is due. If none is, it returns nil and how long none will be. The folder
// stays in the list meanwhile, so that Remains goes on to tell of it and removeLater does not add it again.
func (b *Backend) nextDiscarded(now time.Time) (*discardedFolder, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := longestPause
	for _, d := range b.discarded {
		if d.busy {
			continue
		}
		if !d.due.After(now) {
			d.busy = true
			return d, 0
		}
		wait = min(wait, d.due.Sub(now))
	}
	return nil, wait
}

// endTry ends a try. A folder of which something is left goes to the end of the list.
func (b *Backend) endTry(d *discardedFolder, done bool, err error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d.busy = false
	b.discarded = slices.DeleteFunc(b.discarded, func(other *discardedFolder) bool { return other == d })
	if err != nil {
		d.pause = min(max(2*d.pause, firstPause), longestPause)
		d.due, d.err = now.Add(d.pause), err
	}
	if !done {
		b.discarded = append(b.discarded, d)
	}
}
