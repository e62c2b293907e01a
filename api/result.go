package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
)

// Results serves aloft.v1.ResultService: why a node was computed or taken from the cache, and which results there are.
type Results struct {
	Store interface {
		store.Queries
		store.Catalog
	}
	Now func() time.Time // nil: time.Now
}

const (
	defaultResultPage = 100
	maxResultPage     = 1000
	maxResultIDs      = 10_000
	maxReason         = 1000 // bytes
)

// ListResults lists results, the latest first.
func (s *Results) ListResults(ctx context.Context, r *aloftv1.ListResultsRequest) (*aloftv1.ListResultsResponse, error) {
	var problems field.Problems
	q := store.ResultQuery{Project: r.GetProject(), Domain: r.GetDomain(), Execution: r.GetExecution(), Gone: r.GetGone(), Limit: defaultResultPage}
	if r.GetTask() != "" {
		q.Name = catalog.ID(&aloftv1.CacheKey{Task: r.GetTask()}).Name
	}
	if e := r.GetExecution(); e != nil {
		problems.Execution(e)
	}
	if n := r.GetLimit(); n > maxResultPage {
		problems.Add("invalid value for limit: %d is above %d", n, maxResultPage)
	} else if n > 0 {
		q.Limit = int(n)
	}
	q.Offset = parseOffset(&problems, "token", r.GetToken())
	if err := problems.Err(); err != nil {
		return nil, fmt.Errorf("list results: %w", err)
	}
	rows, err := s.Store.ListResults(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("list results: %w", err)
	}
	answer := &aloftv1.ListResultsResponse{}
	for _, e := range rows {
		answer.Results = append(answer.Results, cachedResult(e))
	}
	if len(rows) == q.Limit {
		answer.Token = strconv.Itoa(q.Offset + len(rows))
	}
	return answer, nil
}

// RemoveResults makes results gone. If one of them does not exist, none is removed, and ErrNotFound names all that do not exist.
func (s *Results) RemoveResults(ctx context.Context, r *aloftv1.RemoveResultsRequest) (*aloftv1.RemoveResultsResponse, error) {
	var problems field.Problems
	if n := len(r.GetReason()); n > maxReason {
		problems.Add("invalid value for reason: it has %d bytes, the limit is %d", n, maxReason)
	}
	if err := s.known(ctx, &problems, r.GetIds()); err != nil {
		return nil, fmt.Errorf("remove results: %w", err)
	}
	reason := r.GetReason()
	if reason == "" {
		reason = "removed by a user"
	}
	n, err := s.Store.RemoveResults(ctx, r.GetIds(), reason, s.now())
	if err != nil {
		return nil, fmt.Errorf("remove results: %w", err)
	}
	return &aloftv1.RemoveResultsResponse{Removed: uint32(n)}, nil
}

// PinResults exempts results from the limits of age and size, or ends that. If one of them does not exist, none is changed, and
// ErrNotFound names all that do not exist.
func (s *Results) PinResults(ctx context.Context, r *aloftv1.PinResultsRequest) (*aloftv1.PinResultsResponse, error) {
	var problems field.Problems
	if err := s.known(ctx, &problems, r.GetIds()); err != nil {
		return nil, fmt.Errorf("pin results: %w", err)
	}
	n, err := s.Store.PinResults(ctx, r.GetIds(), !r.GetUnpin())
	if err != nil {
		return nil, fmt.Errorf("pin results: %w", err)
	}
	return &aloftv1.PinResultsResponse{Changed: uint32(n)}, nil
}

// known checks that there is a result for each id.
func (s *Results) known(ctx context.Context, problems *field.Problems, ids []string) error {
	if len(ids) == 0 {
		problems.Missing("ids")
	}
	if len(ids) > maxResultIDs {
		problems.Add("invalid value for ids: there are %d, the limit is %d", len(ids), maxResultIDs)
	}
	if problems.Any() {
		return problems.Err()
	}
	var missing []string
	for _, id := range ids {
		switch _, err := s.Store.GetResult(ctx, id); {
		case errors.Is(err, aloft.ErrNotFound):
			missing = append(missing, aloft.Excerpt(id))
		case err != nil:
			return err
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("there is no result %s; `aloft cache ls` lists them: %w", strings.Join(missing, ", "), aloft.ErrNotFound)
	}
	return nil
}

func (s *Results) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// findNode finds a node by its unique id, its id in the template, or its name. ErrNotFound lists the nodes of the execution;
// ErrInvalid lists the nodes that share the name.
func findNode(ctx context.Context, queries store.Queries, id aloft.ExecutionID, text string) (*store.Node, error) {
	n, err := queries.GetNode(ctx, id, aloft.NodeID(text))
	if err == nil {
		n.Execution = id
		return n, nil
	}
	if !errors.Is(err, aloft.ErrNotFound) {
		return nil, err
	}
	if _, err := queries.GetExecution(ctx, id); err != nil {
		return nil, err
	}
	all, err := queries.ListNodes(ctx, id, "", true, store.Query{Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("list nodes of %s: %w", id, err)
	}
	var names, meant []string
	var found aloft.NodeID
	for _, n := range all {
		if n.SpecNodeID == aloft.StartNode || n.SpecNodeID == aloft.EndNode {
			continue
		}
		name := string(n.ID)
		if n.Name != "" {
			name += " (" + n.Name + ")"
		}
		names = append(names, name)
		if n.SpecNodeID == text || n.Name == text {
			found, meant = n.ID, append(meant, name)
		}
	}
	switch len(meant) {
	case 0:
		return nil, fmt.Errorf("execution %s has no node %q; it has %s: %w", id, aloft.Excerpt(text), shortList(names), aloft.ErrNotFound)
	case 1:
		n, err := queries.GetNode(ctx, id, found)
		if err != nil {
			return nil, err
		}
		n.Execution = id
		return n, nil
	}
	return nil, fmt.Errorf("execution %s has several nodes %q: name one of %s: %w", id, aloft.Excerpt(text), shortList(meant), aloft.ErrInvalid)
}

// shortList names the first few of many nodes.
func shortList(names []string) string {
	const shown = 10
	if len(names) == 0 {
		return "none yet"
	}
	if len(names) > shown {
		return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", len(names)-shown)
	}
	return strings.Join(names, ", ")
}

func cachedResult(e *store.Result) *aloftv1.CachedResult {
	if e == nil {
		return nil
	}
	m := &aloftv1.CachedResult{
		Id: e.ID, Project: e.Project, Domain: e.Domain, Name: e.Name, Version: e.Version, Tag: e.Tag, Key: e.Key,
		CreatedAt: stamp(e.CreatedAt), UsedAt: stamp(e.UsedAt), Size: e.Size, Pinned: e.Pinned, GoneAt: stamp(e.GoneAt), GoneReason: e.GoneReason,
	}
	if err := unreadableResult(e); err != nil {
		m.Unreadable = err.Error()
	}
	if e.Source != (aloft.AttemptID{}) {
		m.Source = &core.TaskExecutionIdentifier{
			NodeExecutionId: &core.NodeExecutionIdentifier{NodeId: string(e.Source.Node), ExecutionId: e.Source.Execution.Proto()},
			RetryAttempt:    e.Source.Attempt,
		}
	}
	return m
}
