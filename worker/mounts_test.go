//go:build linux

package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const shellSource = `
import os, subprocess
from flytekit import task

@task
def t(x: int) -> int:
    subprocess.run(["sh", "-c", os.environ["SCRIPT"]], check=True)
    try:
        open(os.environ["STORE"] + "/run/other/object", "a")
        print("CHANGED by open")
    except OSError:
        pass
    return x
`

// A task and its processes cannot change stored objects under any name; their own files they can change.
func TestATaskCannotChangeWhatIsReadOnlyForIt(t *testing.T) {
	t.Parallel()
	py := python(t)
	b := newBench(t)
	mounted := b.client.Hello().Mounts == "yes"
	if !mounted && os.Geteuid() == 0 {
		t.Logf("this machine does not let root make mount namespaces: %s", b.client.Hello().Mounts)
	}
	for _, mode := range []Mode{ModeWarm, ModeCold} {
		store := filepath.Join(b.dir, "store "+string(mode))
		object, mine := filepath.Join(store, "run", "other", "object"), filepath.Join(store, "run", "mine")
		b.write(object, "stored")
		b.write(filepath.Join(mine, "own"), "own")
		alias := filepath.Join(b.dir, "alias "+string(mode))
		if err := os.Symlink(store, alias); err != nil {
			t.Fatal(err)
		}
		var script strings.Builder
		for _, attack := range []string{
			"echo x > run/other/object", "echo x >> run/other/object", "rm run/other/object", "mv run/other/object run/mine/", "mv run/mine/own run/other/object",
			"mv run/other run/another", "rm -r run/other", "mkdir new", "ln run/other/object run/mine/linked", "ln -s /dev/null run/other/link", "chmod 777 run/other/object",
			"touch -t 200001010000 run/other/object", "truncate -s 0 run/other/object", "mkfifo run/other/fifo", "rmdir run/mine", "mv run/mine run/theirs",
			"cd run/other; rm object", "cd run/mine; rm ../other/object", "setsid sh -c 'rm run/other/object'", `rm "$ALIAS/run/other/object"`, "rm /proc/self/cwd/run/other/object",
		} {
			script.WriteString(`cd "$STORE"; if (` + attack + `) 2> /dev/null; then echo "CHANGED by ` + strings.ReplaceAll(attack, `"`, "") + "\"; fi\n")
		}
		if !mounted {
			script.Reset()
		}
		script.WriteString(`cd "$STORE/run/mine" && mkdir sub && mv own sub/ && echo new > sub/file && cat "$STORE/run/other/object"`)
		s := b.pythonSpec(py, shellSource, "t")
		s.Mode, s.ReadOnly, s.Writable = mode, []string{store}, []string{mine}
		s.Env["SCRIPT"], s.Env["STORE"], s.Env["ALIAS"] = script.String(), store, alias
		r := b.run(s)
		out := b.read(s.Stdout)
		if r.Mode != mode || r.Code != 0 || !strings.Contains(out, "stored") || mounted && strings.Contains(out, "CHANGED") {
			t.Errorf("%s: got %+v\n%s\n%s", mode, r, out, b.read(s.Stderr))
		}
		if got := b.read(object); mounted && got != "stored" {
			t.Errorf("%s: the object has %q", mode, got)
		}
		if got := b.read(filepath.Join(mine, "sub", "own")) + b.read(filepath.Join(mine, "sub", "file")); got != "ownnew\n" {
			t.Errorf("%s: it could not change its own: %q", mode, got)
		}
		for _, pid := range []int{os.Getpid(), b.client.Hello().PID} {
			if seen, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid)); strings.Contains(string(seen), b.dir) {
				t.Errorf("%s: its mounts are seen by process %d", mode, pid)
			}
		}
	}
}
