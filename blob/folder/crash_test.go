package folder

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aloft-dev/aloft/blob"
)

// recorder is a disk that records its steps in order, so that a test can cut the power after any step and look at everything that
// the disk may hold then: all that was synced, and any part of what was not.
type recorder struct {
	osDisk
	mu       sync.Mutex
	log      []step
	lieFiles bool // a sync of a file returns nil and does nothing
	lieDirs  bool // a sync of a folder does
}

type step struct {
	op       string // create, write, syncfile, syncdir, link, rename, remove, mkdir, ack, gone
	path, to string
	content  []byte
}

func (r *recorder) do(s step, act func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if act != nil {
		if err := act(); err != nil {
			return err
		}
	}
	r.log = append(r.log, s)
	return nil
}

func (r *recorder) CreateTemp(dir string) (f file, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, err = r.osDisk.CreateTemp(dir); err == nil {
		r.log = append(r.log, step{op: "create", path: f.Name()})
		f = recordedFile{f, r}
	}
	return f, err
}

func (r *recorder) Link(from, to string) error {
	return r.do(step{op: "link", path: from, to: to}, func() error { return r.osDisk.Link(from, to) })
}

func (r *recorder) Rename(from, to string) error {
	return r.do(step{op: "rename", path: from, to: to}, func() error { return r.osDisk.Rename(from, to) })
}

func (r *recorder) Remove(path string) error {
	return r.do(step{op: "remove", path: path}, func() error { return r.osDisk.Remove(path) })
}

func (r *recorder) Mkdir(path string) error {
	return r.do(step{op: "mkdir", path: path}, func() error { return r.osDisk.Mkdir(path) })
}

func (r *recorder) SyncDir(path string) error {
	if r.lieDirs {
		return nil
	}
	return r.do(step{op: "syncdir", path: path}, func() error { return r.osDisk.SyncDir(path) })
}

func (r *recorder) SyncFile(path string) error {
	if r.lieFiles {
		return nil
	}
	return r.do(step{op: "syncfile", path: path}, func() error { return r.osDisk.SyncFile(path) })
}

type recordedFile struct {
	file
	r *recorder
}

func (f recordedFile) Write(p []byte) (n int, err error) {
	err = f.r.do(step{op: "write", path: f.Name(), content: bytes.Clone(p)}, func() error { n, err = f.file.Write(p); return err })
	return n, err
}

func (f recordedFile) Sync() error {
	if f.r.lieFiles {
		return nil
	}
	return f.r.do(step{op: "syncfile", path: f.Name()}, f.file.Sync)
}

// The images are the content of a disk: now as programs see it, and sure as it is at least after a power cut.

type inodeImage struct {
	now, sure []byte // content
}

type folderImage struct {
	now, sure map[string]any // *inodeImage or *folderImage
}

func newFolderImage() *folderImage { return &folderImage{map[string]any{}, map[string]any{}} }

// at returns the folder of a path and the last name in it.
func at(root *folderImage, path string) (*folderImage, string) {
	parts := strings.Split(path, "/")
	for _, part := range parts[:len(parts)-1] {
		root = root.now[part].(*folderImage)
	}
	return root, parts[len(parts)-1]
}

// after replays steps. Paths are relative to the store's root, whose own existence is certain.
func after(steps []step) *folderImage {
	root := newFolderImage()
	partial := newFolderImage()
	root.now[partialFolder], root.sure[partialFolder] = partial, partial
	for _, s := range steps {
		if s.op == "ack" || s.op == "gone" {
			continue
		}
		if below, ok := strings.CutPrefix(s.path, partialFolder+"/"); ok { // the store's own folder, made when it was opened
			own, _, _ := strings.Cut(below, "/")
			if partial.now[own] == nil {
				image := newFolderImage()
				partial.now[own], partial.sure[own] = image, image
			}
		}
		if s.op == "syncdir" {
			dir := root
			if s.path != "." {
				parent, name := at(root, s.path)
				dir = parent.now[name].(*folderImage)
			}
			dir.sure = map[string]any{}
			maps.Copy(dir.sure, dir.now)
			continue
		}
		dir, name := at(root, s.path)
		switch s.op {
		case "create":
			dir.now[name] = &inodeImage{}
		case "mkdir":
			dir.now[name] = newFolderImage()
		case "write":
			n := dir.now[name].(*inodeImage)
			n.now = append(n.now, s.content...)
		case "syncfile":
			n := dir.now[name].(*inodeImage)
			n.sure = bytes.Clone(n.now)
		case "remove":
			delete(dir.now, name)
		case "link", "rename":
			to, toName := at(root, s.to)
			to.now[toName] = dir.now[name]
			if s.op == "rename" {
				delete(dir.now, name)
			}
		}
	}
	return root
}

// survive collects the files that a disk holds after a power cut. For each change of a folder, and each content of a file, that was
// not synced, keep decides whether the disk has it.
func survive(dir *folderImage, prefix string, keep func() bool, found map[string]string) {
	names := map[string]bool{}
	for name := range dir.now {
		names[name] = true
	}
	for name := range dir.sure {
		names[name] = true
	}
	for _, name := range slices.Sorted(mapKeys(names)) {
		node, sure := dir.now[name], dir.sure[name]
		if node != sure && !keep() {
			node = sure
		}
		switch n := node.(type) {
		case *folderImage:
			if name != partialFolder {
				survive(n, prefix+name+"/", keep, found)
			}
		case *inodeImage:
			content := n.sure
			if !bytes.Equal(n.now, n.sure) && keep() {
				content = n.now[:(len(n.now)+1)/2] // some of it
			}
			found[prefix+name] = string(content)
		}
	}
}

func mapKeys(m map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// losses cuts the power after every step and lists the objects that were acknowledged and are gone or damaged.
func losses(log []step) (losses []string) {
	content := map[string]string{} // of all keys that are acknowledged at some step; a key has one content in these tests
	for _, s := range log {
		if s.op == "ack" {
			content[s.path] = string(s.content)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	acknowledged := map[string]bool{}
	for n := range len(log) + 1 {
		if n > 0 {
			switch s := log[n-1]; s.op {
			case "ack":
				acknowledged[s.path] = true
			case "gone":
				acknowledged[s.path] = false
			}
		}
		disk := after(log[:n])
		choices := []func() bool{func() bool { return false }, func() bool { return true }}
		for range 6 {
			choices = append(choices, func() bool { return random.IntN(2) == 0 })
		}
		for _, keep := range choices {
			found := map[string]string{}
			survive(disk, "", keep, found)
			for key, want := range content {
				got, there := found[key]
				switch {
				case acknowledged[key] && !there:
					losses = append(losses, fmt.Sprintf("after step %d: %s was acknowledged and is gone", n, key))
				case there && got != want && !strings.HasPrefix(key, "raw/"):
					losses = append(losses, fmt.Sprintf("after step %d: %s has %d of %d bytes", n, key, len(got), len(want)))
				case acknowledged[key] && got != want:
					losses = append(losses, fmt.Sprintf("after step %d: %s was acknowledged and has %d of %d bytes", n, key, len(got), len(want)))
				}
			}
		}
	}
	return losses
}

// record runs a program on a store and returns its steps with paths relative to the root.
func record(t *testing.T, r *recorder, program func(*Store)) []step {
	t.Helper()
	s, err := open(filepath.Join(t.TempDir(), "blob"), osDisk{})
	if err != nil {
		t.Fatal(err)
	}
	s.disk = r
	program(s)
	for i := range r.log {
		for _, path := range []*string{&r.log[i].path, &r.log[i].to} {
			if filepath.IsAbs(*path) {
				*path, _ = filepath.Rel(s.root, *path)
			}
		}
	}
	return r.log
}

func (r *recorder) put(t *testing.T, s *Store, key blob.Key, content string, o blob.PutOptions) {
	t.Helper()
	if _, err := s.Put(context.Background(), key, strings.NewReader(content), o); err != nil {
		t.Errorf("put %s: %v", key, err)
		return
	}
	r.do(step{op: "ack", path: string(key), content: []byte(content)}, nil)
}

// write writes a file in place as a task does, without a sync.
func (r *recorder) write(t *testing.T, s *Store, key blob.Key, content string) {
	t.Helper()
	for dir, parts := s.root, strings.Split(string(key), "/"); len(parts) > 1; parts = parts[1:] {
		dir = filepath.Join(dir, parts[0])
		if _, err := os.Stat(dir); err != nil {
			r.Mkdir(dir)
		}
	}
	r.do(step{op: "create", path: s.Path(key)}, nil)
	err := r.do(step{op: "write", path: s.Path(key), content: []byte(content)}, func() error { return os.WriteFile(s.Path(key), []byte(content), 0o644) })
	if err != nil {
		t.Error(err)
	}
}

// day is a program that makes objects in all ways in which they must be durable.
func day(t *testing.T, r *recorder) []step {
	return record(t, r, func(s *Store) {
		r.put(t, s, "upload/p/d/x/code.tar.gz", strings.Repeat("code", 50), blob.PutOptions{})
		r.put(t, s, "upload/p/d/x/code.tar.gz", strings.Repeat("code", 50), blob.PutOptions{}) // again
		r.put(t, s, "run/p/d/e/n0/0/inputs.pb", "inputs", blob.PutOptions{})
		r.put(t, s, "run/p/d/e/n0/0/error.pb", "error", blob.PutOptions{Overwrite: true})
		var wg sync.WaitGroup
		for i := range 4 { // new folders in common
			wg.Go(func() {
				r.put(t, s, blob.Key(fmt.Sprintf("run/p/d/f/n%d/0/inputs.pb", i%2+i/2*2)), "inputs of "+fmt.Sprint(i), blob.PutOptions{})
			})
		}
		for range 3 { // the same object at the same time
			wg.Go(func() { r.put(t, s, "upload/p/d/y/same", "the same", blob.PutOptions{}) })
		}
		wg.Wait()
		for _, key := range []blob.Key{"raw/aa/t/1", "raw/aa/t/sub/2", "raw/aa/t/sub/deep/3"} {
			r.write(t, s, key, "output "+string(key))
		}
		objects, err := s.Adopt(context.Background(), "raw/aa/t")
		if err != nil || len(objects) != 3 {
			t.Errorf("adopt: %v, %v", objects, err)
		}
		for _, o := range objects {
			r.do(step{op: "ack", path: string(o.Key), content: []byte("output " + string(o.Key))}, nil)
		}
		r.do(step{op: "gone", path: "run/p/d/e/n0/0/error.pb"}, nil) // from here on the object may exist or not
		if err := s.Delete(context.Background(), "run/p/d/e/n0/0/error.pb"); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatWasAcknowledgedSurvivesAPowerCutAfterAnyStep(t *testing.T) {
	t.Parallel()
	log := day(t, &recorder{})
	if got := losses(log); len(got) > 0 {
		t.Errorf("%d losses in %d steps, the first: %s", len(got), len(log), strings.Join(got[:min(5, len(got))], "\n"))
	}
}

// A test of the test: it must fail with a disk that only pretends to sync.
func TestADiskThatPretendsToSyncIsFoundOut(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*recorder{"files": {lieFiles: true}, "folders": {lieDirs: true}} {
		if got := losses(day(t, r)); len(got) == 0 {
			t.Errorf("%s are not synced and nothing is lost", name)
		}
	}
}

// A second process may have made the folders and not have synced them yet: our Put must not rely on it.
func TestFoldersMadeBySomebodyElseAreSyncedToo(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	log := record(t, r, func(s *Store) {
		r.write(t, s, "raw/aa/t/other", "unsynced")
		r.put(t, s, "raw/aa/t/ours", "ours", blob.PutOptions{})
		r.put(t, s, "raw/aa/t/other", "unsynced", blob.PutOptions{}) // what a task wrote and never synced
	})
	if got := losses(log); len(got) > 0 {
		t.Errorf("%d losses, the first: %s", len(got), got[0])
	}
}

// The price of durability, counted: a Put into a known folder syncs its file and that folder, nothing else.
func TestAPutIntoAKnownFolderSyncsTwice(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	count := func(log []step) (n int) {
		for _, s := range log {
			if strings.HasPrefix(s.op, "sync") {
				n++
			}
		}
		return n
	}
	var first, second int
	record(t, r, func(s *Store) {
		r.put(t, s, "a/b/c/1", "x", blob.PutOptions{})
		first = count(r.log)
		r.put(t, s, "a/b/c/2", "x", blob.PutOptions{})
		second = count(r.log) - first
	})
	if first != 5 || second != 2 {
		t.Errorf("got %d and %d syncs, want 5 (file, and a/b/c, a/b, a, the root) and 2", first, second)
	}
}
