package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
)

// unwritable answers with a text that cannot be encoded.
type unwritable struct{ grpc.ClientConnInterface }

func (unwritable) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	reply.(*admin.Projects).Projects = []*admin.Project{{Name: "\xff"}} //nolint:forcetypeassert // nothing else is asked for
	return nil
}

// An error of the marshaller was UNKNOWN, which flytekit takes for a request to log in, and was not logged.
func TestAnAnswerThatCannotBeWrittenIsInternalWithAnIDInTheLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	rest, err := newGateway(t.Context(), unwritable{}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	rest.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/projects", nil))
	var status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &status); err != nil {
		t.Fatalf("%v: %s", err, answer.Body)
	}
	id, of, ok := strings.Cut(strings.TrimPrefix(status.Message, "internal error "), " in ")
	if answer.Code != http.StatusInternalServerError || status.Code != 13 || !ok || !strings.HasPrefix(of, "flyteidl.service.AdminService/ListProjects: ") {
		t.Errorf("got %d %s", answer.Code, answer.Body)
	}
	if !strings.Contains(log.String(), "error_id="+id) || !strings.Contains(log.String(), "invalid UTF-8") {
		t.Errorf("error %q is not in the log: %s", id, log.String())
	}
}
