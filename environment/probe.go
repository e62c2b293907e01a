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

// description is a cached answer of an interpreter about itself, valid while the stamps of its files are the same.
type description struct {
	info   pythonInfo
	stamps []fileStamp
	env    Environment
}

// pythonInfo is the output of infoScript.
type pythonInfo struct {
	Executable string   `json:"executable"`
	Version    string   `json:"version"`
	Platform   string   `json:"platform"`
	Path       []string `json:"path"`
	Sites      []string `json:"sites"`  // folders whose .pth files Python reads at each start; some may not exist
	Prefix     string   `json:"prefix"` // of the virtual environment
}

// fileStamp is the state of a file or folder, to tell whether it has changed.
type fileStamp struct {
	path     string
	modified time.Time
	size     int64
}

// infoScript prints what an interpreter knows of itself, as JSON.
const infoScript = `import json, site, sys, sysconfig
sites = site.getsitepackages() + ([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])
print(json.dumps({"executable": sys.executable, "version": ".".join(map(str, sys.version_info[:3])),
                  "platform": sysconfig.get_platform(), "path": sys.path, "sites": sites, "prefix": sys.prefix}))`

// describe describes the environment of an interpreter. It runs the interpreter once; a later call runs it again only if a package
// was installed or removed since.
func (r *Resolver) describe(ctx context.Context, interpreter string) (Environment, error) {
	r.mu.Lock()
	known := r.descriptions[interpreter]
	r.mu.Unlock()
	if known != nil && slices.Equal(known.stamps, stamps(interpreter, known.info)) {
		return known.env, known.env.check()
	}
	p := &description{}
	asked, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	cmd := exec.CommandContext(asked, interpreter, "-c", infoScript)
	cmd.WaitDelay = time.Second // a process that the interpreter started may keep the output open
	cmd.Dir = "/"               // a project's folder may have modules that Python would import
	for _, variable := range r.config.Env {
		// A task does not get the server's PYTHONPATH, so the answer must not come from there.
		if !strings.HasPrefix(variable, "PYTHON") && !strings.HasPrefix(variable, "VIRTUAL_ENV=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && asked.Err() != nil && ctx.Err() == nil { // most likely it is on a disk that does not answer
		return Environment{}, sentence(aloft.ErrUnavailable, "%s did not answer within %s: see whether it can be reached, or give another one with --python",
			interpreter, r.patience)
	}
	if err != nil {
		return Environment{}, sentence(aloft.ErrPrecondition, "%s cannot be run as a Python (%v: %s): give another one with --python",
			interpreter, err, lastLine(stderr.String()))
	}
	if err := json.Unmarshal(out, &p.info); err != nil {
		return Environment{}, sentence(aloft.ErrPrecondition, "%s did not answer as a Python does: give another one with --python", interpreter)
	}
	p.stamps = stamps(interpreter, p.info) // before the folders are read, so that the next call sees a change made meanwhile
	p.env = Environment{
		Interpreter: interpreter, Python: p.info.Version, Platform: p.info.Platform, Packages: packages(p.info.Path),
		Site: siteFiles(p.info),
	}
	// A shim (pyenv, asdf) is not the interpreter itself, and its folder does not hold the environment's commands.
	if p.info.Executable != "" && executable(p.info.Executable) {
		p.env.Interpreter = p.info.Executable
	}
	for _, one := range p.env.Packages {
		if version, ok := strings.CutPrefix(one, "flytekit=="); ok {
			p.env.Flytekit = version
		}
	}
	p.env.Digest = digest(p.env)
	r.mu.Lock()
	r.descriptions[interpreter] = p
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

// stamps are the states of all files and folders that matter to a description: the folders of packages, the files that Python reads at
// each start, and the interpreter. A file that does not exist has no stamp, so that its making is noticed.
func stamps(interpreter string, python pythonInfo) []fileStamp {
	var all []fileStamp
	paths := slices.Concat([]string{interpreter, python.Executable}, python.Path, python.Sites, startFiles(python))
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if info, err := os.Stat(path); err == nil && path != "" {
			all = append(all, fileStamp{path, info.ModTime(), info.Size()})
		}
	}
	return all
}

// startFiles are the files that Python's site module reads at each start, if they exist.
func startFiles(python pythonInfo) []string {
	files := []string{filepath.Join(python.Prefix, "pyvenv.cfg")}
	for _, dir := range python.Sites {
		found, _ := filepath.Glob(filepath.Join(escape(dir), "*.pth"))
		files = append(files, found...)
	}
	for _, dir := range python.Path {
		if filepath.IsAbs(dir) {
			files = append(files, filepath.Join(dir, "sitecustomize.py"), filepath.Join(dir, "usercustomize.py"))
		}
	}
	return files
}

var globbing = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

func escape(path string) string { return globbing.Replace(path) }

// siteFiles has a line for each file that changes how the interpreter starts: the name, and a digest of the content.
func siteFiles(python pythonInfo) []string {
	var lines []string
	for _, path := range startFiles(python) {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if filepath.Base(path) == "pyvenv.cfg" { // the other lines say where and by what program the environment was made
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

// packages reads the names and versions of all distributions on the path; of two with the same name the first counts, which Python would import.
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

// metadata is the normalized name and the version of a distribution.
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

// digest is the digest of an environment: over its Python, platform, packages and start files.
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
