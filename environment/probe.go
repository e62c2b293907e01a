package environment

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
)

// probe is what an interpreter said of itself, valid while the folders it named are as they were.
type probe struct {
	said   answer
	stamps []stamp
	env    Environment
}

type answer struct {
	Executable string   `json:"executable"`
	Version    string   `json:"version"`
	Platform   string   `json:"platform"`
	Path       []string `json:"path"`
	Sites      []string `json:"sites"`  // folders whose .pth files are read at each start, there or not
	Prefix     string   `json:"prefix"` // of the virtual environment
}

type stamp struct {
	path     string
	modified time.Time
	size     int64
}

const question = `import json, site, sys, sysconfig
sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
print(json.dumps({"executable": sys.executable, "version": ".".join(map(str, sys.version_info[:3])),
                  "platform": sysconfig.get_platform(), "path": sys.path, "sites": sites, "prefix": sys.prefix}))`

// describe asks an interpreter once; later calls look whether anything was installed or removed since.
func (r *Resolver) describe(ctx context.Context, interpreter string) (Environment, error) {
	r.mu.Lock()
	known := r.probes[interpreter]
	r.mu.Unlock()
	if known != nil && slices.Equal(known.stamps, stamps(interpreter, known.said)) {
		return known.env, known.env.check()
	}
	p := &probe{}
	asked, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	cmd := exec.CommandContext(asked, interpreter, "-c", question)
	cmd.WaitDelay = time.Second // something that it started may keep its output open
	cmd.Dir = "/"               // not some project's folder
	for _, variable := range r.config.Env {
		// A task does not get the server's PYTHONPATH, so the answer must not come from there.
		if !strings.HasPrefix(variable, "PYTHON") && !strings.HasPrefix(variable, "VIRTUAL_ENV=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && asked.Err() != nil && ctx.Err() == nil { // on a disk that does not answer, most likely
		return Environment{}, sentence(aloft.ErrUnavailable, "%s did not answer within %s: see whether it can be reached, or give another one with --python",
			interpreter, r.patience)
	}
	if err != nil {
		return Environment{}, sentence(aloft.ErrPrecondition, "%s cannot be run as a Python (%v: %s): give another one with --python",
			interpreter, err, lastLine(stderr.String()))
	}
	if err := json.Unmarshal(out, &p.said); err != nil {
		return Environment{}, sentence(aloft.ErrPrecondition, "%s did not answer as a Python does: give another one with --python", interpreter)
	}
	p.stamps = stamps(interpreter, p.said) // before the folders are read: a change meanwhile is seen next time
	p.env = Environment{
		Interpreter: interpreter, Python: p.said.Version, Platform: p.said.Platform, Packages: packages(p.said.Path),
		Site: siteFiles(p.said),
	}
	// A shim (pyenv, asdf) is not the interpreter, and its folder has not the environment's commands.
	if p.said.Executable != "" && executable(p.said.Executable) {
		p.env.Interpreter = p.said.Executable
	}
	for _, one := range p.env.Packages {
		if version, ok := strings.CutPrefix(one, "flytekit=="); ok {
			p.env.Flytekit = version
		}
	}
	p.env.Digest = digest(p.env)
	r.mu.Lock()
	r.probes[interpreter] = p
	r.mu.Unlock()
	return p.env, p.env.check()
}

func (e Environment) check() error {
	if e.Flytekit != "" {
		return nil
	}
	return sentence(aloft.ErrPrecondition, "%s (Python %s) has no flytekit: run `%[1]s -m pip install flytekit==%[3]s` (without pip: `uv pip install --python %[1]s flytekit==%[3]s`), or name another Python with --python",
		e.Interpreter, e.Python, DefaultFlytekit)
}

// stamps is what changes when a package is installed or removed, or when an interpreter would start otherwise: the folders
// of packages, the files that are read at each start, and the interpreter. What is not there is left out, so that it is
// noticed when it comes.
func stamps(interpreter string, said answer) []stamp {
	var all []stamp
	paths := slices.Concat([]string{interpreter, said.Executable}, said.Path, said.Sites, startFiles(said))
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if info, err := os.Stat(path); err == nil && path != "" {
			all = append(all, stamp{path, info.ModTime(), info.Size()})
		}
	}
	return all
}

// startFiles is the files that the site module reads, there or not.
func startFiles(said answer) []string {
	files := []string{filepath.Join(said.Prefix, "pyvenv.cfg")}
	for _, dir := range said.Sites {
		found, _ := filepath.Glob(filepath.Join(escape(dir), "*.pth"))
		files = append(files, found...)
	}
	for _, dir := range said.Path {
		if filepath.IsAbs(dir) {
			files = append(files, filepath.Join(dir, "sitecustomize.py"), filepath.Join(dir, "usercustomize.py"))
		}
	}
	return files
}

var globbing = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

func escape(path string) string { return globbing.Replace(path) }

// siteFiles is a line for each file that changes how the interpreter starts: its name and what of its content counts.
func siteFiles(said answer) []string {
	var lines []string
	for _, path := range startFiles(said) {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if filepath.Base(path) == "pyvenv.cfg" { // the rest is where it was made and by what
			for line := range strings.Lines(string(content)) {
				key, value, _ := strings.Cut(line, "=")
				if strings.TrimSpace(key) == "include-system-site-packages" && strings.TrimSpace(value) != "false" {
					lines = append(lines, "pyvenv.cfg "+strings.TrimSpace(line))
				}
			}
			continue
		}
		sum := sha256.Sum256(content)
		lines = append(lines, filepath.Base(path)+" "+hex.EncodeToString(sum[:8]))
	}
	slices.Sort(lines)
	return lines
}

// packages reads the names and versions of all distributions on the path; of two with one name the first is imported.
func packages(path []string) []string {
	found := map[string]string{}
	for _, dir := range path {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			var file string
			switch name := entry.Name(); {
			case strings.HasSuffix(name, ".dist-info"):
				file = filepath.Join(dir, name, "METADATA")
			case strings.HasSuffix(name, ".egg-info") && entry.IsDir():
				file = filepath.Join(dir, name, "PKG-INFO")
			case strings.HasSuffix(name, ".egg-info"):
				file = filepath.Join(dir, name)
			default:
				continue
			}
			name, version := metadata(file)
			if _, first := found[name]; name != "" && !first {
				found[name] = version
			}
		}
	}
	list := make([]string, 0, len(found))
	for name, version := range found {
		list = append(list, name+"=="+version)
	}
	slices.Sort(list)
	return list
}

var separators = regexp.MustCompile(`[-_.]+`)

func metadata(path string) (name, version string) {
	file, err := os.Open(path)
	if err != nil {
		return "", ""
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan() && (name == "" || version == ""); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			break // the header ends at the first empty line
		}
		switch strings.ToLower(key) {
		case "name":
			name = strings.ToLower(separators.ReplaceAllString(strings.TrimSpace(value), "-"))
		case "version":
			version = strings.TrimSpace(value)
		}
	}
	return name, version
}

func digest(e Environment) string {
	h := sha256.New()
	fmt.Fprintf(h, "python %s\nplatform %s\n", e.Python, e.Platform)
	for _, p := range e.Packages {
		fmt.Fprintln(h, p)
	}
	for _, line := range e.Site {
		fmt.Fprintln(h, "site "+line)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
