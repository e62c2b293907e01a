// Package removal removes folders that a task could write to. os.RemoveAll trusts what it removes, and a task may have left
// anything there:
//
//   - A mount. What is behind it is not ours: another folder of the machine, the home of a user. A mount is detached before
//     the folder that it stands on is removed, and the removal never enters one. One that cannot be detached stays, and with
//     it the folders above it.
//   - A tree of any depth. A removal holds at most maxDepth descriptors: what is deeper is moved to the top of the tree.
//   - A tree of any size. [Some] removes a number of entries and says whether that was all, so that its caller can go on
//     later; [All] goes on until its context ends.
//   - Folders without permissions, which are given back first, and files that cannot be removed at all, as those that root has
//     made immutable: all else goes, and the error names the first of them.
//
// A symbolic link is removed and not followed. Nothing but the path's own parent is looked up by a name of several parts.
package removal

import (
	"context"
	"errors"
	"io/fs"
)

// slice is how many entries [All] removes before it looks at its context.
const slice = 1000

// All removes what is at a path, and all below it. Where nothing is, it is done. With the end of ctx it ends with its error.
func All(ctx context.Context, path string) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if done, err := Some(path, slice); done || err != nil {
			return err
		}
	}
}

// Some removes at most about so many entries of what is at a path. done is false when that was not all. An error says what
// cannot be removed, when nothing is left but that.
func Some(path string, entries int) (done bool, err error) {
	err = remove(path, entries)
	if errors.Is(err, errMore) {
		return false, nil
	}
	return err == nil || errors.Is(err, fs.ErrNotExist), ignoreGone(err)
}

// errMore says that the entries were counted out.
var errMore = errors.New("more is to be removed")

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
