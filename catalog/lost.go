package catalog

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// Lost says which object of a node's outputs is missing, or is not what was stored; empty: none. It is called before a recovery
// takes over the outputs of a node. Unlike those of a result, these objects have no digests at hand: that an object was changed
// is known only where the blob store itself recorded what it stored. A blob store that cannot answer is an error.
func (c *Catalog) Lost(ctx context.Context, outputs *aloftv1.Literals) (problem string, err error) {
	values := outputs.GetValue()
	if ref := outputs.GetRef(); ref.GetUri() != "" {
		o := &aloftv1.ObjectDigest{Uri: ref.GetUri(), Digest: "sha256:" + hex.EncodeToString(ref.GetDigest()), Size: ref.GetSize()}
		if problem, err := c.verifyObject(ctx, o, true); problem != "" || err != nil {
			return problem, err
		}
		if values == nil {
			if values, err = (blob.Literals{Store: c.Blob}).ReadLiterals(ctx, ref); err != nil {
				return "", err
			}
		}
	}
	for _, key := range referredTo(values) {
		if problem, err := c.check(ctx, key); problem != "" || err != nil {
			return problem, err
		}
	}
	return "", nil
}

// referredTo are the objects in the blob store that values refer to, sorted. A string that is a value by itself may be no location
// at all, and counts as no reference.
func referredTo(values *core.LiteralMap) []blob.Key {
	references := literal.References(values, blob.KeyOfText)
	maps.DeleteFunc(references, func(_ blob.Key, kind literal.ReferenceKind) bool { return kind == literal.InText })
	return slices.Sorted(maps.Keys(references))
}

// check asks the blob store whether the object at a key is the one that was stored there. The same answer decides whether a task
// is given the object: an object that Lost lets pass is no lost input.
func (c *Catalog) check(ctx context.Context, key blob.Key) (problem string, err error) {
	switch err := c.Blob.Check(ctx, key); {
	case errors.Is(err, aloft.ErrNotFound):
		return fmt.Sprintf("its object %s is missing", key.URI()), nil
	case errors.Is(err, aloft.ErrConflict):
		return fmt.Sprintf("its object %s is not what was written (%v)", key.URI(), err), nil
	default:
		return "", err
	}
}
