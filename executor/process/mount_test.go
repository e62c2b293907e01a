//go:build linux

package process_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a task of root leaves mounted in its folders, where the server sees it too, is not what it left.
func TestWhatATaskMountsInItsFoldersIsNotRemovedWithThem(t *testing.T) {
	t.Parallel()
	enter := fmt.Sprintf("nsenter -t %d -m ", os.Getpid()) // where the supervisor and we see the mounts
	if output, err := exec.CommandContext(t.Context(), "sh", "-c", enter+"unshare -m true").CombinedOutput(); err != nil {
		t.Skipf("this user mounts nothing: %v: %s", err, output)
	}
	for name, script := range map[string]string{
		"in-temp":   `mkdir $TMPDIR/m; mount "$FROM" $TMPDIR/m`,
		"over-temp": `mount "$FROM" $TMPDIR`,
		"in-work":   `mkdir m; mount "$FROM" "$PWD/m"`,
		"over-work": `mount "$FROM" "$PWD"`,
		"fails":     `mkdir $TMPDIR/m; mount "$FROM" $TMPDIR/m; exit 3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.open(t, noPython{}, w.blob)
			t.Cleanup(func() { // before the test's own folder is removed
				b, _ := os.ReadFile("/proc/self/mountinfo")
				for line := range strings.Lines(string(b)) {
					if at := strings.Fields(line)[4]; strings.HasPrefix(at, w.dir) {
						t.Errorf("%s is still mounted", at)
						_ = exec.CommandContext(context.Background(), "umount", "-l", at).Run()
					}
				}
			})
			precious := w.file(name)
			kept := filepath.Join(precious, "folder", "file")
			if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(kept, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			job := shell(name, "FROM="+precious+"; set -e; mount() { "+enter+`mount --bind "$1" "$2"; }; `+script)
			o := w.run(t, b, job)
			if failed := o.GetFailure() != nil; failed != (name == "fails") {
				t.Fatalf("got %v", o)
			}
			if err := b.Forget(t.Context(), job); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(kept); err != nil {
				t.Errorf("behind the mount: %v", err)
			}
			if left, err := os.ReadDir(filepath.Join(w.data, "attempts")); err != nil || len(left) > 0 {
				t.Errorf("still there: %v %v", left, err)
			}
		})
	}
}
