package api

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// maxLinkLife is the longest life of a link that a client may ask for, and the default.
const maxLinkLife = time.Hour

// CreateUploadLocation names where a client may put a file. The name is a function of the request alone, because flytekit
// mixes it into versions: equal code must get an equal name on each server, port and folder. A project that does not exist is no
// error here, because pyflyte would show it as a traceback: the call that registers the upload's code reports it.
func (s *dataProxyService) CreateUploadLocation(ctx context.Context, r *service.CreateUploadLocationRequest) (*service.CreateUploadLocationResponse, error) {
	var problems field.Problems
	if r.GetProject() == "" || r.GetDomain() == "" {
		problems.Add("project and domain are required parameters")
	}
	sum := r.GetContentMd5()
	if len(sum) == 0 && r.GetFilenameRoot() == "" {
		problems.Add("content_md5 or filename_root is a required parameter")
	}
	if len(sum) != 0 && len(sum) != 16 {
		problems.Add("invalid value for content_md5: it has %d bytes, an MD5 has 16", len(sum))
	}
	life, err := linkLifeOf(r.GetExpiresIn())
	problems.Include(err)
	prefix, filename := r.GetFilenameRoot(), r.GetFilename()
	if prefix == "" {
		prefix = base32.StdEncoding.EncodeToString(sum)
	}
	if filename == "" {
		filename = strings.ToLower(rand.Text())[:20]
	}
	key, err := blob.JoinKey("upload", r.GetProject(), r.GetDomain(), prefix, filename)
	if err != nil && !problems.Any() {
		problems.Include(err)
	}
	if err := problems.Err(); err != nil {
		return nil, registryError(fmt.Errorf("create upload location: %w", err))
	}
	if r.GetFilename() != "" && r.GetFilenameRoot() != "" {
		// The client chose the name, so there may be an object with other content under it.
		if err := s.mayUpload(ctx, key, sum); err != nil {
			return nil, err
		}
	}
	native, err := s.Renderer.Native(key.URI())
	if err != nil {
		return nil, err
	}
	grant := blob.Grant{Method: http.MethodPut, Key: key, Expires: s.Now().Add(life)}
	answer := &service.CreateUploadLocationResponse{NativeUrl: native, ExpiresAt: timestamppb.New(grant.Expires), Headers: map[string]string{}}
	if len(sum) == 16 {
		grant.ContentMD5 = sum
		answer.Headers["Content-MD5"] = blob.EncodeMD5(sum)
	}
	answer.SignedUrl = callerOf(ctx).base + s.Signer.Path(grant)
	return answer, nil
}

func (s *dataProxyService) mayUpload(ctx context.Context, key blob.Key, sum []byte) error {
	found, err := s.Blobs.Stat(ctx, key)
	switch {
	case errors.Is(err, aloft.ErrNotFound), errors.Is(err, aloft.ErrConflict): // no object, or a damaged one: the upload mends it
		return nil
	case err != nil:
		return fmt.Errorf("create upload location: %w", err)
	case string(found.MD5) != string(sum):
		return fmt.Errorf("file already exists at location [%s] with other content: use another filename_root: %w", key.URI(), aloft.ErrExists)
	}
	return nil
}

func linkLifeOf(d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return maxLinkLife, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 {
		return 0, errors.New("invalid value for expires_in: it must be a duration above 0")
	}
	if d.AsDuration() > maxLinkLife {
		return 0, fmt.Errorf("invalid value for expires_in: %s is above the limit of %s", d.AsDuration(), maxLinkLife)
	}
	return d.AsDuration(), nil
}

// CreateDownloadLocation links to one object.
func (s *dataProxyService) CreateDownloadLocation(ctx context.Context, r *service.CreateDownloadLocationRequest) (*service.CreateDownloadLocationResponse, error) {
	var problems field.Problems
	problems.Need("native_url", r.GetNativeUrl())
	life, err := linkLifeOf(r.GetExpiresIn())
	problems.Include(err)
	uri, err := s.Renderer.Canonical(r.GetNativeUrl())
	if err != nil || !strings.HasPrefix(uri, blob.Scheme) {
		problems.Add("invalid value for native_url: %q is not the location of an object of this server", aloft.Excerpt(r.GetNativeUrl()))
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	expires := s.Now().Add(life)
	link, err := s.Renderer.Link(uri, callerOf(ctx).base, expires)
	if err != nil {
		return nil, err
	}
	return &service.CreateDownloadLocationResponse{SignedUrl: link, ExpiresAt: timestamppb.New(expires)}, nil
}

// CreateDownloadLink links to the deck of a node.
func (s *dataProxyService) CreateDownloadLink(ctx context.Context, r *service.CreateDownloadLinkRequest) (*service.CreateDownloadLinkResponse, error) {
	var problems field.Problems
	if r.GetArtifactType() != service.ArtifactType_ARTIFACT_TYPE_DECK {
		problems.Add("invalid value for artifact_type: only ARTIFACT_TYPE_DECK can be linked to, got %s", r.GetArtifactType())
	}
	if r.GetNodeExecutionId() == nil {
		problems.Missing("node_execution_id")
	}
	life, err := linkLifeOf(r.GetExpiresIn())
	problems.Include(err)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	n, err := s.nodeOf(ctx, r.GetNodeExecutionId())
	if err != nil {
		return nil, err
	}
	links, err := s.deckLink(ctx, n, life)
	if err != nil {
		return nil, err
	}
	return &service.CreateDownloadLinkResponse{SignedUrl: links.SignedUrl, ExpiresAt: links.ExpiresAt, PreSignedUrls: links}, nil
}

func (a *API) deckLink(ctx context.Context, n *store.Node, life time.Duration) (*service.PreSignedURLs, error) {
	if n.DeckURI == "" {
		return nil, fmt.Errorf("deck of node %s of execution %s: %w: the task made none (enable_deck=True makes one)", n.ID, n.Execution, aloft.ErrNotFound)
	}
	expires := a.Now().Add(life)
	link, err := a.Renderer.Link(n.DeckURI, callerOf(ctx).base, expires)
	if err != nil {
		return nil, err
	}
	return &service.PreSignedURLs{SignedUrl: []string{link}, ExpiresAt: timestamppb.New(expires)}, nil
}

var dataURL = regexp.MustCompile(`^flyte://v1/([a-zA-Z0-9_-]+)/([a-zA-Z0-9_-]+)/([a-zA-Z0-9_-]+)/([a-zA-Z0-9_-]+)(?:/(\d+))?/([iod])(?:/([a-zA-Z0-9_-]+))?$`)

// GetData reads a flyte:// location (flyteURL): inputs, outputs or the deck of a node or an attempt, or one of its values.
func (s *dataProxyService) GetData(ctx context.Context, r *service.GetDataRequest) (*service.GetDataResponse, error) {
	match := dataURL.FindStringSubmatch(r.GetFlyteUrl())
	if match == nil {
		return nil, fmt.Errorf("%w: flyte_url %q is not of the form flyte://v1/<project>/<domain>/<execution>/<node>[/<attempt>]/<i, o or d>[/<name>]", aloft.ErrInvalid, aloft.Excerpt(r.GetFlyteUrl()))
	}
	id, node := aloft.ExecutionID{Project: match[1], Domain: match[2], Name: match[3]}, aloft.NodeID(match[4])
	attempt, what, name := match[5], match[6], match[7]
	if what == "d" && (attempt != "" || name != "") {
		return nil, fmt.Errorf("%w: flyte_url %q: a deck belongs to a node, not to an attempt or a value", aloft.ErrInvalid, aloft.Excerpt(r.GetFlyteUrl()))
	}
	n, err := s.node(ctx, id, node)
	if err != nil {
		return nil, err
	}
	if what == "d" {
		links, err := s.deckLink(ctx, n, maxLinkLife)
		if err != nil {
			return nil, err
		}
		return &service.GetDataResponse{Data: &service.GetDataResponse_PreSignedUrls{PreSignedUrls: links}}, nil
	}
	inputs, outputs := n.Inputs, n.Outputs
	if attempt != "" {
		number, err := strconv.ParseUint(attempt, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: flyte_url %q: %s is no attempt", aloft.ErrInvalid, aloft.Excerpt(r.GetFlyteUrl()), attempt)
		}
		t, err := s.attempt(ctx, aloft.AttemptID{Execution: id, Node: node, Attempt: uint32(number)})
		if err != nil {
			return nil, err
		}
		if inputs, outputs, err = s.attemptLiterals(ctx, t); err != nil {
			return nil, err
		}
	}
	if what == "o" {
		return s.data(ctx, outputs, name, r.GetFlyteUrl())
	}
	return s.data(ctx, inputs, name, r.GetFlyteUrl())
}

func (s *dataProxyService) data(ctx context.Context, kept *aloftv1.Literals, name, url string) (*service.GetDataResponse, error) {
	m, err := s.literals(ctx, kept)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if name == "" {
		s.render(ctx, m)
		return &service.GetDataResponse{Data: &service.GetDataResponse_LiteralMap{LiteralMap: m}}, nil
	}
	value, ok := m.GetLiterals()[name]
	if !ok {
		return nil, fmt.Errorf("value %s at %s: %w", name, url, aloft.ErrNotFound)
	}
	s.render(ctx, &core.LiteralMap{Literals: map[string]*core.Literal{name: value}})
	return &service.GetDataResponse{Data: &service.GetDataResponse_Literal{Literal: value}}, nil
}
