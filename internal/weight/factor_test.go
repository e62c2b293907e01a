package weight

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// TestCompiledWorkflowsTakeAboutWhatTheirSizeSays: the bounds of caches, in bytes, are only as good as this estimate.
func TestCompiledWorkflowsTakeAboutWhatTheirSizeSays(t *testing.T) { //nolint:paralleltest // the test measures the heap
	files, err := filepath.Glob("../../compiler/testdata/*.CompiledWorkflowClosure.textproto")
	if err != nil || len(files) < 10 {
		t.Fatalf("there are %d compiled workflows of flytekit's, %v", len(files), err)
	}
	var encodings [][]byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		m := new(core.CompiledWorkflowClosure)
		if err := prototext.Unmarshal(text, m); err != nil {
			t.Fatal(err)
		}
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		encodings = append(encodings, data)
	}
	const copies = 50
	kept := make([]*core.CompiledWorkflowClosure, 0, copies*len(encodings))
	var bytes, said int64
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range copies {
		for _, data := range encodings {
			m := new(core.CompiledWorkflowClosure)
			if err := proto.Unmarshal(data, m); err != nil {
				t.Fatal(err)
			}
			kept = append(kept, m)
			bytes += int64(len(data))
			said += Decoded(int64(len(data)))
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	took := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d workflows of %d bytes take %d, which is said to be %d", len(kept), bytes, took, said)
	if said < took/2 || said > 2*took {
		t.Errorf("%d bytes of workflows take %d bytes when they are decoded, and are counted for %d", bytes, took, said)
	}
}
