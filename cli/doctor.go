package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

func newDoctor(defaults Defaults) *cobra.Command {
	command := &cobra.Command{
		Use:   "doctor",
		Short: "Check the server, this machine and its Python, and say what to do",
		Long: `Check what a run needs: a server that answers, a Python with flytekit, memory limits, a room for tasks.

Tasks run as processes of the server's user: isolated against accidents, not against attackers.
The exit code is 1 if something has to be done.

With -o json: what the server says of itself (aloft.v1.GetServerInfoResponse; nothing if it does not
answer), and findings, a list of {"level": "ok", "note" or "to do", "text": …}.`,
		Args: cobra.NoArgs,
	}
	c := flags(command, defaults)
	command.RunE = func(command *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(command.Context(), 30*time.Second)
		defer cancel()
		info, err := c.info.GetServerInfo(ctx, &aloftv1.GetServerInfoRequest{})
		d := &diagnosis{out: command.OutOrStdout()}
		if c.output == "json" {
			d.out = io.Discard
		}
		d.server(c, info, err)
		d.python(ctx, info)
		d.machine()
		d.access(info)
		if c.output == "json" {
			if err := printJSONWith(command.OutOrStdout(), info, map[string]any{"findings": d.findings}); err != nil {
				return err
			}
		}
		if d.problems > 0 {
			return &ExitError{Code: 1}
		}
		return nil
	}
	return command
}

// manySlots is more slots than a configuration states: from there on, slots are no limit and are not shown.
const manySlots = 100_000

// diagnosis collects findings and prints each of them at once.
type diagnosis struct {
	out      io.Writer
	findings []finding
	problems int
}

// finding is a sentence of a diagnosis, as -o json has it.
type finding struct {
	Level string `json:"level"` // ok, note or to do
	Text  string `json:"text"`
}

func (d *diagnosis) ok(format string, args ...any)   { d.say("ok", "ok    ", format, args...) }
func (d *diagnosis) note(format string, args ...any) { d.say("note", "note  ", format, args...) }
func (d *diagnosis) problem(format string, args ...any) {
	d.problems++
	d.say("to do", "TO DO ", format, args...)
}

func (d *diagnosis) say(level, mark, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	d.findings = append(d.findings, finding{level, strings.TrimSpace(text)})
	fmt.Fprintln(d.out, mark+text)
}

func (d *diagnosis) server(c *client, info *aloftv1.GetServerInfoResponse, err error) {
	if err != nil {
		d.problem("server: %v", c.explain(err))
		return
	}
	d.ok("server: aloft %s at %s, up for %s", info.GetVersion(), c.server, took(time.Since(info.GetStartedAt().AsTime())))
	if info.GetCounts() == nil { // the database cannot be read; the reason follows with the services that are away
		d.note("data: %s", info.GetDatabase())
	} else {
		d.ok("data: %s; executions: %d, running: %d", info.GetDatabase(), info.GetCounts().GetExecutions(), info.GetCounts().GetRunning())
	}
	if stuck := info.GetCounts().GetStuck(); stuck > 0 {
		d.problem("executions that are stuck: %d; nothing will ever move them. That is a bug of ours, please report it", stuck)
	}
	if counts := info.GetCounts(); counts.GetWaiting() > 0 {
		d.note("executions that wait for something outside of them: %d (waits in all: %d)", counts.GetWaiting(), counts.GetWaits())
		for _, w := range info.GetWaits() {
			d.note("  %s %s", aloft.ExecutionIDOf(w.GetId()), waitText(w.GetReason()))
		}
		if more := counts.GetWaiting() - int64(len(info.GetWaits())); more > 0 {
			d.note("  and %d more", more)
		}
	}
	for _, s := range info.GetAway() {
		d.problem("%s is away since %s, what needs it waits and goes on by itself: %s", s.GetName(), s.GetAwaySince().AsTime().Format(time.RFC3339), s.GetReason())
	}
	for _, e := range info.GetExecutors() {
		slots := fmt.Sprintf("%d attempts at once", e.GetSlots())
		if e.GetSlots() >= manySlots {
			slots = "any number of attempts"
		}
		d.ok("executor %s: %g CPU, %d MiB, %s; %d running, %d waiting", e.GetKind(), e.GetCpu(), e.GetMemory()>>20, slots, e.GetRunning(), e.GetWaiting())
	}
	limit := func(d *durationpb.Duration) string {
		if d == nil {
			return "none"
		}
		return took(d.AsDuration())
	}
	d.ok("limits: attempts of tasks without a timeout %s, waiting for a start %s, executions %s",
		limit(info.GetTaskTimeout()), limit(info.GetQueueTimeout()), limit(info.GetExecutionTimeout()))
	if len(info.GetExecutors()) == 0 && info.GetCounts() != nil {
		d.problem("no executor: tasks wait until there is one")
	}
	for _, left := range info.GetRemains() {
		d.problem("left over: %s", printable(left))
	}
	for _, e := range info.GetEnvironments() {
		d.ok("environment %s (%s): %s, %d packages; %s", e.GetInterpreter(), e.GetKind(), e.GetPlatform(), e.GetPackages(), e.GetReason())
	}
}

// python reports the interpreter of tasks. If no server answers, it looks for an interpreter on this machine.
func (d *diagnosis) python(ctx context.Context, info *aloftv1.GetServerInfoResponse) {
	switch {
	case len(info.GetEnvironments()) > 0:
		return
	case info.GetPythonProblem() != "":
		d.problem("python: %s", info.GetPythonProblem())
		return
	case info.GetPython() != "":
		d.ok("python: the server runs tasks with %s", info.GetPython())
		return
	case info.GetVersion() != "": // the server answers, and has no interpreter yet; one of this machine would say nothing about it
		d.note("python: no python3 on the server's PATH has flytekit: the first task of an image has an environment made, which takes minutes; or name one with `aloft serve --python PATH`")
		return
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		d.problem("python: there is no python3 on PATH; install one, or name it with `aloft serve --python PATH`")
		return
	}
	output, err := exec.CommandContext(ctx, python, "-c", "import importlib.metadata as m; print(m.version('flytekit'))").CombinedOutput()
	if err != nil {
		d.problem("python: %s has no flytekit; run `%[1]s -m pip install flytekit` (without pip: `uv pip install --python %[1]s flytekit`), or name another with `aloft serve --python PATH`", python)
		return
	}
	d.ok("python: %s with flytekit %s", python, strings.TrimSpace(string(output)))
}

func (d *diagnosis) machine() {
	if runtime.GOOS != "linux" {
		d.note("this is %s: every task is a fresh interpreter (about a second); on Linux tasks start from a warm one (about 20 ms)", runtime.GOOS)
	} else if how, enforced := memoryLimits(); enforced {
		d.ok("memory limits: enforced by %s", how)
	} else {
		d.note("memory limits: sampled a few times a second, because no control group can be written here")
	}
}

// access reports who may run commands and read data, as far as this machine can tell.
func (d *diagnosis) access(info *aloftv1.GetServerInfoResponse) {
	switch mounts := info.GetStoreMounts(); mounts {
	case "yes":
		d.ok("stored objects: mounted read-only for tasks")
	case "":
	default:
		d.note("stored objects: tasks that go looking for them can change them, which is noticed before they are used again; this system lets the server not mount them read-only (%s)", mounts)
	}
	d.note("isolation: tasks are processes of the server's user, which is no security boundary: they can read and write its data folder and use its port")
	host, _, err := net.SplitHostPort(info.GetListen())
	if ip := net.ParseIP(host); err == nil && (host == "localhost" || ip != nil && ip.IsLoopback()) {
		d.note("access: there is no sign-in; every program and user of the server's machine may run commands through it")
	} else if err == nil {
		d.note("access: there is no sign-in; all who reach %s may run commands on the server's machine", info.GetListen())
	}
	folder, err := os.Stat(info.GetDataDir())
	if err != nil {
		return // the data folder is on another machine, or of another user
	}
	if folder.Mode().Perm()&0o077 != 0 {
		d.problem("data: other users can read %s; run `chmod 700 %s`, or start the server as its owner", info.GetDataDir(), info.GetDataDir())
	}
	if owner, ok := folder.Sys().(*syscall.Stat_t); ok && owner.Uid == 0 {
		d.note("root: the server's data belongs to root, so it and its tasks run as root, most likely: tasks can change this machine and look into the server; better start it as an ordinary user")
	}
}

// memoryLimits says how limits of tasks are enforced on this machine.
func memoryLimits() (how string, enforced bool) {
	for _, group := range []struct{ path, how string }{
		{"/sys/fs/cgroup/cgroup.subtree_control", "control groups (version 2)"},
		{"/sys/fs/cgroup/memory/cgroup.procs", "control groups (version 1)"},
	} {
		if f, err := os.OpenFile(group.path, os.O_WRONLY, 0); err == nil {
			f.Close()
			return group.how, true
		}
	}
	return "", false
}
