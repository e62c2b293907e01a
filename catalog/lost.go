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
		if problem, err := c.check(ctx, key); problem != "" || err != nil {
			return problem, err
		}
	}
	return "", nil
}

// referredTo are the objects of ours that values refer to, sorted. A string that is a value by itself may be no location at all:
// it alone refers to nothing.
func referredTo(values *core.LiteralMap) []blob.Key {
	references := literal.References(values, blob.KeyOfText)
	maps.DeleteFunc(references, func(_ blob.Key, kind literal.ReferenceKind) bool { return kind == literal.InText })
	return slices.Sorted(maps.Keys(references))
}

// check asks the blob store whether what is at a key is what was stored there. The same answer decides whether a task is
// given it: what Lost lets pass is no lost input.
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
