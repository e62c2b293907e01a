package process_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/blobtest"
	"github.com/aloft-dev/aloft/bundle"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/process"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// The first call to the blob store fails, then the second, and so on until there are no more; each of them before and after the
// store has done it. The attempt runs once each time and ends as if no call had failed.
func TestEachBlobCallOfAnAttemptFailsOnceAndNothingIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	given := w.put(t, "data.txt", strings.NewReader("given"))
	large := &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{
		Value: &core.Primitive_StringValue{StringValue: strings.Repeat("large ", aloft.MaxInlineLiterals/5)}}}}}}
	attempt := func(name string, plan func(blobtest.Call) blobtest.Fault) (*aloftv1.Outcome, *blobtest.Faulty) {
		faulty := &blobtest.Faulty{Store: w.blob, Plan: plan}
		job := shell(name, "", "made", "passed", "large")
		raw := w.blob.Path(blob.Key("raw/" + job.ID.RawOutputKey()))
		out := w.outputs(t, map[string]*core.Literal{"made": file(raw + "/made.txt"), "passed": file(w.blob.Path(given)), "large": large})
		job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"in": file(given.URI())}}
		job.Template.GetContainer().Command[2] = fmt.Sprintf(`set -e; echo $$ >> %s; mkdir -p {{.rawOutputDataPrefix}}; cat {{.inputs.in}} > {{.rawOutputDataPrefix}}/made.txt
			cp %s {{.outputPrefix}}/outputs.pb`, w.file(name+".starts"), out)
		return w.runThrough(t, w.open(t, noPython{}, faulty), job), faulty
	}
	clean, calls := attempt("clean", nil)
	if clean.GetOutputs().GetRef().GetUri() == "" || len(clean.GetObjects()) != 2 {
		t.Fatalf("outcome %v, want outputs that are an object and refer to two", clean)
	}
	if len(calls.Calls()) < 3 {
		t.Fatalf("%d calls to the blob store: %v", len(calls.Calls()), calls.Calls())
	}
	for n := range calls.Calls() {
		for _, mode := range []blobtest.Fault{blobtest.Before, blobtest.After} {
			name := fmt.Sprintf("a%d-%d", n+1, mode)
			o, faulty := attempt(name, blobtest.FailAt(n+1, mode))
			failed := faulty.Calls()[n]
			// Names of objects hold the attempt's; what is in them does not.
			if diff := cmp.Diff(contents(clean), contents(o), protocmp.Transform()); diff != "" {
				t.Errorf("%s %s failed: the outcome differs (-want +got):\n%s", failed.Op, failed.Key, diff)
			}
			if starts := w.pids(shell(name, "")); len(starts) != 1 {
				t.Errorf("%s %s failed: it was started %d times", failed.Op, failed.Key, len(starts))
			}
		}
	}
}

// contents are the digests of what an outcome refers to.
func contents(o *aloftv1.Outcome) map[string]int {
	all := map[string]int{}
	for _, object := range o.GetObjects() {
		all[object.GetDigest()]++
	}
	if o.GetOutputs() == nil {
		all[fmt.Sprint("no outputs: ", o.GetResult())]++
	}
	return all
}

// runThrough is run for a back end whose Start may fail with ErrUnavailable: it calls Start again, as an executor does.
func (w *world) runThrough(t *testing.T, b *backend, job *executor.Job) *aloftv1.Outcome {
	t.Helper()
	outcome := make(chan *aloftv1.Outcome, 1)
	w.watch(t, b, func(e executor.Event) {
		if e.Outcome != nil && e.Job.Key == job.Key {
			select {
			case outcome <- e.Outcome:
			default:
			}
		}
	}, job.ID)
	for {
		failure, err := b.Start(t.Context(), job)
		if errors.Is(err, aloft.ErrUnavailable) {
			continue
		}
		if err != nil || failure != nil {
			t.Fatalf("start: %v, %v", failure, err)
		}
		break
	}
	select {
	case o := <-outcome:
		return o
	case <-time.After(deadline):
		t.Fatal("it did not end")
		return nil
	}
}

func TestEachBlobCallForACopyOfTheCodeFailsOnceAndTheNextTryHasIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.upload(t, map[string]string{"data.txt": "old"})
	for n := 1; ; n++ {
		for _, mode := range []blobtest.Fault{blobtest.Before, blobtest.After} {
			faulty := &blobtest.Faulty{Store: w.blob, Plan: blobtest.FailAt(n, mode)}
			cache, err := bundle.NewCache(t.TempDir(), faulty, bundle.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			dst := t.TempDir()
			_, err = (process.Bundles{Cache: cache}).Copy(t.Context(), key.URI(), dst)
			if len(faulty.Calls()) < n {
				if n == 1 {
					t.Fatal("no call to the blob store was made")
				}
				return // every call has failed once
			}
			if !errors.Is(err, aloft.ErrUnavailable) {
				t.Errorf("call %d failed in mode %d and the copy says %v", n, mode, err)
			}
			if _, err := (process.Bundles{Cache: cache}).Copy(t.Context(), key.URI(), dst); err != nil {
				t.Fatalf("the next try: %v", err)
			}
			if got := read(t, filepath.Join(dst, "data.txt")); got != "old" {
				t.Errorf("the copy holds %q", got)
			}
		}
	}
}
