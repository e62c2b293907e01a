package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/leftover"
	"github.com/aloft-dev/aloft/internal/removal"
	"github.com/aloft-dev/aloft/literal"
)

// # Private inputs
//
// An attempt never learns where a stored object is: each object that its inputs refer to is copied into the attempt's folder of
// inputs first, once for each location that refers to it, as by a download:
//
//	<data>/attempts/<attempt>.in/<object>-<use>/<last segment of its key>
//
// <object> is the number of the object among all that the inputs refer to, in the order of their keys: it follows from the
// inputs alone, so that also a server that was started later knows which object a location in the outputs means.

const inputsSuffix = ".in"

func (b *Backend) inputsDir(name string) string { return b.workDir(name) + inputsSuffix }

// inputCopies is how many objects are copied at the same time: to make a file is mostly to wait.
const inputCopies = 4

// giveInputs writes the inputs as the task reads them, with private copies of what they refer to, and returns them. A
// failure: one of these objects is gone, or is not what was stored.
func (b *Backend) giveInputs(ctx context.Context, job *executor.Job, path string) (*core.LiteralMap, *aloftv1.Failure, error) {
	local := proto.CloneOf(job.Inputs)
	dir := b.inputsDir(attemptName(job.ID))
	copies := privateCopies(local, dir)
	if len(copies) > 0 {
		if err := b.makeCopies(ctx, dir, copies); errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrConflict) {
			return nil, lostInput(job, copies, err), nil
		} else if err != nil {
			return nil, nil, fmt.Errorf("copy inputs: %w", err)
		}
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(local)
	if err != nil {
		return nil, nil, fmt.Errorf("encode inputs: %w", err)
	}
	if err := os.WriteFile(path, encoded, 0o644); err != nil {
		return nil, nil, unavailable("write inputs", err)
	}
	return local, nil, nil
}

// privateCopy is one copy of an object that is to be made.
type privateCopy struct {
	key  blob.Key
	to   string
	text bool // nothing but strings refer to the object: they may be no locations at all, so that the object need not exist
	dir  bool // what refers to the object is a folder
	err  error
}

// privateCopies puts the path of a copy in the place of each location, and returns the copies. A struct that cannot be read
// stays as it is: the task will say so.
func privateCopies(inputs *core.LiteralMap, dir string) []privateCopy {
	var copies []privateCopy
	references := literal.References(inputs, blob.KeyOfText)
	if len(references) == 0 {
		return nil
	}
	objects := slices.Sorted(maps.Keys(references))
	uses := map[blob.Key]int{}
	place := func(uri string, folder bool) (string, error) {
		key, ours, err := blob.KeyOfURI(uri)
		if err != nil || !ours {
			return uri, err
		}
		object, _ := slices.BinarySearch(objects, key)
		to := filepath.Join(dir, strconv.Itoa(object)+"-"+strconv.Itoa(uses[key]), key.Base())
		uses[key]++
		copies = append(copies, privateCopy{key: key, to: to, text: references[key] == literal.InText, dir: folder})
		return to, nil
	}
	// Folders first: a location that was replaced by the path of its copy is not replaced again.
	literal.WalkFolders(inputs, func(uri *string) {
		if to, err := place(*uri, true); err == nil {
			*uri = to
		}
	})
	_ = literal.RewriteURIs(inputs, func(uri string) (string, error) { return place(uri, false) })
	return copies
}

// inputObjects are the keys of the stored objects that the inputs refer to, sorted.
func inputObjects(inputs *core.LiteralMap) []blob.Key {
	return slices.Sorted(maps.Keys(literal.References(inputs, blob.KeyOfText)))
}

// makeCopies makes the folder of the inputs and all copies in it. An error of the store that is away comes before an object
// that is gone: the attempt is started again then, and only what is gone with the store at hand is lost.
func (b *Backend) makeCopies(ctx context.Context, dir string, copies []privateCopy) error {
	err := os.Mkdir(dir, 0o755)
	switch {
	case errors.Is(err, fs.ErrExist): // left by a server that was killed before it had handed the attempt over, or by a try on a full disk
		if err = removal.All(ctx, dir); err == nil {
			err = os.Mkdir(dir, 0o755)
		}
	case errors.Is(err, fs.ErrNotExist): // the first attempt of all
		err = makeFolder(dir)
	}
	if err != nil {
		return unavailable("make the folder of the inputs", err)
	}
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(inputCopies, len(copies)) {
		workers.Go(func() {
			for i := range next {
				c := &copies[i]
				if c.err = os.Mkdir(filepath.Dir(c.to), 0o755); c.err != nil {
					c.err = unavailable("make the folder of an input", c.err)
					continue
				}
				c.err = b.makeCopy(ctx, c)
			}
		})
	}
	var errs []error
	for i := range copies {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	var lost []error
	for i := range copies {
		c := &copies[i]
		switch gone := errors.Is(c.err, aloft.ErrNotFound) || errors.Is(c.err, aloft.ErrConflict); {
		case gone && c.text:
			c.err = nil
		case gone:
			lost = append(lost, c.err)
		case c.err != nil:
			errs = append(errs, c.err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return errors.Join(lost...)
}

// makeCopy makes one copy. flytekit names a folder that it uploads with one file by the location of that file
// (FlyteFS.extract_common): the task gets a folder with the file in it, as it had on the client's side.
func (b *Backend) makeCopy(ctx context.Context, c *privateCopy) error {
	if !c.dir || isFolder(b.config.Blob.Path(c.key)) {
		return b.config.Blob.Private(ctx, c.key, c.to)
	}
	if err := os.Mkdir(c.to, 0o755); err != nil {
		return unavailable("make the folder of an input", err)
	}
	return b.config.Blob.Private(ctx, c.key, filepath.Join(c.to, c.key.Base()))
}

// lostInput says which inputs are gone. To compute them again within this run would let a node succeed twice: a recovery does.
func lostInput(job *executor.Job, copies []privateCopy, cause error) *aloftv1.Failure {
	lost := map[blob.Key]error{}
	for _, c := range copies {
		if c.err != nil {
			lost[c.key] = c.err
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(job.Inputs.GetLiterals())) {
		one := &core.LiteralMap{Literals: map[string]*core.Literal{name: job.Inputs.GetLiterals()[name]}}
		for _, key := range inputObjects(one) {
			if err := lost[key]; err != nil {
				lines = append(lines, fmt.Sprintf("input %s: %s%v", name, producer(key), err))
			}
		}
	}
	if len(lines) == 0 {
		lines = append(lines, cause.Error())
	}
	return executor.LostInput(job, lines)
}

// producer names the attempt that wrote an object; empty: no attempt of ours did.
func producer(key blob.Key) string {
	if parts := strings.SplitN(string(key), "/", 4); len(parts) == 4 && parts[0] == "raw" && len(parts[1]) == 2 {
		return "what " + parts[2] + " returned: "
	}
	return ""
}

// returnedURI is the canonical URI of a location in the outputs that lies in the folder of inputs. A private copy that is as it
// was stands for the stored object itself; what the task has changed or added there is stored as an output of its own. Every
// other location is returned as it is.
func (b *Backend) returnedURI(ctx context.Context, job *executor.Job, location string) (string, error) {
	path := filepath.Clean(strings.TrimPrefix(location, "file://"))
	rest, ok := strings.CutPrefix(path, b.inputsDir(attemptName(job.ID))+string(filepath.Separator))
	if !ok {
		return location, nil
	}
	place, name, _ := strings.Cut(rest, string(filepath.Separator))
	number, _, _ := strings.Cut(place, "-")
	object, err := strconv.Atoi(number)
	objects := inputObjects(job.Inputs)
	if err != nil || name == "" || object < 0 || object >= len(objects) {
		return location, nil //nolint:nilerr // no path of a private copy
	}
	base, below, _ := strings.Cut(name, string(filepath.Separator))
	if meant := objects[object].Base(); base != meant {
		// flytekit un-escapes the location of a FlyteFile that it returns (types/file/file.py, unquote).
		if unescaped, err := url.PathUnescape(meant); err == nil && unescaped == base {
			base, rest = meant, filepath.Join(place, meant, below)
			path = filepath.Join(b.inputsDir(attemptName(job.ID)), rest)
		}
	}
	if stored := filepath.Join(b.config.Blob.Path(objects[object]), below); base == objects[object].Base() && unchanged(path, stored) {
		if key, ok := b.config.Blob.KeyOf(stored); ok {
			return key.URI(), nil
		}
	}
	key, err := b.writtenKey(job.ID).Join("inputs", filepath.ToSlash(rest))
	if err != nil {
		return location, err
	}
	return key.URI(), b.store(ctx, path, key)
}

// unchanged says whether a private copy is what was copied: writing to a file gives it another modification time.
func unchanged(path, stored string) bool {
	same := true
	seen := 0
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		now, err := d.Info()
		if err != nil {
			return err
		}
		was, err := os.Lstat(stored + at[len(path):])
		if err != nil {
			return err
		}
		if same = now.Mode().Type() == was.Mode().Type() && (d.IsDir() || now.Size() == was.Size() && now.ModTime().Equal(was.ModTime())); !same {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil || !same {
		return false
	}
	err = filepath.WalkDir(stored, func(string, fs.DirEntry, error) error { // and nothing was removed
		seen--
		return nil
	})
	return err == nil && seen == 0
}

// store puts a file, or all files of a folder, where an attempt's raw outputs are.
func (b *Backend) store(ctx context.Context, path string, key blob.Key) error {
	err := filepath.WalkDir(path, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && at == path {
			return nil // the task returns a file that it has removed: digests will refuse the reference
		}
		if err != nil || d.IsDir() {
			return err
		}
		below, err := blob.ParseKey(string(key) + filepath.ToSlash(at[len(path):]))
		if err != nil {
			return err
		}
		f, _, err := leftover.Open(at)
		if _, ok := errors.AsType[*leftover.NotFileError](err); ok {
			return fmt.Errorf("%w: outputs must be files and folders: %w", aloft.ErrInvalid, err)
		} else if err != nil {
			return unavailable("read an output", err)
		}
		defer f.Close()
		_, err = b.config.Blob.Put(ctx, below, f, blob.PutOptions{Overwrite: true})
		return err
	})
	if err == nil && isFolder(path) {
		_, err = b.config.Blob.Adopt(ctx, key) // records what the folder holds
	}
	return err
}

// giveCheckpoint makes dst a private copy of the last checkpoint before this attempt, and says whether there is one. Flyte
// offers only that of the attempt directly before: if that attempt died early, all that was saved is lost. If there is no
// earlier checkpoint, the one that the node of a recovered execution left (a canonical URI; empty: none) is taken.
func (b *Backend) giveCheckpoint(ctx context.Context, id aloft.AttemptID, recovered, dst string) (bool, error) {
	var earlier []blob.Key
	for ; id.Attempt > 0; id.Attempt-- {
		before := id
		before.Attempt--
		earlier = append(earlier, checkpointKey(before))
	}
	if key, err := blob.ParseURI(recovered); err == nil { // another URI names no object of ours: the task begins anew
		earlier = append(earlier, key)
	}
	for _, key := range earlier {
		if there, err := b.hasEntries(key); err != nil {
			return false, err
		} else if !there {
			continue
		}
		err := makeFolder(filepath.Dir(dst))
		if err != nil {
			return false, unavailable("make the folder of the checkpoint", err)
		}
		err = b.config.Blob.Private(ctx, key, dst)
		if errors.Is(err, fs.ErrExist) { // left by a server that was killed before it had handed the attempt over
			if err = removal.All(ctx, dst); err == nil {
				err = b.config.Blob.Private(ctx, key, dst)
			}
		}
		switch {
		case err == nil:
			return true, nil
		case !errors.Is(err, aloft.ErrNotFound) && !errors.Is(err, aloft.ErrConflict):
			return false, fmt.Errorf("copy the checkpoint of an earlier attempt: %w", err)
		case errors.Is(err, aloft.ErrConflict):
			b.config.Logger.Warn("a damaged checkpoint is not used", "attempt", id.String(), "error", err)
		}
		if err := removal.All(ctx, dst); err != nil {
			return false, unavailable("remove a damaged checkpoint", err)
		}
	}
	return false, nil
}
