package catalog

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// maxLookedAt is how many files of one folder Lost opens to see whether they are as they were stored.
const maxLookedAt = 10_000

// Lost says what of a node's outputs is not there any more, or is not what was stored; empty: all is well. It is asked before
// a recovery takes over the results of a node. Unlike those of a result, these objects have no digests at hand: that an object
// was changed is known where the blob store itself recorded what it stored. A blob store that cannot answer is an error.
func (c *Catalog) Lost(ctx context.Context, outputs *aloftv1.Literals) (problem string, err error) {
	values := outputs.GetValue()
	if ref := outputs.GetRef(); ref.GetUri() != "" {
		o := &aloftv1.ObjectDigest{Uri: ref.GetUri(), Digest: "sha256:" + hex.EncodeToString(ref.GetDigest()), Size: ref.GetSize()}
		if problem, err := c.look(ctx, o, true); problem != "" || err != nil {
			return problem, err
		}
		if values == nil {
			if values, err = (blob.Literals{Store: c.Blob}).ReadLiterals(ctx, ref); err != nil {
				return "", err
			}
		}
	}
	for _, key := range referredTo(values) {
		if problem, err := c.lookAt(ctx, key); problem != "" || err != nil {
			return problem, err
		}
	}
	return "", nil
}

// referredTo are the objects that values refer to: by URIs and by texts in structs. A string that is a value by itself may
// be no location at all.
func referredTo(values *core.LiteralMap) []blob.Key {
	encoded, err := proto.Marshal(values)
	if err != nil || !bytes.Contains(encoded, []byte(blob.Scheme)) { // most outputs are numbers
		return nil
	}
	found := map[blob.Key]bool{}
	note := func(uri string) {
		if key, ours, err := blob.KeyOfURI(uri); err == nil && ours {
			found[key] = true
		}
	}
	_ = literal.RewriteURIs(proto.CloneOf(values), func(uri string) (string, error) {
		note(uri)
		return uri, nil
	})
	for text := range literal.Texts(values) {
		if key, ours, err := blob.KeyOfURI(text); err == nil && ours {
			delete(found, key)
		}
	}
	literal.WalkMap(values, func(uri *string) { note(*uri) })
	return slices.Sorted(maps.Keys(found))
}

func (c *Catalog) lookAt(ctx context.Context, key blob.Key) (problem string, err error) {
	seen := 0
	for entry, err := range c.Blob.List(ctx, key) {
		if err != nil {
			return "", err
		}
		if seen++; seen > maxLookedAt {
			break
		}
		switch _, err := c.Blob.Stat(ctx, entry.Key); {
		case errors.Is(err, aloft.ErrNotFound):
			return fmt.Sprintf("its object %s is missing", entry.Key.URI()), nil
		case errors.Is(err, aloft.ErrConflict):
			return fmt.Sprintf("its object %s is not what was written", entry.Key.URI()), nil
		case err != nil:
			return "", err
		}
	}
	if seen == 0 && !c.emptyFolder(key) {
		return fmt.Sprintf("its object %s is missing", key.URI()), nil
	}
	return "", nil
}

// emptyFolder says whether there is a folder without files: an output may be one, and a listing does not show it.
func (c *Catalog) emptyFolder(key blob.Key) bool {
	local, ok := c.Blob.(blob.Local)
	if !ok {
		return false
	}
	info, err := os.Lstat(local.Path(key))
	return err == nil && info.IsDir()
}
