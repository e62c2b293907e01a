package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Bytecode that Python keeps beside its sources is no change. Of more changes than the kernel queues, one is seen.
func TestEachChangeOfAWatchedFolderIsSeen(t *testing.T) {
	t.Parallel()
	write := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, folder string)
		want   string // a part of the path; empty: no change is seen
	}{
		"nothing":                   {func(*testing.T, string) {}, ""},
		"a module":                  {func(t *testing.T, f string) { write(t, filepath.Join(f, "yaml.py")) }, "yaml.py"},
		"a module without a source": {func(t *testing.T, f string) { write(t, filepath.Join(f, "yaml.pyc")) }, "yaml.pyc"},
		"bytecode":                  {func(t *testing.T, f string) { write(t, filepath.Join(f, "__pycache__", "yaml.cpython-311.pyc.123")) }, ""},
		"a folder with bytecode":    {func(t *testing.T, f string) { _ = os.Remove(filepath.Join(f, "__pycache__")) }, ""},
		"more than is told": {func(t *testing.T, f string) {
			for i := range queued(t) + 100 {
				write(t, filepath.Join(f, "__pycache__", fmt.Sprint(i)))
			}
			write(t, filepath.Join(f, "yaml.py"))
		}, "more files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			cache := filepath.Join(folder, "__pycache__")
			if err := os.Mkdir(cache, 0o700); err != nil {
				t.Fatal(err)
			}
			c, err := watchFolders([]string{folder, cache})
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			test.change(t, folder)
			if got := c.firstChange(); (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("seen: %q, want %q", got, test.want)
			}
		})
	}
}

// queued is how many events the kernel keeps for a watcher.
func queued(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	n := 0
	if _, err2 := fmt.Sscan(string(text), &n); err != nil || err2 != nil || n > 1<<20 {
		t.Skipf("the kernel queues an unknown number of events, or too many to try: %v %v %d", err, err2, n)
	}
	return n
}
