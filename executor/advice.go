package executor

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Ran is what ran a task in the place of its image, for those who read of a failure.
type Ran struct {
	Image       string // that the task asks for; empty: none
	Interpreter string // of the environment that ran instead; empty: the task brings its own program
	Reason      string // why that one, a sentence without a full stop
	Folder      string // the attempt's current directory
}

var (
	noModule = regexp.MustCompile(`(?m)^\s*(?:ModuleNotFoundError|ImportError): No module named '([^'\n]+)'`)
	// Of Python's protobuf runtime, which adds the reason in newer releases: "Exceeded upb_DecodeOptions_MaxDepth".
	undecodable = regexp.MustCompile(`DecodeError: Error parsing message with type 'flyteidl\.core\.LiteralMap'`)
	noFile      = regexp.MustCompile(`(?m)^\s*FileNotFoundError: \[Errno 2\] No such file or directory: '([^'\n]+)'`)
)

// Advice is the way out of a Python error that is not the code's but of where it ran: a module that the image would have, a
// data file that was not shipped. Empty: the error speaks for itself.
func (r Ran) Advice(message string) string {
	if r.Interpreter == "" {
		return ""
	}
	if m := noModule.FindStringSubmatch(message); m != nil {
		name, _, _ := strings.Cut(m[1], ".")
		asked := "The task asks for no image; it"
		if r.Image != "" {
			asked = fmt.Sprintf("The task asks for the image %s; no image is pulled here, it", r.Image)
		}
		return fmt.Sprintf("%s ran in the environment of %s (%s), which has no module %s. If that is a package: %[2]s -m pip install %[4]s, or, where that has no pip, uv pip install --python %[2]s %[4]s. If it is code of yours: register it with pyflyte from the folder that holds it, or with --copy all.",
			asked, r.Interpreter, r.Reason, name)
	}
	if m := noFile.FindStringSubmatch(message); m != nil {
		path := m[1]
		if below, err := filepath.Rel(r.Folder, path); err == nil && filepath.IsLocal(below) {
			path = below
		}
		if filepath.IsLocal(path) {
			return fmt.Sprintf("%s is not in the task's folder: pyflyte run ships Python modules only, with --copy all data files, too; what .gitignore or .dockerignore names is never shipped. Or give the file as an input.", path)
		}
	}
	if undecodable.MatchString(message) {
		return "The task was given values that Python cannot read. If they are nested deep: Python reads about 48 lists in each other, and fewer dicts; give what is deeper as a FlyteFile."
	}
	return ""
}
