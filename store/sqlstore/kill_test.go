package sqlstore_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/sqlstore/postgrestest"
	"github.com/aloft-dev/aloft/store/storetest"
)

const childVariable = "ALOFT_TEST_SQLSTORE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		fmt.Fprintln(os.Stderr, child(path)) // it comes back only with an error
		os.Exit(1)
	}
	if url := os.Getenv(pausedVariable); url != "" {
		fmt.Fprintln(os.Stderr, paused(url))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

const writers = 4

// at names a database by its file or URL.
func at(place string) sqlstore.Options {
	if sqlstore.IsPostgres(place) {
		return sqlstore.Options{URL: place}
	}
	return sqlstore.Options{Path: place}
}

// child commits without end and says what was acknowledged, a line for each: execution and sequence.
func child(path string) error {
	ctx := context.Background()
	s, err := sqlstore.Open(ctx, at(path))
	if err != nil {
		return err
	}
	leases, err := s.AcquireShards(ctx, "child", now, time.Hour)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error)
	for range writers {
		go func() {
			for {
				e := benchExecution(fmt.Sprintf("e%d", rand.Uint64()))
				if err := s.CreateExecution(ctx, e, benchCreate()); err != nil {
					failed <- err
				}
				for seq := int64(1); seq <= 20; seq++ {
					step := benchStep(e, leases, seq)
					for i := range 5 {
						id := aloft.NodeID(fmt.Sprintf("n%d-%d", seq, i))
						step.Nodes = append(step.Nodes, &store.Node{ID: id, Phase: core.NodeExecution_SUCCEEDED, Outputs: small()})
					}
					if err := s.Commit(ctx, []*store.Step{step})[0]; err != nil {
						failed <- err
					}
					mu.Lock()
					fmt.Println(e.ID.Name, seq)
					mu.Unlock()
				}
			}
		}()
	}
	return <-failed
}

func TestWhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		whatWasAcknowledgedSurvivesKill9(t, filepath.Join(t.TempDir(), "aloft.db"))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		whatWasAcknowledgedSurvivesKill9(t, postgrestest.Database(t))
	})
}

func whatWasAcknowledgedSurvivesKill9(t *testing.T, path string) {
	acknowledged := make(map[string]int64)
	for range 8 {
		until := 1 + rand.IntN(150)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var name string
			var seq int64
			if _, err := fmt.Sscan(lines.Text(), &name, &seq); err != nil {
				t.Fatalf("the child said %q", lines.Text())
			}
			acknowledged[name] = seq
			if n == until { // lines that it has written before it dies are still read: those commits were acknowledged too
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}

		s, err := sqlstore.Open(t.Context(), at(path))
		if err != nil {
			t.Fatal(err)
		}
		for name, seq := range acknowledged {
			e, err := s.GetExecution(t.Context(), aloft.ExecutionID{Project: "flytesnacks", Domain: "development", Name: name})
			if err != nil {
				t.Fatalf("an acknowledged execution is lost: %v", err)
			}
			_, journal, err := storetest.Load(t.Context(), s, e.Key)
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(journal)) < seq {
				t.Fatalf("%s: %d commits were acknowledged and %d are there", name, seq, len(journal))
			}
			nodes, err := s.ListNodes(t.Context(), e.ID, "", true, store.Query{})
			if err != nil || len(nodes) != 5*len(journal) {
				t.Fatalf("%s: %d commits of 5 nodes left %d nodes (%v)", name, len(journal), len(nodes), err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) == 0 {
		t.Fatal("nothing was acknowledged: the test has tested nothing")
	}
}
