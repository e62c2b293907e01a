package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The committed code is what the pinned inputs give: nobody edited it, nobody forgot to generate after a change.
func TestRegeneratingChangesNothing(t *testing.T) {
	if os.Getenv("ALOFT_TEST_REGENERATE") == "" {
		t.Skip("set ALOFT_TEST_REGENERATE=1 to run the generator: it needs python3, a package index and a module proxy (make test does)")
	}
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := run(t.Context(), root, out, nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range []family{flyte, ours} {
		committed, fresh := generated(t, filepath.Join(root, f.folder)), generated(t, filepath.Join(out, f.folder))
		if len(committed) == 0 {
			t.Errorf("%s: no generated file is committed", f.folder)
		}
		for name, content := range fresh {
			if old, ok := committed[name]; !ok {
				t.Errorf("%s/%s: missing; run go generate ./idl", f.folder, name)
			} else if !bytes.Equal(old, content) {
				t.Errorf("%s/%s: differs from what the generator writes; run go generate ./idl", f.folder, name)
			}
		}
		for name := range committed {
			if _, ok := fresh[name]; !ok {
				t.Errorf("%s/%s: nothing generates it any more; run go generate ./idl", f.folder, name)
			}
		}
	}
}

func TestPlaceBringsAFolderUpToDateAndKeepsWhatIsWrittenByHand(t *testing.T) {
	t.Parallel()
	folder, fresh := t.TempDir(), t.TempDir()
	write(t, folder, "v1/a.proto", "by hand")
	write(t, folder, "v1/doc.go", "by hand")
	write(t, folder, "v1/old.pb.go", "nothing generates this now")
	write(t, folder, "v1/a.pb.go", "old")
	write(t, fresh, "v1/a.pb.go", "new")
	write(t, fresh, "v1/v1connect/a.connect.go", "new")

	if err := place(folder, fresh); err != nil {
		t.Fatal(err)
	}

	want := map[string]string{
		"v1/a.proto": "by hand", "v1/doc.go": "by hand", "v1/a.pb.go": "new", "v1/v1connect/a.connect.go": "new",
	}
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(got) != content {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, content)
		}
	}
	if _, err := os.Stat(filepath.Join(folder, "v1/old.pb.go")); err == nil {
		t.Error("v1/old.pb.go is still there, though nothing generates it")
	}
}

func TestGoPackageIsTheFolderUnderIDL(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"flyteidl/core/types.proto":              module + "/idl/flyteidl/core;core",
		"flyteidl/plugins/kubeflow/mpi.proto":    module + "/idl/flyteidl/plugins/kubeflow;kubeflow",
		"flyteidl/datacatalog/datacatalog.proto": module + "/idl/flyteidl/datacatalog;datacatalog",
		"aloft/v1/run.proto":                     module + "/idl/aloft/v1;aloftv1",
	} {
		if got := goPackage(file); got != want {
			t.Errorf("goPackage(%q) = %q, want %q", file, got, want)
		}
	}
}

// A changed pin must not be served from the cache of an older one.
func TestPinsCoverEverythingThatDecidesTheOutput(t *testing.T) {
	t.Parallel()
	if changed := []plugin{{install: plugins[0].install + "-changed"}}; pins(changed) == pins(plugins[:1]) {
		t.Error("pins are the same although a plug-in's version changed")
	}
}

func generated(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isGenerated(file) {
			return err
		}
		name, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, folder, name, content string) {
	t.Helper()
	file := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
