// Package environment finds or builds the Python that stands for a task's image on one machine, lists its packages and
// hashes them. It comes after registry (a task names an image), before worker (which runs the interpreter).
//
// It relies on an interpreter on this machine, and for a managed environment on uv or pip and a package index. When those
// fail it says in one sentence what to do; nothing half built is ever used (built beside, then renamed).
package environment

import (
	"context"
	"log/slog"
)

// Kind is where an environment came from.
type Kind string

// The kinds.
const (
	KindGiven   Kind = "given"   // the interpreter the server was given (--python)
	KindPath    Kind = "path"    // python3 on PATH that has flytekit
	KindManaged Kind = "managed" // made by us from the image's Python and flytekit versions
)

// Environment is a Python that has flytekit.
type Environment struct {
	Interpreter string   `json:"interpreter"` // absolute path, not resolved: a virtual environment is known by its link
	Kind        Kind     `json:"kind"`
	Reason      string   `json:"reason"`   // why this one and how it differs from what the image names; one sentence
	Python      string   `json:"python"`   // full version, 3.11.7
	Flytekit    string   `json:"flytekit"` // version
	Platform    string   `json:"platform"` // linux-x86_64
	Packages    []string `json:"packages"` // name==version, sorted, names normalized
	Digest      string   `json:"digest"`   // sha256:… over Python, Platform and Packages
}

// Request asks for the environment of an image.
type Request struct {
	Image    string // the task's container image; empty: the default
	Override string // --python; empty: none
}

// Resolver finds and builds environments below one data folder. The zero value is of no use; see New.
type Resolver struct{}

// Config of a Resolver.
type Config struct {
	DataDir string   // managed environments go to the folder environment in it
	Python  string   // --python: used for every image; empty: look on PATH, else managed
	Path    string   // PATH to look for python3 and uv on
	Env     []string // environment of the tools we run (uv, pip); nil: ours
	Logger  *slog.Logger
}

// New returns a resolver.
func New(config Config) *Resolver { return nil }

// Resolve finds the environment for an image, building it where needed. Answers are cached; a call for a known one costs
// a few stats: packages that were added or removed since give another digest.
func (r *Resolver) Resolve(ctx context.Context, request Request) (Environment, error) {
	return Environment{}, nil
}

// Strict compares the digest that an earlier attempt or a lock recorded with the environment as it is now, and returns an
// error with the difference (--environment=strict). An empty expectation accepts anything.
func Strict(expectedDigest string, expectedPackages []string, actual Environment) error { return nil }
