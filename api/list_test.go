package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
)

// TestPagesAreCutByBytesAndTheirTokensGiveEverything is attack 13: a spec of another release that is too large for a page of a
// client breaks no list, and neither do many specs that are only large together.
func TestPagesAreCutByBytesAndTheirTokensGiveEverything(t *testing.T) {
	t.Parallel()
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: t.TempDir() + "/aloft.db"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	var want []string
	for i := range 40 {
		size := 400 << 10
		switch i {
		case 3:
			size = 17 << 20
		case 30:
			size = 10
		}
		name := fmt.Sprintf("e%02d", i)
		want = append(want, name)
		now := time.Unix(int64(i/2), 0) // two at a time
		if err := s.CreateExecution(t.Context(), &store.Execution{
			ID: aloft.ExecutionID{Project: "p", Domain: "d", Name: name}, Phase: core.WorkflowExecution_FAILED, CreatedAt: now, UpdatedAt: now,
			Spec: &admin.ExecutionSpec{LaunchPlan: &core.Identifier{Name: "wf"}, Annotations: &admin.Annotations{Values: map[string]string{"large": strings.Repeat("x", size)}}},
		}, &aloftv1.Inbox{}); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(want)
	admins := &adminService{API: &API{Config: Config{Store: s}}}
	for _, client := range []struct {
		agent string
		bytes int
		by    string
	}{{"grpc-go/1.62", aloft.MaxSmallPageBytes, ""}, {"grpc-python/1.71", aloft.MaxPageBytes, ""}, {"connect-go", aloft.MaxPageBytes, "execution_name"}} {
		ctx := context.WithValue(t.Context(), callerKey{}, caller{userAgent: client.agent})
		r := &admin.ResourceListRequest{Id: &admin.NamedEntityIdentifier{Project: "p", Domain: "d"}, Limit: 100_000}
		if client.by != "" {
			r.SortBy = &admin.Sort{Key: client.by}
		}
		var got []string
		pages, slim := 0, 0
		for ; pages < 100; pages++ {
			list, err := admins.ListExecutions(ctx, r)
			if err != nil {
				t.Fatal(err)
			}
			if size := proto.Size(list); size > client.bytes {
				t.Errorf("%s: a page of %d bytes, the limit is %d", client.agent, size, client.bytes)
			}
			for _, e := range list.GetExecutions() {
				got = append(got, e.GetId().GetName())
				if note := e.GetSpec().GetAnnotations().GetValues()["aloft/spec"]; note != "" {
					slim++
					if !strings.Contains(note, "17.0 MiB") || e.GetSpec().GetLaunchPlan().GetName() != "wf" {
						t.Errorf("%s: in the place of what is too large is %v", client.agent, e)
					}
				}
			}
			if r.Token = list.GetToken(); r.Token == "" {
				break
			}
		}
		if !slices.Equal(got, want) || slim != 1 {
			t.Errorf("%s: %d pages, %d slim rows: got %v", client.agent, pages, slim, got)
		}
	}
}

// TestTokensGoOnBehindARow, so that what comes or goes meanwhile neither hides a row nor shows one twice. Offsets stay.
func TestTokensGoOnBehindARow(t *testing.T) {
	t.Parallel()
	position := &store.Position{CreatedAt: time.Unix(5, 7), Key: 9}
	var problems field.Problems
	q := parseList(&problems, &admin.ResourceListRequest{Limit: 10, Token: positionToken(position)}, "", true)
	if problems.Any() || q.After == nil || !q.After.CreatedAt.Equal(position.CreatedAt) || q.After.Key != position.Key || q.Offset != 0 {
		t.Errorf("the token was read as %+v, %v", q, problems.Err())
	}
	if q := parseList(&problems, &admin.ResourceListRequest{Limit: 1 << 31, Token: "200"}, "", true); problems.Any() || q.Offset != 200 || q.Limit != aloft.MaxPageRows {
		t.Errorf("an offset was read as %+v, %v", q, problems.Err())
	}
	for _, token := range []string{"pxyz", "-1", "p", "x"} {
		var problems field.Problems
		if parseList(&problems, &admin.ResourceListRequest{Limit: 10, Token: token}, "", true); !problems.Any() {
			t.Errorf("token %q was taken", token)
		}
	}
}
