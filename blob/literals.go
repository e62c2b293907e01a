package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/weight"
)

// Literals keeps literal maps that are too large for a row as objects named by their content, so that writing the same
// map again, by whoever, changes nothing, and mends an object that was damaged.
type Literals struct{ Store Store }

// WriteLiterals returns the map with its reference: by value up to aloft.MaxInlineLiterals, else as an object that is
// durable when it returns. The digest is that of the map in deterministic protobuf. A map that would take more than
// aloft.MaxDecodedBytes of memory for each who reads it is aloft.ErrExhausted: it may have shared here what it names often.
func (l Literals) WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error) {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode literals: %w: %w", aloft.ErrInvalid, err)
	}
	if int64(len(encoded)) > aloft.MaxDecodedBytes/weight.Most {
		if _, err := weight.Protobuf(m.ProtoReflect().Descriptor(), encoded); err != nil {
			return nil, fmt.Errorf("keep literals: %w", err)
		}
	}
	digest := sha256.Sum256(encoded)
	ref := &aloftv1.LiteralRef{Digest: digest[:], Size: int64(len(encoded))}
	if len(encoded) <= aloft.MaxInlineLiterals {
		return &aloftv1.Literals{Ref: ref, Value: m}, nil
	}
	name := hex.EncodeToString(digest[:])
	key := Key("literals/" + name[:2] + "/" + name)
	// An object that is there may have been damaged since: a cached result that was found to be so is computed again, and
	// would find the same damage under the same name.
	if _, err := l.Store.Put(ctx, key, bytes.NewReader(encoded), PutOptions{SHA256: "sha256:" + name, Overwrite: true}); err != nil {
		return nil, fmt.Errorf("write literals: %w", err)
	}
	ref.Uri = key.URI()
	return &aloftv1.Literals{Ref: ref}, nil
}

// ReadLiterals reads a map that is an object, and checks that it is the one referred to.
func (l Literals) ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error) {
	key, err := ParseURI(ref.GetUri())
	if err != nil {
		return nil, err
	}
	encoded, err := ReadAll(ctx, l.Store, key, max(ref.GetSize(), 0))
	if err != nil {
		return nil, fmt.Errorf("read literals: %w", err)
	}
	if digest := sha256.Sum256(encoded); !bytes.Equal(digest[:], ref.GetDigest()) {
		return nil, fmt.Errorf("read literals: %w: object %s has digest %x, recorded was %x", aloft.ErrConflict, key, digest, ref.GetDigest())
	}
	m := &core.LiteralMap{}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return nil, fmt.Errorf("read literals of %s: %w: %w", key, aloft.ErrConflict, err)
	}
	return m, nil
}
