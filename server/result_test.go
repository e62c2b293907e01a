package server

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/datacatalog"
)

func TestResultsAreListedRemovedAndPinned(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	d := s.createDataset("flyte_task-kept")
	for i, name := range []string{"r1", "r2", "r3"} {
		a := artifact(name, d, int64(i))
		a.Tags = []*datacatalog.Tag{{Name: "t" + name}}
		s.createArtifact(a)
	}
	list := func(r *aloftv1.ListResultsRequest) (ids []string) {
		t.Helper()
		for {
			answer, err := s.result.ListResults(t.Context(), r)
			s.ok(err)
			for _, one := range answer.GetResults() {
				ids = append(ids, one.GetId())
			}
			if r.Token = answer.GetToken(); r.GetToken() == "" {
				return ids
			}
		}
	}
	if got := list(&aloftv1.ListResultsRequest{Task: "kept", Limit: 2}); !slices.Equal(got, []string{"r3", "r2", "r1"}) {
		t.Errorf("listed %v, want the latest first", got)
	}
	if got := list(&aloftv1.ListResultsRequest{Project: "flytesnacks", Domain: "staging"}); got != nil {
		t.Errorf("of another domain: %v", got)
	}
	_, err := s.result.RemoveResults(t.Context(), &aloftv1.RemoveResultsRequest{Ids: []string{"r1", "nothing", "neither"}})
	s.wantCode(err, connect.CodeNotFound, "nothing, neither", "aloft cache ls")
	for _, want := range []uint32{1, 0} {
		answer, err := s.result.RemoveResults(t.Context(), &aloftv1.RemoveResultsRequest{Ids: []string{"r2"}, Reason: "wrong labels"})
		s.ok(err)
		if answer.GetRemoved() != want {
			t.Errorf("removed %d, want %d", answer.GetRemoved(), want)
		}
	}
	_, err = s.byTag(d, "tr2")
	s.wantCode(err, connect.CodeNotFound)
	_, err = s.byID(d, "r2")
	s.wantCode(err, connect.CodeNotFound, "wrong labels")
	if got := list(&aloftv1.ListResultsRequest{Task: "kept"}); !slices.Equal(got, []string{"r3", "r1"}) {
		t.Errorf("after a removal: %v", got)
	}
	if got := list(&aloftv1.ListResultsRequest{Task: "kept", Gone: true}); !slices.Equal(got, []string{"r3", "r2", "r1"}) {
		t.Errorf("with those that are gone: %v", got)
	}
	pinned, err := s.result.PinResults(t.Context(), &aloftv1.PinResultsRequest{Ids: []string{"r1", "r3"}})
	s.ok(err)
	if pinned.GetChanged() != 2 {
		t.Errorf("pinned %d, want 2", pinned.GetChanged())
	}
	// As JSON over HTTP, which is how scripts ask.
	response, err := http.Post("http://"+s.Address+"/aloft.v1.ResultService/ListResults", "application/json", strings.NewReader(`{"task": "kept", "gone": true}`))
	s.ok(err)
	body, err := io.ReadAll(response.Body)
	s.ok(err)
	_ = response.Body.Close()
	answer := &aloftv1.ListResultsResponse{}
	s.ok(protojson.Unmarshal(body, answer))
	r3, r2 := answer.GetResults()[0], answer.GetResults()[1]
	if !r3.GetPinned() || r2.GetPinned() || r2.GetGoneReason() != "wrong labels" || r3.GetSize() == 0 || r3.GetTag() != "tr3" {
		t.Errorf("in JSON: %s", body)
	}
}

func TestANodeIsNamedByItsIDOrItsNameAndThoseThatAreMeantAreTold(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	s.registerChain("named", 2)
	e := s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "named"), map[string]*core.Literal{"x": integer(1)}))
	s.wait(e)
	explain := func(e *core.WorkflowExecutionIdentifier, node string) (*aloftv1.ExplainCacheResponse, error) {
		return s.result.ExplainCache(t.Context(), &aloftv1.ExplainCacheRequest{Id: e, Node: node})
	}
	answer, err := explain(e, "n1")
	s.ok(err)
	if answer.GetNode() != "n1" || !strings.HasPrefix(answer.GetSummary(), "not cached") {
		t.Errorf("explained: %v", answer)
	}
	_, err = explain(e, "named")
	s.wantCode(err, connect.CodeInvalidArgument, "n0 (named), n1 (named)")
	_, err = explain(e, "n7")
	s.wantCode(err, connect.CodeNotFound, `no node "n7"; it has n0 (named), n1 (named)`)
	_, err = explain(&core.WorkflowExecutionIdentifier{Project: "flytesnacks", Domain: "development", Name: "none"}, "n0")
	s.wantCode(err, connect.CodeNotFound, "none")
	_, err = explain(nil, "")
	s.wantCode(err, connect.CodeInvalidArgument, "missing id", "missing node")
	s.registerChain("alone", 1)
	e = s.create(execute(id(core.ResourceType_LAUNCH_PLAN, "alone"), map[string]*core.Literal{"x": integer(1)}))
	s.wait(e)
	if answer, err = explain(e, "alone"); err != nil || answer.GetNode() != "n0" {
		t.Errorf("by its name: %v, %v", answer, err)
	}
}

func TestAllMistakesOfARequestForResultsAreToldAtOnce(t *testing.T) {
	t.Parallel()
	s := newCatalog(t)
	_, err := s.result.ListResults(t.Context(), &aloftv1.ListResultsRequest{Limit: 5000, Token: "x", Execution: &core.WorkflowExecutionIdentifier{Project: "p"}})
	s.wantCode(err, connect.CodeInvalidArgument, "limit: 5000", "token", "missing domain", "missing name")
	_, err = s.result.RemoveResults(t.Context(), &aloftv1.RemoveResultsRequest{Reason: strings.Repeat("v", 10<<10)})
	s.wantCode(err, connect.CodeInvalidArgument, "missing ids", "reason: it has 10240 bytes")
	_, err = s.result.PinResults(t.Context(), &aloftv1.PinResultsRequest{})
	s.wantCode(err, connect.CodeInvalidArgument, "missing ids")
}
