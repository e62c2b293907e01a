// Package environment finds or builds the Python that stands for a task's image on one machine, lists its packages and
// hashes them. It comes after registry (a task names an image), before worker (which runs the interpreter).
//
// It relies on an interpreter on this machine, and for a managed environment on uv or pip and a package index. When those
// fail the error says in one sentence what to do. An environment that is not complete is never used: a mark is written last, under
// a lock.
package environment

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
)

// Kind is where an environment came from.
type Kind string

// The kinds.
const (
	KindGiven   Kind = "given"   // the interpreter the server was given (--python)
	KindPath    Kind = "path"    // python3 on PATH that has flytekit
	KindManaged Kind = "managed" // made by us from the image's Python and flytekit versions
)

// DefaultFlytekit is what a managed environment gets for an image whose name does not tell.
const DefaultFlytekit = "1.16.31"

// Environment is a Python that has flytekit.
type Environment struct {
	Interpreter string   `json:"interpreter"` // absolute path, links not resolved: Python finds a virtual environment by the link
	Kind        Kind     `json:"kind"`
	Reason      string   `json:"reason"`   // why this environment was chosen, and how it differs from the versions that the image names; one sentence
	Python      string   `json:"python"`   // full version, 3.11.7
	Flytekit    string   `json:"flytekit"` // version
	Platform    string   `json:"platform"` // linux-x86_64
	Packages    []string `json:"packages"` // name==version, sorted, names normalized
	Site        []string `json:"site"`     // other files that Python reads at each start (.pth files, sitecustomize …): name and digest of the content
	Digest      string   `json:"digest"`   // sha256:… over Python, Platform, Packages and Site
}

// Request asks for the environment of an image.
type Request struct {
	Image    string       // the task's container image; empty: the default
	Override string       // an interpreter that goes before Config.Python; empty: none
	Making   func(string) // called with a text for users when the environment has to be made, which takes minutes; nil: not called
}

// Config of a Resolver.
type Config struct {
	DataDir string   // managed environments go to the folder environment in it
	Python  string   // --python: used for every image; empty: look on PATH, else managed
	Path    string   // PATH to look for python3 and uv on
	Env     []string // variables of the tools we run (uv, pip); nil: ours, without those that may hold secrets
	Logger  *slog.Logger
}

// Resolver finds and builds environments below one data folder. Safe for concurrent use.
type Resolver struct {
	config   Config
	patience time.Duration // how long an interpreter may take to answer

	mu           sync.Mutex
	descriptions map[string]*description // by interpreter
	used         map[string]Environment  // by interpreter: the latest result of Resolve
}

// New returns a resolver.
func New(config Config) *Resolver {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Env == nil {
		config.Env = slices.DeleteFunc(os.Environ(), secret) //nolint:forbidigo // the default of a setting
	}
	return &Resolver{config: config, patience: 30 * time.Second, descriptions: map[string]*description{}, used: map[string]Environment{}}
}

// secret says whether a variable may hold a password of the server: the variables of its configuration and of its database may.
func secret(variable string) bool {
	return strings.HasPrefix(variable, "ALOFT_") || strings.HasPrefix(variable, "PG")
}

// imageVersions are the versions that the name of an image tells.
type imageVersions struct {
	python   string // 3.11; empty: any
	flytekit string // 1.16.31; empty: any
}

// imageTag finds the versions in a name such as cr.flyte.org/flyteorg/flytekit:py3.11-1.16.31, the image that flytekit names when the
// user names none.
var imageTag = regexp.MustCompile(`:py(3\.\d+)-v?(\d+\.\d+\.\d+[0-9A-Za-z.]*)$`)

func parseImage(image string) imageVersions {
	if m := imageTag.FindStringSubmatch(image); m != nil {
		return imageVersions{python: m[1], flytekit: m[2]}
	}
	return imageVersions{}
}

// difference says how an environment differs from the versions of the image; empty: no difference is known.
func (w imageVersions) difference(e Environment) string {
	var parts []string
	if w.python != "" && !strings.HasPrefix(e.Python+".", w.python+".") {
		parts = append(parts, fmt.Sprintf("Python %s instead of %s", e.Python, w.python))
	}
	if w.flytekit != "" && e.Flytekit != w.flytekit {
		parts = append(parts, fmt.Sprintf("flytekit %s instead of %s", e.Flytekit, w.flytekit))
	}
	return strings.Join(parts, ", ")
}

// Resolve finds the environment for an image, and builds it where needed. Results are cached, and a call for a known environment
// costs a few stats: they show whether packages were added or removed since, which gives another digest.
func (r *Resolver) Resolve(ctx context.Context, request Request) (Environment, error) {
	e, err := r.find(ctx, request)
	if err != nil {
		return Environment{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[e.Interpreter] = e
	return e, nil
}

// Used returns the environments that Resolve has returned so far, sorted by interpreter.
func (r *Resolver) Used() []Environment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.SortedFunc(maps.Values(r.used), func(a, b Environment) int { return cmp.Compare(a.Interpreter, b.Interpreter) })
}

func (r *Resolver) find(ctx context.Context, request Request) (Environment, error) {
	w := parseImage(request.Image)
	if given := cmp.Or(request.Override, r.config.Python); given != "" {
		path, err := r.lookup(given)
		if err != nil {
			return Environment{}, fmt.Errorf("use the Python that was given (--python %s): %w", given, err)
		}
		e, err := r.describe(ctx, path)
		if err != nil {
			return Environment{}, fmt.Errorf("use the Python that was given (--python %s): %w", given, err)
		}
		return e.withReason(KindGiven, "the server was given this interpreter", w, request.Image), nil
	}
	var without []string
	for _, path := range r.programs("python3") {
		e, err := r.describe(ctx, path)
		if err == nil {
			return e.withReason(KindPath, "the first python3 on PATH that has flytekit", w, request.Image), nil
		}
		if ctx.Err() != nil {
			return Environment{}, fmt.Errorf("find environment: %w", ctx.Err())
		}
		without = append(without, err.Error())
	}
	e, err := r.managed(ctx, w, request.Making)
	if err != nil {
		return Environment{}, errors.Join(err, nonEmpty(without))
	}
	return e.withReason(KindManaged, "made for this image, since no python3 on PATH has flytekit", w, request.Image), nil
}

func nonEmpty(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "\n"))
}

// withReason adds to an environment why it was chosen for an image.
func (e Environment) withReason(kind Kind, reason string, w imageVersions, image string) Environment {
	e.Kind, e.Reason = kind, reason
	if d := w.difference(e); d != "" {
		e.Reason += "; it differs from the image: " + d
	} else if w == (imageVersions{}) && image != "" {
		e.Reason += fmt.Sprintf("; what the image %s holds is not known from its name", image)
	}
	return e
}

// Given returns an error if an interpreter was given (--python) and is not there. It does not run the interpreter.
func (r *Resolver) Given() error {
	if r.config.Python == "" {
		return nil
	}
	if _, err := r.lookup(r.config.Python); err != nil {
		return fmt.Errorf("use the Python that was given (--python %s): %w", r.config.Python, err)
	}
	return nil
}

// sentenceError is an error of the kind of a root package's error, whose text is a sentence for users alone.
type sentenceError struct {
	text string
	kind error
}

func (e *sentenceError) Error() string { return e.text }
func (e *sentenceError) Unwrap() error { return e.kind }

func sentence(kind error, format string, args ...any) error {
	return &sentenceError{fmt.Sprintf(format, args...), kind}
}

// lookup finds a program by name or path as a shell does.
func (r *Resolver) lookup(name string) (string, error) {
	if strings.ContainsRune(name, '/') {
		path, err := filepath.Abs(name)
		if err != nil {
			return "", fmt.Errorf("find %s: %w", name, err)
		}
		if !executable(path) {
			return "", sentence(aloft.ErrInvalid, "%s is not a program: give the path of a Python that has flytekit", path)
		}
		return path, nil
	}
	if found := r.programs(name); len(found) > 0 {
		return found[0], nil
	}
	return "", sentence(aloft.ErrInvalid, "no %s on PATH: give the path of a Python that has flytekit", name)
}

// programs are the paths of all programs of this name on PATH, in its order.
func (r *Resolver) programs(name string) []string {
	var found []string
	for _, dir := range filepath.SplitList(cmp.Or(r.config.Path, os.Getenv("PATH"))) { //nolint:forbidigo // the default of a setting
		path := filepath.Join(dir, name)
		if filepath.IsAbs(path) && executable(path) && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	return found
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Strict compares the digest that an earlier attempt or a lock recorded with the environment as it is now, and returns an
// error with the difference (--environment=strict). With an empty digest any environment is accepted.
func Strict(expectedDigest string, expectedPackages []string, actual Environment) error {
	if expectedDigest == "" || expectedDigest == actual.Digest {
		return nil
	}
	var parts []string
	for _, p := range actual.Packages {
		if len(expectedPackages) > 0 && !slices.Contains(expectedPackages, p) {
			parts = append(parts, "now "+p)
		}
	}
	for _, p := range expectedPackages {
		if !slices.Contains(actual.Packages, p) {
			parts = append(parts, "before "+p)
		}
	}
	if len(parts) == 0 {
		parts = append(parts, fmt.Sprintf("digest %s instead of %s: Python, the platform, or a file that Python reads when it starts (%s)",
			actual.Digest, expectedDigest, cmp.Or(strings.Join(actual.Site, ", "), "a .pth file or sitecustomize.py that is gone")))
	}
	const shown = 20
	if more := len(parts) - shown; more > 0 {
		parts = append(parts[:shown], fmt.Sprintf("and %d more", more))
	}
	return fmt.Errorf("environment of %s has changed (%s): put it back, or run without --environment=strict: %w",
		actual.Interpreter, strings.Join(parts, ", "), aloft.ErrPrecondition)
}
