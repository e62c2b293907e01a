package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/catalog"
	"github.com/aloft-dev/aloft/idl/flyteidl/cacheservice"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// cacheService serves Flyte's newer interface to the same results: a value under one key. The key of a result of the engine
// is "project/domain/name/version/tag" of its dataset, each part escaped as in a URL. Any other key is one that a client made
// up: such results are in the dataset keyDataset.
type cacheService struct{ *API }

// maxCacheKey is the longest key, in bytes: five texts of the data catalog, each letter escaped.
const maxCacheKey = 4096

// keyDataset is the name of the dataset for keys that clients made up. It has no project, unlike all datasets of the data catalog.
const keyDataset = "cache_service"

// sourceKey holds the source_identifier of a client's result among its metadata.
const sourceKey = "aloft/source_identifier"

// Get reads a result. NOT_FOUND is a miss.
func (s *cacheService) Get(ctx context.Context, r *cacheservice.GetCacheRequest) (*cacheservice.GetCacheResponse, error) {
	e, err := s.find(ctx, r.GetKey())
	if err != nil {
		return nil, fmt.Errorf("get cache: %w", err)
	}
	out := &cacheservice.CachedOutput{Metadata: &cacheservice.Metadata{
		KeyMap: &cacheservice.KeyMapMetadata{Values: maps.Clone(e.Metadata)}, CreatedAt: timestamppb.New(e.CreatedAt), LastUpdatedAt: timestamppb.New(e.CreatedAt),
	}}
	if text, ok := e.Metadata[sourceKey]; ok {
		delete(out.Metadata.KeyMap.Values, sourceKey)
		out.Metadata.SourceIdentifier = &core.Identifier{}
		if err := protojson.Unmarshal([]byte(text), out.Metadata.SourceIdentifier); err != nil {
			return nil, fmt.Errorf("get cache: read source identifier of %s: %w", e.ID, err)
		}
	} else if e.Key != nil {
		out.Metadata.SourceIdentifier = catalog.Task(e)
	}
	values, link, err := s.inline(ctx, e.Outputs)
	if err != nil {
		return nil, fmt.Errorf("get cache: read result %s: %w", e.ID, err)
	}
	out.Output = &cacheservice.CachedOutput_OutputLiterals{OutputLiterals: values}
	if link.GetUrl() != "" {
		out.Output = &cacheservice.CachedOutput_OutputUri{OutputUri: link.GetUrl()}
	}
	return &cacheservice.GetCacheResponse{Output: out}, nil
}

// Put adds a result. ALREADY_EXISTS if the key has a result, unless the request says overwrite.
func (s *cacheService) Put(ctx context.Context, r *cacheservice.PutCacheRequest) (*cacheservice.PutCacheResponse, error) {
	var problems field.Problems
	id := cacheID(&problems, r.GetKey())
	given := r.GetOutput().GetMetadata()
	catalogMetadata(&problems, "output.metadata.key_map", given.GetKeyMap().GetValues())
	e := &store.Result{ResultID: id, ID: newResultID(), Metadata: maps.Clone(given.GetKeyMap().GetValues()), CreatedAt: s.Now()}
	if source := given.GetSourceIdentifier(); proto.Size(source) > maxCatalogKeys {
		problems.Add("invalid value for output.metadata.source_identifier: it has %d bytes, the limit is %d", proto.Size(source), maxCatalogKeys)
	} else if source != nil {
		text, err := protojson.Marshal(source)
		problems.Include(err)
		if e.Metadata == nil {
			e.Metadata = map[string]string{}
		}
		e.Metadata[sourceKey] = string(text)
	}
	var data *core.LiteralMap
	switch out := r.GetOutput().GetOutput().(type) {
	case *cacheservice.CachedOutput_OutputLiterals:
		data = proto.CloneOf(out.OutputLiterals)
	case *cacheservice.CachedOutput_OutputUri:
		var err error
		data, err = s.literalsAt(ctx, out.OutputUri)
		problems.Include(err)
	default:
		problems.Add("missing output.output_literals or output.output_uri")
	}
	if err := s.completeResult(ctx, &problems, e, data); err != nil {
		return nil, fmt.Errorf("put cache: %w", err)
	}
	have, err := s.Store.PutResult(ctx, e, r.GetOverwrite())
	if err != nil {
		return nil, fmt.Errorf("put cache %s: %w", aloft.Excerpt(r.GetKey()), err)
	}
	if have.ID != e.ID {
		return nil, fmt.Errorf("put cache %s: the key has a result, of %s; overwrite replaces it: %w", aloft.Excerpt(r.GetKey()), have.CreatedAt.UTC().Format("2006-01-02 15:04:05"), aloft.ErrExists)
	}
	return &cacheservice.PutCacheResponse{}, nil
}

// literalsAt reads a literal map that a client uploaded as an object.
func (s *cacheService) literalsAt(ctx context.Context, uri string) (*core.LiteralMap, error) {
	canonical, err := s.Renderer.Canonical(uri)
	if err != nil || !strings.HasPrefix(canonical, blob.Scheme) {
		return nil, fmt.Errorf("invalid value for output.output_uri: %q is not the location of an object of this server", aloft.Excerpt(uri))
	}
	key, _, err := blob.KeyOfURI(canonical)
	if err != nil {
		return nil, err
	}
	encoded, err := blob.ReadAll(ctx, s.Blobs, key, aloft.MaxMessageBytes)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, fmt.Errorf("invalid value for output.output_uri: there is no object %s: upload it first", canonical)
	}
	if err != nil {
		return nil, err
	}
	m := &core.LiteralMap{}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return nil, fmt.Errorf("invalid value for output.output_uri: %s is no literal map: %w", canonical, err)
	}
	return m, nil
}

// Delete makes the result of a key gone.
func (s *cacheService) Delete(ctx context.Context, r *cacheservice.DeleteCacheRequest) (*cacheservice.DeleteCacheResponse, error) {
	e, err := s.find(ctx, r.GetKey())
	if err != nil {
		return nil, fmt.Errorf("delete cache: %w", err)
	}
	if _, err := s.Store.RemoveResults(ctx, []string{e.ID}, "removed through CacheService", s.Now()); err != nil {
		return nil, fmt.Errorf("delete cache %s: %w", aloft.Excerpt(r.GetKey()), err)
	}
	return &cacheservice.DeleteCacheResponse{}, nil
}

func (s *cacheService) GetOrExtendReservation(ctx context.Context, r *cacheservice.GetOrExtendReservationRequest) (*cacheservice.GetOrExtendReservationResponse, error) {
	var problems field.Problems
	id := cacheID(&problems, r.GetKey())
	have, err := s.reserve(ctx, &problems, id, r.GetOwnerId(), r.GetHeartbeatInterval())
	if err != nil {
		return nil, fmt.Errorf("reserve: %w", err)
	}
	return &cacheservice.GetOrExtendReservationResponse{Reservation: &cacheservice.Reservation{
		Key: r.GetKey(), OwnerId: have.Owner, HeartbeatInterval: durationpb.New(have.Heartbeat), ExpiresAt: timestamppb.New(have.Expires),
	}}, nil
}

// ReleaseReservation gives back a reservation of the owner. It succeeds also if the owner has none.
func (s *cacheService) ReleaseReservation(ctx context.Context, r *cacheservice.ReleaseReservationRequest) (*cacheservice.ReleaseReservationResponse, error) {
	var problems field.Problems
	id := cacheID(&problems, r.GetKey())
	if err := s.release(ctx, &problems, id, r.GetOwnerId()); err != nil {
		return nil, fmt.Errorf("release reservation: %w", err)
	}
	return &cacheservice.ReleaseReservationResponse{}, nil
}

func (s *cacheService) find(ctx context.Context, key string) (*store.Result, error) {
	var problems field.Problems
	id := cacheID(&problems, key)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	e, err := s.Store.FindResult(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, missingEntity("cached output", aloft.Excerpt(key))
	}
	return e, cmp.Or(err, unreadableResult(e))
}

// cacheID is the dataset and the tag that a key stands for.
func cacheID(problems *field.Problems, key string) store.ResultID {
	problems.TextUpTo(maxCacheKey, "key", key)
	own := store.ResultID{Name: keyDataset, Tag: key}
	parts := strings.Split(key, "/")
	if len(parts) != 5 {
		return own
	}
	for i, part := range parts {
		text, err := url.PathUnescape(part)
		if err != nil || text == "" || url.PathEscape(text) != part {
			return own
		}
		parts[i] = text
	}
	return store.ResultID{Project: parts[0], Domain: parts[1], Name: parts[2], Version: parts[3], Tag: parts[4]}
}
