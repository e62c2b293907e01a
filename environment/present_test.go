package environment

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/aloft-dev/aloft"
)

func TestPresentIsWhatIsThereAndMakesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sub := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bare := fakePython(t, sub("a"), "python3", "3.12.1", nil)
	full := fakePython(t, sub("b"), "python3", "3.11.7", map[string]string{"flytekit": "1.16.31"})
	data := filepath.Join(dir, "data")

	r := New(Config{DataDir: data, Path: filepath.Dir(bare)})
	if e, err := r.Present(t.Context()); !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("no flytekit: got %+v, %v", e, err)
	}
	r = New(Config{DataDir: data, Path: filepath.Dir(bare) + ":" + filepath.Dir(full)})
	if e, err := r.Present(t.Context()); err != nil || e.Interpreter != full {
		t.Errorf("on PATH: got %+v, %v, want %s", e, err, full)
	}
	r = New(Config{DataDir: data, Path: filepath.Dir(bare), Python: full})
	if e, err := r.Present(t.Context()); err != nil || e.Interpreter != full {
		t.Errorf("given: got %+v, %v, want %s", e, err, full)
	}
	if _, err := os.Stat(filepath.Join(data, "environment")); !os.IsNotExist(err) {
		t.Errorf("something was made: %v", err)
	}
}
