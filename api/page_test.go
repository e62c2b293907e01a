package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// faultyStore is a store whose reads fail with a given error.
type faultyStore struct {
	roomyStore
	fault error
}

func (s *faultyStore) GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error) {
	if s.fault != nil {
		return nil, s.fault
	}
	return s.roomyStore.GetExecution(ctx, id)
}

// A page waits for room and has errors like an answer of a call.
func TestAPageWaitsForRoomAndKeepsOurErrorsToItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool := room.NewPatientPool(64<<20, 5*time.Second)
		s := &faultyStore{roomyStore: roomyStore{pool: pool}}
		a := &API{Config: Config{Logger: slog.New(slog.DiscardHandler), Store: s, Now: time.Now}}
		handler := newIntake(pool, a.pageOf("execution", a.readExecutionPage))
		get := func() (int, string) {
			r := httptest.NewRequest(http.MethodGet, "/console/projects/p/domains/d/executions/e", nil)
			for _, name := range []string{"project", "domain", "name"} {
				r.SetPathValue(name, name)
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			text, err := io.ReadAll(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			return w.Code, string(text)
		}
		other := pool.Claim()
		if err := other.Take(t.Context(), pool.Largest()+room.Allowance-1000); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(300*time.Millisecond, other.Release)
		if code, text := get(); code != http.StatusOK {
			t.Errorf("with no room for 300 ms: %d %s, want the page", code, text)
		}
		s.fault = errors.New("scan column 7 of /home/x/aloft.db")
		if code, text := get(); code != http.StatusInternalServerError || strings.Contains(text, "column") || !strings.Contains(text, "internal error") {
			t.Errorf("an error of ours: %d %s, want an id of the log", code, text)
		}
		s.fault = aloft.ErrNotFound
		if code, text := get(); code != http.StatusNotFound || !strings.Contains(text, "project/domain/name") {
			t.Errorf("what is not there: %d %s, want 404 with its name", code, text)
		}
	})
}
