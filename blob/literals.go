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

// Literals keeps literal maps that are too large for a row as objects named by their content. So writing the same map again
// changes nothing, or mends an object that was damaged.
type Literals struct{ Store Store }

// WriteLiterals returns the map with its reference: by value up to aloft.MaxInlineLiterals, else as an object that is
// durable when it returns. The digest is that of the map in deterministic protobuf. A map that would take more than
// aloft.MaxDecodedBytes of memory when it is read back is aloft.ErrExhausted. The map in memory may take less: it can share a
// value that it holds many times, and the map that is read back cannot.
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
	// Overwrite, since an object under this name may be damaged: when a cached result is found damaged, it is computed again, and
	// the same outputs have the same name.
	if _, err := l.Store.Put(ctx, key, bytes.NewReader(encoded), PutOptions{SHA256: "sha256:" + name, Overwrite: true}); err != nil {
		return nil, fmt.Errorf("write literals: %w", err)
	}
	ref.Uri = key.URI()
	return &aloftv1.Literals{Ref: ref}, nil
}

// ReadLiterals reads a map that is kept as an object, and checks its digest.
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
