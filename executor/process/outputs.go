package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/worker"
)

// keep makes the outputs canonical and everything that they refer to durable, with its digest. Outputs that refer to nothing,
// or to a file that is removed with the attempt, are aloft.ErrInvalid, all of them in one error.
func (b *Backend) keep(ctx context.Context, job *executor.Job, outputs *core.LiteralMap, outcome *aloftv1.Outcome) error {
	raw := b.writtenKey(job.ID)
	var written []blob.Object
	if !isEmptyFolder(b.config.Blob.Path(raw)) { // a folder that prepare made and in which the attempt wrote nothing need not be durable
		var err error
		if written, err = b.config.Blob.Adopt(ctx, raw); err != nil {
			return fmt.Errorf("keep the files of the outputs: %w", err)
		}
	}
	canonical := b.canonicalAmong(written)
	var problems []error
	back := func(location string) (string, error) {
		uri, err := canonical(location)
		if err == nil && uri == location {
			if uri, err = b.returnedURI(ctx, job, location); errors.Is(err, aloft.ErrUnavailable) || ctx.Err() != nil {
				problems = append(problems, err)
			}
		}
		return uri, err
	}
	if err := literal.RewriteURIs(outputs, back); len(problems) > 0 {
		return fmt.Errorf("keep changed inputs: %w", errors.Join(problems...))
	} else if err != nil {
		b.config.Logger.Warn("render locations in outputs", "attempt", job.ID.String(), "error", err)
	}
	var err error
	if outcome.Objects, err = b.digests(ctx, attemptName(job.ID), outputs, written); err != nil {
		return err
	}
	literals, err := b.literals.WriteLiterals(ctx, outputs)
	if err != nil {
		return err
	}
	outcome.Result = &aloftv1.Outcome_Outputs{Outputs: literals}
	return nil
}

// canonicalAmong returns a function that gives the canonical form of the locations that an attempt returns. flytekit un-escapes the location of a
// FlyteFile that it returns (types/file/file.py, unquote), so one whose path has a "%41" in it names another file, that is
// not there; what the attempt wrote tells which is meant.
func (b *Backend) canonicalAmong(written []blob.Object) func(uri string) (string, error) {
	meant := map[string]string{}
	there := map[string]bool{}
	for _, o := range written {
		there[o.Key.URI()] = true
		path := b.config.Blob.Path(o.Key)
		if unescaped, err := url.PathUnescape(path); err == nil && unescaped != path {
			meant[unescaped] = o.Key.URI()
		}
	}
	return func(uri string) (string, error) {
		canonical, err := b.renderer.Canonical(uri)
		if object, ok := meant[strings.TrimPrefix(uri, "file://")]; ok && !there[canonical] {
			return object, nil
		}
		return canonical, err
	}
}

// digests lists the stored files and folders that the outputs refer to, each with its digest. What the location of a literal
// names must be there; a text in a struct counts as a location only if something is there.
func (b *Backend) digests(ctx context.Context, attempt string, outputs *core.LiteralMap, written []blob.Object) ([]*aloftv1.ObjectDigest, error) {
	var keys []blob.Key
	var problems []error
	seen := map[blob.Key]bool{}
	output := map[blob.Key]string{} // the first output that refers to the key
	for _, name := range slices.Sorted(maps.Keys(outputs.GetLiterals())) {
		literal.Walk(outputs.GetLiterals()[name], func(uri *string) {
			if err := b.checkLocalOutput(attempt, *uri); err != nil {
				problems = append(problems, fmt.Errorf("output %s: %w", name, err))
			}
			key, ours, err := blob.KeyOfURI(*uri)
			switch {
			case err != nil:
				problems = append(problems, fmt.Errorf("output %s: %w", name, err))
			case ours && isShared(key) && isFolder(b.config.Blob.Path(key)):
				problems = append(problems, fmt.Errorf("output %s: %s is a folder with what other attempts wrote; return what this one wrote, or an input", name, key.URI()))
			case ours && !seen[key]:
				seen[key], output[key] = true, name
				keys = append(keys, key)
			}
		})
	}
	references := literal.References(outputs, blob.KeyOfText)
	for _, key := range slices.Sorted(maps.Keys(references)) {
		// Below run there are no outputs, but logs, which go on being written, and what is kept of attempts.
		if references[key] == literal.InStruct && !seen[key] && !key.Within("run") && !(isShared(key) && isFolder(b.config.Blob.Path(key))) {
			seen[key] = true
			keys = append(keys, key)
		}
	}
	var digests []*aloftv1.ObjectDigest
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		below := blob.Below(written, key) // no copy: outputs may refer to each of many folders in one another
		if len(below) == 0 {
			// The attempt has not written the object: it passes an input on.
			var err error
			below, err = b.objectsBelow(ctx, key)
			if references[key] == literal.InStruct && (errors.Is(err, aloft.ErrNotFound) || errors.Is(err, aloft.ErrConflict)) {
				continue
			} else if err != nil {
				return nil, err
			}
		}
		if len(below) == 0 && !isFolder(b.config.Blob.Path(key)) {
			if references[key] == literal.InStruct {
				continue
			}
			problems = append(problems, fmt.Errorf("output %s refers to %s, and nothing is there", output[key], key.URI()))
			continue
		}
		digest, size := blob.DigestBelow(key, below)
		digests = append(digests, &aloftv1.ObjectDigest{Uri: key.URI(), Digest: digest, Size: size})
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %w", aloft.ErrInvalid, errors.Join(problems...))
	}
	return digests, nil
}

// objectsBelow are the objects at or below a key, with their digests.
func (b *Backend) objectsBelow(ctx context.Context, key blob.Key) ([]blob.Object, error) {
	var below []blob.Object
	for entry, err := range b.config.Blob.List(ctx, key) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", key, err)
		}
		attributes, err := b.config.Blob.Stat(ctx, entry.Key)
		if err != nil {
			return nil, fmt.Errorf("read the digest of %s: %w", entry.Key, err)
		}
		below = append(below, blob.Object{Key: entry.Key, Attributes: attributes})
	}
	return below, nil
}

// isShared says whether a key names a folder above those of attempts: raw, or raw and the two letters that spread load.
func isShared(key blob.Key) bool {
	return key == "raw" || strings.HasPrefix(string(key), "raw/") && strings.Count(string(key), "/") == 1
}

// checkLocalOutput returns an error if an output is a path on this machine that cannot stay one: the file is removed with the
// attempt, or does not exist.
func (b *Backend) checkLocalOutput(attempt, uri string) error {
	path := strings.TrimPrefix(uri, "file://")
	if !filepath.IsAbs(path) {
		return nil
	}
	const wayOut = "; without remote_path=False flytekit keeps it"
	folders := []string{b.workDir(attempt), b.tempDir(attempt), b.inputsDir(attempt)}
	if short, err := worker.ShortPath(b.config.DataDir); err == nil {
		folders = append(folders, filepath.Join(short, "attempts", folderName(attempt)+tempSuffix))
	}
	for _, dir := range folders {
		if below, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(below) {
			return fmt.Errorf("%s is in a folder of the attempt, which is removed with it%s", path, wayOut)
		}
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) {
		return fmt.Errorf("%s is not there%s", path, wayOut)
	}
	return nil
}

// isFolder says whether there is a folder at a path, perhaps an empty one.
func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// isEmptyFolder says whether there is a folder at a path, and nothing in it.
func isEmptyFolder(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}
