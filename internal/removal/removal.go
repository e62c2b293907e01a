// Package removal removes folders that a task could write to. os.RemoveAll trusts the tree that it removes, but a task may have
// left anything in it:
//
//   - A mount, behind which are files that do not belong to the task, such as the home of a user. A mount is detached before the
//     folder that it covers is removed, and the removal never enters it. A mount that cannot be detached stays, and so do the
//     folders above it.
//   - A tree of any depth. A removal holds at most maxDepth descriptors: a deeper folder is moved to the top of the tree.
//   - A tree of any size. [Some] removes a number of entries and says whether that was all, so that its caller can go on
//     later; [All] goes on until its context ends.
//   - Folders without permissions, which are restored first, and files that cannot be removed at all, such as those that root has
//     made immutable: all other entries are removed, and the error names the first that stays.
//
// A symbolic link is removed and not followed. Only the parent of the path itself is looked up by a name of several parts.
package removal

import (
	"context"
	"errors"
	"io/fs"
)

// slice is how many entries [All] removes between two looks at its context.
const slice = 1000

// All removes a file or a folder with all that is in it. If the path does not exist, there is nothing to do. When ctx ends, All
// returns its error.
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

// Some does the same, but removes at most about entries entries. done is false if there are more. The error names the first
// entry that cannot be removed; it is returned only when nothing else is left.
func Some(path string, entries int) (done bool, err error) {
	err = remove(path, entries)
	if errors.Is(err, errMore) {
		return false, nil
	}
	return err == nil || errors.Is(err, fs.ErrNotExist), ignoreGone(err)
}

// errMore says that the number of entries was removed and that there are more.
var errMore = errors.New("more is to be removed")

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
