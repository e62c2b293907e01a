package environment

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/removal"
)

// managed returns our own environment for the versions of an image, and makes it the first time. It is made in its final folder,
// since byte code and scripts hold the path they were made at. A mark file, which is written last and synced, says that the
// environment is complete; a folder without it was left by a crash, and is made again.
func (r *Resolver) managed(ctx context.Context, w imageVersions, making func(string)) (Environment, error) {
	flytekit := cmp.Or(w.flytekit, DefaultFlytekit)
	if r.config.DataDir == "" {
		return Environment{}, fmt.Errorf("make environment: no data folder is given: %w", aloft.ErrPrecondition)
	}
	base, err := r.nearestPython(w.python)
	if err != nil {
		return Environment{}, err
	}
	baseDescribed, err := r.describe(ctx, base)
	if baseDescribed.Python == "" {
		return Environment{}, err
	}
	minor := strings.Join(strings.SplitN(baseDescribed.Python, ".", 3)[:2], ".")
	root, err := filepath.Abs(filepath.Join(r.config.DataDir, "environment"))
	if err != nil {
		return Environment{}, fmt.Errorf("make environment: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return Environment{}, fmt.Errorf("make environment: %w", err)
	}
	dir := filepath.Join(root, "py"+minor+"-flytekit-"+flytekit)
	mark, interpreter := filepath.Join(dir, "aloft.json"), filepath.Join(dir, "bin", "python")
	if _, err := os.Stat(mark); err == nil {
		return r.describe(ctx, interpreter)
	}
	if making != nil {
		making(fmt.Sprintf("its Python environment is being made (Python %s, flytekit %s), once for all tasks, since %s", minor, flytekit, time.Now().UTC().Format(time.TimeOnly+" UTC")))
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return Environment{}, fmt.Errorf("make environment %s: %w", dir, err)
	}
	defer unlock()
	if _, err := os.Stat(mark); err == nil { // another process or attempt has made it meanwhile
		return r.describe(ctx, interpreter)
	}
	if err := removal.All(ctx, dir); err != nil {
		return Environment{}, fmt.Errorf("make environment: remove what a crash left: %w", err)
	}
	r.config.Logger.Info("making a Python environment; this happens once", "dir", dir, "python", baseDescribed.Python, "flytekit", flytekit)
	for _, argv := range r.recipe(base, dir, interpreter, "flytekit=="+flytekit) {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(append([]string{}, r.config.Env...), "UV_PYTHON_DOWNLOADS=never", "PYTHONDONTWRITEBYTECODE=", "PIP_DISABLE_PIP_VERSION_CHECK=1")
		var output bytes.Buffer
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Run(); err != nil {
			_ = removal.All(context.WithoutCancel(ctx), dir)
			return Environment{}, fmt.Errorf("make environment: `%s` did not work (%w: %s): give a Python that has flytekit with --python: %w",
				strings.Join(argv, " "), err, lastLine(output.String()), aloft.ErrUnavailable)
		}
	}
	e, err := r.describe(ctx, interpreter)
	if err != nil {
		_ = removal.All(context.WithoutCancel(ctx), dir)
		return Environment{}, fmt.Errorf("make environment: %w", err)
	}
	if err := writeMark(mark, e); err != nil {
		return Environment{}, fmt.Errorf("make environment: %w", err)
	}
	return e, nil
}

// recipe are the commands that make an environment: with uv if there is one, which is fifteen times as fast, else with pip. Both
// compile byte code: without it each start of a task would take a second longer.
func (r *Resolver) recipe(base, dir, interpreter, requirement string) [][]string {
	var uv []string
	if found := r.programs("uv"); len(found) > 0 && r.runs(found[0], "--version") {
		uv = []string{found[0]}
	} else if r.runs(base, "-m", "uv", "--version") {
		uv = []string{base, "-m", "uv"}
	}
	if uv != nil {
		with := func(args ...string) []string { return append(append([]string{}, uv...), args...) }
		return [][]string{
			with("venv", "--quiet", "--python", base, dir),
			with("pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter, requirement),
		}
	}
	return [][]string{
		{base, "-m", "venv", dir},
		{interpreter, "-m", "pip", "install", "--quiet", "--compile", requirement},
	}
}

// runs says whether a command runs without an error.
func (r *Resolver) runs(argv ...string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), r.patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = r.config.Env
	return cmd.Run() == nil
}

// nearestPython finds the interpreter on this machine whose version is closest to the wanted one: python3.11 itself, else one of a
// neighbouring version, else python3 of any version.
func (r *Resolver) nearestPython(version string) (string, error) {
	want := 0
	if _, minor, ok := strings.Cut(version, "."); ok {
		want, _ = strconv.Atoi(minor)
	}
	best, distance := "", math.MaxInt
	if want > 0 {
		for minor := 9; minor < 40; minor++ {
			away := max(minor-want, want-minor)
			if away >= distance {
				continue
			}
			for _, found := range r.programs("python3." + strconv.Itoa(minor)) {
				if r.runs(found, "-c", "") { // a shim may stand for an interpreter that is not installed
					best, distance = found, away
					break
				}
			}
		}
	}
	if best != "" {
		return best, nil
	}
	for _, found := range r.programs("python3") {
		if r.runs(found, "-c", "") {
			return found, nil
		}
	}
	return "", fmt.Errorf("no python3 on PATH: install Python 3.9 or newer, or give one that has flytekit with --python: %w", aloft.ErrPrecondition)
}

// writeMark writes the mark that an environment is complete.
func writeMark(path string, e Environment) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("mark as whole: %w", err)
	}
	file, err := os.Create(path + ".new")
	if err != nil {
		return fmt.Errorf("mark as whole: %w", err)
	}
	defer file.Close()
	if _, err := file.Write(b); err != nil {
		return fmt.Errorf("mark as whole: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("mark as whole: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("mark as whole: %w", err)
	}
	return nil
}

// lock takes the lock of a file, and waits for it until ctx ends.
func lock(ctx context.Context, path string) (func(), error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
