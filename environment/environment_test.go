package environment

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
)

// fakePython is a program that answers as an interpreter with one folder of packages does, and counts its runs. Where it
// is asked to make a virtual environment it makes one whose packages are flytekit's.
func fakePython(t *testing.T, dir, name, version string, packages map[string]string) string {
	t.Helper()
	site := filepath.Join(dir, "site-"+name)
	install(t, site, packages)
	path := filepath.Join(dir, name)
	script := fmt.Sprintf(`#!/bin/sh
echo run >> %[1]s.runs
case "$*" in
*"-m uv"*) exit 1;;
*"-m venv"*) mkdir -p "$3/bin"; sed 's|%[2]s|'$3'/site|g' "$0" > "$3/bin/python"; chmod +x "$3/bin/python"; exit 0;;
*"-m pip install"*) [ -z "$FAIL" ] || { echo no network >&2; exit 1; }
  for last; do :; done; v=${last#flytekit==}; d=%[2]s/flytekit-$v.dist-info; mkdir -p $d; printf 'Name: flytekit\nVersion: %%s\n' $v > $d/METADATA; exit 0;;
esac
[ -z "$2" ] || echo '{"executable": "", "version": "%[3]s", "platform": "test-arm", "path": ["%[2]s"], "sites": ["%[2]s"], "prefix": "%[2]s"}'
`, path, site, version)
	writeProgram(t, path, script)
	return path
}

// writeProgram writes a program that is about to be run. A process that another test starts meanwhile would have the file open for
// writing until its own program begins, and what is open for writing is not run ("text file busy").
func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

func install(t *testing.T, site string, packages map[string]string) {
	t.Helper()
	for name, version := range packages {
		dir := filepath.Join(site, name+"-"+version+".dist-info")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		content := "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n\nName: not-this\n"
		if err := os.WriteFile(filepath.Join(dir, "METADATA"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	later := time.Now().Add(time.Hour)
	if len(packages) > 0 {
		_ = os.Chtimes(site, later, later)
	}
}

const image = "cr.flyte.org/flyteorg/flytekit:py3.11-1.16.31"

func TestGivenInterpreterGoesFirstAndTheDifferenceIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fakePython(t, dir, "python3", "3.11.2", map[string]string{"flytekit": "1.16.31"})
	given := fakePython(t, dir, "mine", "3.12.1", map[string]string{"flytekit": "1.15.0", "Zope.Interface": "5", "a_b": "1"})
	e, err := New(Config{DataDir: dir, Path: dir + ":/usr/bin:/bin", Python: given}).Resolve(context.Background(), Request{Image: image})
	if err != nil {
		t.Fatal(err)
	}
	if e.Kind != KindGiven || e.Interpreter != given || e.Flytekit != "1.15.0" || e.Platform != "test-arm" {
		t.Errorf("got %+v", e)
	}
	if want := []string{"a-b==1", "flytekit==1.15.0", "zope-interface==5"}; !slices.Equal(e.Packages, want) {
		t.Errorf("packages: got %v, want %v", e.Packages, want)
	}
	for _, want := range []string{"Python 3.12.1 instead of 3.11", "flytekit 1.15.0 instead of 1.16.31"} {
		if !strings.Contains(e.Reason, want) {
			t.Errorf("reason %q does not say %q", e.Reason, want)
		}
	}
}

func TestFirstPythonOnPathThatHasFlytekitIsTaken(t *testing.T) {
	t.Parallel()
	without, with := t.TempDir(), t.TempDir()
	fakePython(t, without, "python3", "3.11.2", nil)
	want := fakePython(t, with, "python3", "3.11.9", map[string]string{"flytekit": "1.16.31"})
	e, err := New(Config{DataDir: with, Path: without + ":" + with + ":/usr/bin:/bin"}).Resolve(context.Background(), Request{Image: image})
	if err != nil || e.Kind != KindPath || e.Interpreter != want || strings.Contains(e.Reason, "differs") {
		t.Errorf("got %+v, %v", e, err)
	}
}

func TestPythonWithoutFlytekitSaysTheWayOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := fakePython(t, dir, "python3", "3.11.2", nil)
	_, err := New(Config{DataDir: dir, Path: dir, Python: given}).Resolve(context.Background(), Request{})
	if !errors.Is(err, aloft.ErrPrecondition) || !strings.Contains(err.Error(), given+" -m pip install flytekit=="+DefaultFlytekit) {
		t.Errorf("got %v", err)
	}
	_, err = New(Config{DataDir: dir, Path: dir, Python: "/no/such/python"}).Resolve(context.Background(), Request{})
	if !errors.Is(err, aloft.ErrInvalid) || !strings.Contains(err.Error(), "/no/such/python is not a program") {
		t.Errorf("got %v", err)
	}
}

func TestKnownInterpreterIsAskedOnceUntilItsPackagesChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := fakePython(t, dir, "python3", "3.11.2", map[string]string{"flytekit": "1.16.31"})
	r := New(Config{DataDir: dir, Path: dir + ":/usr/bin:/bin", Python: given})
	digests := map[string]bool{}
	for range 5 {
		e, err := r.Resolve(context.Background(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		digests[e.Digest] = true
	}
	runs := func() int { b, _ := os.ReadFile(given + ".runs"); return strings.Count(string(b), "run") }
	if runs() != 1 || len(digests) != 1 {
		t.Errorf("asked %d times, digests %v", runs(), digests)
	}
	before, _ := r.Resolve(context.Background(), Request{})
	install(t, filepath.Join(dir, "site-python3"), map[string]string{"extra": "2"})
	after, err := r.Resolve(context.Background(), Request{})
	if err != nil || after.Digest == before.Digest {
		t.Errorf("digest did not change with a new package: %v, %v", after.Packages, err)
	}
	if err := Strict(before.Digest, before.Packages, before); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	if err := Strict("", nil, after); err != nil {
		t.Errorf("no expectation: %v", err)
	}
	if err := Strict(before.Digest, before.Packages, after); !errors.Is(err, aloft.ErrPrecondition) || !strings.Contains(err.Error(), "now extra==2") {
		t.Errorf("changed: got %v", err)
	}
}

// The files that Python's site module reads (.pth) are part of the environment, so that no warm worker outlives a change of them.
func TestWhatIsReadAtEachStartBelongsToTheDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	given := fakePython(t, dir, "python3", "3.11.2", map[string]string{"flytekit": "1.16.31"})
	site := filepath.Join(dir, "site-python3")
	r := New(Config{DataDir: dir, Path: dir + ":/usr/bin:/bin", Python: given})
	seen := map[string]string{}
	for _, change := range []struct{ name, file, content string }{
		{"nothing", "", ""},
		{"an editable install", "__editable__.mylib.pth", "/home/me/mylib\n"},
		{"the same file with another path", "__editable__.mylib.pth", "/home/me/theirs\n"},
		{"sitecustomize", "sitecustomize.py", "import sys\n"},
		{"packages of the system", "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = true\n"},
	} {
		if change.file != "" {
			if err := os.WriteFile(filepath.Join(site, change.file), []byte(change.content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		e, err := r.Resolve(context.Background(), Request{})
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[e.Digest]; ok {
			t.Errorf("%s: the digest is that of %s", change.name, before)
		}
		seen[e.Digest] = change.name
	}
	// The folder in which a virtual environment was made does not count.
	before, _ := r.Resolve(context.Background(), Request{})
	content := "home = /opt/python/bin\nversion = 3.11.2\ninclude-system-site-packages = true\n"
	if err := os.WriteFile(filepath.Join(site, "pyvenv.cfg"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if after, err := r.Resolve(context.Background(), Request{}); err != nil || after.Digest != before.Digest {
		t.Errorf("an environment at another place: got %v, %v, want the digest of %v", after.Site, err, before.Site)
	}
}

func TestManagedEnvironmentIsMadeOnceFromTheNearestPython(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	for name, version := range map[string]string{"python3.9": "3.9.1", "python3.12": "3.12.3", "python3": "3.9.1"} {
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		fakePython(t, bin, name, version, nil)
	}
	config := Config{DataDir: dir, Path: bin, Env: []string{"PATH=/usr/bin:/bin"}}
	var all sync.WaitGroup
	var told atomic.Int32
	making := func(text string) {
		told.Add(1)
		if want := "its Python environment is being made (Python 3.12, flytekit 1.16.31), once for all tasks, since "; !strings.HasPrefix(text, want) {
			t.Errorf("users are told %q", text)
		}
	}
	for range 4 {
		all.Go(func() {
			e, err := New(config).Resolve(context.Background(), Request{Image: image, Making: making})
			want := filepath.Join(dir, "environment", "py3.12-flytekit-1.16.31", "bin", "python")
			if err != nil || e.Kind != KindManaged || e.Interpreter != want || e.Flytekit != "1.16.31" ||
				!strings.Contains(e.Reason, "Python 3.12.3 instead of 3.11") {
				t.Errorf("got %+v, %v", e, err)
			}
		})
	}
	all.Wait()
	if told.Swap(0) == 0 {
		t.Error("no user is told that an environment is being made")
	}
	if _, err := New(config).Resolve(context.Background(), Request{Image: image, Making: making}); err != nil || told.Load() != 0 {
		t.Errorf("users are told that an environment is being made, and it is there; error %v", err)
	}
	other, err := New(config).Resolve(context.Background(), Request{Image: "python-env:mine"})
	if err != nil || other.Flytekit != DefaultFlytekit || !strings.Contains(other.Reason, "python-env:mine") {
		t.Errorf("unknown image: got %+v, %v", other, err)
	}
}

func TestManagedEnvironmentThatFailedIsNotUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fakePython(t, dir, "python3", "3.11.2", nil)
	config := Config{DataDir: dir, Path: dir, Env: []string{"PATH=/usr/bin:/bin", "FAIL=1"}}
	_, err := New(config).Resolve(context.Background(), Request{Image: image})
	if err == nil || !strings.Contains(err.Error(), "no network") || !strings.Contains(err.Error(), "--python") {
		t.Errorf("got %v", err)
	}
	// A crash leaves a folder without the mark.
	if err := os.MkdirAll(filepath.Join(dir, "environment", "py3.11-flytekit-1.16.31", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	config.Env = config.Env[:1]
	if e, err := New(config).Resolve(context.Background(), Request{Image: image}); err != nil || e.Flytekit != "1.16.31" {
		t.Errorf("after a failure: got %+v, %v", e, err)
	}
}

func TestImageNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]imageVersions{
		image: {"3.11", "1.16.31"}, "ghcr.io/flyteorg/flytekit:py3.9-v1.10.0": {"3.9", "1.10.0"},
		"flytekit:py3.12-1.16.0b1": {"3.12", "1.16.0b1"}, "": {}, "python-env:mine": {}, "localhost:30000/x:abc": {},
	} {
		if got := parseImage(name); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestRealInterpreterIsDescribed(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON is not set")
	}
	e, err := New(Config{DataDir: t.TempDir(), Python: python}).Resolve(context.Background(), Request{Image: image})
	if err != nil || e.Flytekit == "" || !strings.HasPrefix(e.Digest, "sha256:") || len(e.Packages) < 50 || e.Interpreter != python {
		t.Errorf("got %+v, %v", e, err)
	}
}
