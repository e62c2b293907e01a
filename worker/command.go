package worker

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
)

// markVariable is in the environment of every process of an attempt, so that the process can be found in any session and under
// any parent.
const markVariable = "ALOFT_ATTEMPT_MARK"

// command is what a spec means: the program to run and its variables. A warm and a cold start run the same command, so that both
// give the same result.
type command struct {
	argv   []string          // argv[0] is a name to be looked up, or a path
	env    map[string]string // all variables
	python bool              // argv[0] is one of flytekit's entry points that a warm worker knows
	cold   string            // why the command cannot run in a warm child; empty: it can
}

// plan makes the command of a spec, or an error with everything that is wrong with the spec. It reads neither disk nor environment.
func plan(spec Spec, mark string) (command, error) {
	var wrong []string
	if spec.AttemptID == "" {
		wrong = append(wrong, "no attempt id")
	}
	if size := len(spec.AttemptID) + len(spec.Token) + len(spec.Environment.Digest); size > maxIDs {
		wrong = append(wrong, fmt.Sprintf("attempt id, token and digest of the environment have %d bytes, more than %d", size, maxIDs))
	}
	if len(spec.Argv) == 0 || spec.Argv[0] == "" {
		wrong = append(wrong, "no command line")
	}
	for _, path := range []struct{ name, value string }{
		{"work_dir", spec.WorkDir}, {"temp_dir", spec.TempDir}, {"stdout", spec.Stdout}, {"stderr", spec.Stderr},
		{"output_dir", spec.OutputDir}, {"code_dir", spec.CodeDir}, {"interpreter", spec.Environment.Interpreter},
	} {
		if path.value != "" && !filepath.IsAbs(path.value) {
			wrong = append(wrong, fmt.Sprintf("%s %q is not an absolute path", path.name, path.value))
		}
	}
	if spec.WorkDir == "" {
		wrong = append(wrong, "no work_dir")
	}
	if !slices.Contains([]Mode{"", ModeAuto, ModeWarm, ModeCold}, spec.Mode) {
		wrong = append(wrong, fmt.Sprintf("mode %q is none of auto, warm, cold", spec.Mode))
	}
	if spec.MemoryLimit < 0 {
		wrong = append(wrong, "memory_limit is negative")
	}
	for name, value := range spec.Env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			wrong = append(wrong, fmt.Sprintf("environment variable %q cannot be set", shortened(name)))
		}
	}
	for _, arg := range spec.Argv {
		if strings.ContainsRune(arg, 0) {
			wrong = append(wrong, fmt.Sprintf("argument %q has a zero byte", shortened(arg)))
		}
	}

	c := command{argv: spec.Argv, env: maps.Clone(spec.Env)}
	if c.env == nil {
		c.env = map[string]string{}
	}
	c.env[markVariable] = mark
	if spec.TempDir != "" {
		c.env["TMPDIR"] = spec.TempDir
	}
	if spec.Environment.Interpreter != "" {
		c.env["PATH"] = withFirst(filepath.Dir(spec.Environment.Interpreter), c.env["PATH"])
	}
	code := spec.CodeDir
	if len(spec.Argv) > 0 && filepath.Base(spec.Argv[0]) == "pyflyte-fast-execute" {
		inner, download, err := fastExecute(spec.Argv[1:])
		if err != nil {
			wrong = append(wrong, err.Error())
		} else if download && code == "" {
			wrong = append(wrong, "pyflyte-fast-execute with an archive, but no code_dir it was unpacked to")
		} else {
			if code == "" {
				code = spec.WorkDir
			}
			c.argv = inner
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return command{}, fmt.Errorf("start attempt %q: %s: %w", spec.AttemptID, strings.Join(wrong, "; "), aloft.ErrInvalid)
	}
	if code != "" {
		if path := c.env["PYTHONPATH"]; path != "" {
			c.env["PYTHONPATH"] = path + string(os.PathListSeparator) + code
		} else {
			c.env["PYTHONPATH"] = code
		}
	}
	switch name := filepath.Base(c.argv[0]); {
	case name != "pyflyte-execute" && name != "pyflyte-map-execute":
		c.cold = fmt.Sprintf("%s is not an entry point of flytekit", name)
	case spec.Environment.Interpreter == "":
		c.cold = "no interpreter is given"
	default:
		c.python = true
		c.cold = coldVariable(c.env)
	}
	return c, nil
}

// fastExecute does what pyflyte-fast-execute does, without its download and without its second interpreter: the inner
// command line, with the two arguments that a dynamic task needs to register its children with the same archive.
func fastExecute(args []string) (inner []string, download bool, err error) {
	options := map[string]string{}
	for len(args) > 0 && args[0] != "--" && strings.HasPrefix(args[0], "--") {
		name, value, found := strings.Cut(args[0], "=")
		if !found {
			if len(args) < 2 {
				return nil, false, fmt.Errorf("pyflyte-fast-execute: option %s has no value", name)
			}
			value, args = args[1], args[1:]
		}
		if name != "--additional-distribution" && name != "--dest-dir" {
			return nil, false, fmt.Errorf("pyflyte-fast-execute: unknown option %s", name)
		}
		options[name], args = value, args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return nil, false, fmt.Errorf("pyflyte-fast-execute: no command line to run")
	}
	archive, download := options["--additional-distribution"]
	for _, arg := range args {
		if arg == "--resolver" && download {
			dest := options["--dest-dir"]
			if dest == "" {
				dest = "."
			}
			inner = append(inner, "--dynamic-addl-distro", archive, "--dynamic-dest-dir", dest)
		}
		inner = append(inner, arg)
	}
	return inner, download, nil
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// withFirst is a PATH that begins with a folder.
func withFirst(dir, path string) string {
	if path == "" {
		path = defaultPath
	}
	if path == dir || strings.HasPrefix(path, dir+string(os.PathListSeparator)) {
		return path
	}
	return dir + string(os.PathListSeparator) + path
}

// environ are the variables as a process gets them, sorted.
func (c command) environ() []string {
	list := make([]string, 0, len(c.env))
	for name, value := range c.env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

// withoutScript is the program of flytekit's console scripts, for environments that have none installed. Its first argument is the
// name of the console script. A warm worker is given the program, so that its children run the same.
const withoutScript = "import sys; from flytekit.bin.entrypoint import execute_task_cmd as execute, map_execute_task_cmd as map_execute; " +
	"sys.argv[0] = sys.argv.pop(1); sys.exit((map_execute if 'map' in sys.argv[0] else execute)())"

// executable is the file to run and its arguments, for a fresh process. flytekit's entry points are run by the
// environment's interpreter, unbuffered, so that what a killed task has printed is not lost and can be followed; any
// other program is looked up on the task's own PATH.
func (c command) executable(spec Spec) (path string, argv []string, err error) {
	if interpreter := spec.Environment.Interpreter; c.python {
		script := filepath.Join(filepath.Dir(interpreter), filepath.Base(c.argv[0]))
		if _, err := os.Stat(script); err == nil {
			return interpreter, append([]string{interpreter, "-u", script}, c.argv[1:]...), nil
		}
		return interpreter, append([]string{interpreter, "-u", "-c", withoutScript, filepath.Base(c.argv[0])}, c.argv[1:]...), nil
	}
	name := c.argv[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(spec.WorkDir, name)
		}
		return name, c.argv, nil
	}
	path = c.env["PATH"]
	if path == "" {
		path = defaultPath
	}
	for _, dir := range filepath.SplitList(path) {
		candidate := filepath.Join(dir, name)
		if info, err := os.Stat(candidate); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return candidate, c.argv, nil
		}
	}
	return "", nil, fmt.Errorf("command %s is not on PATH (%s)", name, path)
}
