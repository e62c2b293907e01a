package executor

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// Variables are what the placeholders of a command line stand for, in the place where it will run.
// Source: flyte-execution reference 3.2.
type Variables struct {
	Input            string // file of the inputs
	InputPrefix      string // its folder
	OutputPrefix     string // folder for outputs.pb, error.pb, deck.html
	RawOutputPrefix  string // folder for files
	Checkpoint       string // folder for this attempt's checkpoints
	PrevCheckpoint   string // folder of the checkpoints to begin with; empty: none
	PerRetryKey      string // unique to this attempt, fit for an identifier
	Namespace        string
	TaskTemplatePath func() (string, error) // writes the template on first use
	Inputs           *core.LiteralMap
}

// placeholder is {{ .Name }} or {{ $Name }}, blanks optional, any case.
var placeholder = regexp.MustCompile(`\{\{\s*[.$]([A-Za-z_][\w.]*)\s*\}\}`)

// Render fills the placeholders of a command line. All mistakes are reported at once, among them placeholders that a client
// should have replaced at registration. A placeholder that is no variable of Flyte's is left as it is: commands have templates
// of their own.
//
// A few bytes of a command can stand for an input of many MiB, and a hundred thousand times. So Render first counts how long the
// arguments would be. It builds none if one argument, or all together, are above the limits with which a process can be started
// (aloft.MaxArgument, aloft.MaxCommandLine): the error says how long they would be.
func (v Variables) Render(args []string) ([]string, error) {
	f := &filling{variables: v, values: map[string]value{}}
	var all int64
	allMore := ""
	for i, arg := range args {
		size, more := int64(endOfArgument), ""
		f.pieces(arg, func(placeholder string, of value) {
			switch size += int64(len(of.text)); {
			case errors.Is(of.err, aloft.ErrExhausted):
				size, more = size+aloft.MaxArgument, "more than "
			case errors.Is(of.err, aloft.ErrUnavailable):
				f.away = of.err
			case of.err != nil:
				f.problem("argument %d, %s: %v", i+1, aloft.Excerpt(placeholder), of.err)
			}
		})
		if size-pointer > aloft.MaxArgument {
			f.problem("argument %d would be %s%d bytes long, the limit is %d: large inputs are for the program to read, from {{.input}}", i+1, more, size-endOfArgument, aloft.MaxArgument-1)
		}
		all, allMore = all+size, cmp.Or(allMore, more)
	}
	if all > aloft.MaxCommandLine {
		f.problem("the command line would be %s%d bytes long, the limit is %d", allMore, all, aloft.MaxCommandLine)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	out := make([]string, len(args))
	for i, arg := range args {
		var b strings.Builder
		f.pieces(arg, func(_ string, of value) { b.WriteString(of.text) })
		out[i] = b.String()
	}
	return out, nil
}

// What an argument takes beside its text, as Linux counts: a byte that ends it, and a pointer to it.
const (
	pointer       = 8
	endOfArgument = 1 + pointer
)

// maxProblems is how many mistakes of a command line are listed: there may be a hundred thousand.
const maxProblems = 20

// filling is a command line whose placeholders are being filled.
type filling struct {
	variables Variables
	values    map[string]value // of the placeholders, by the name in them
	problems  []string         // mistakes of the command line, maxProblems at most
	more      int              // further mistakes, not in problems
	away      error            // ErrUnavailable: a value cannot be had now, which is no mistake of the command line; nil: all can
}

// value is what a placeholder stands for.
type value struct {
	text string
	err  error // ErrExhausted: it is longer than an argument may be
}

// pieces gives the pieces of an argument, one after the other: each placeholder with its value, and what stands between them
// as values of no placeholder.
func (f *filling) pieces(arg string, each func(placeholder string, of value)) {
	for arg != "" {
		at := placeholder.FindStringSubmatchIndex(arg)
		if at == nil {
			each("", value{text: arg})
			return
		}
		each("", value{text: arg[:at[0]]})
		text, name := arg[at[0]:at[1]], arg[at[2]:at[3]]
		of, known := f.values[name]
		if !known {
			of.text, of.err = f.variables.value(name)
			f.values[name] = of
		}
		if errors.Is(of.err, errNotOurs) {
			of = value{text: text}
		}
		each(text, of)
		arg = arg[at[1]:]
	}
}

// problem notes a mistake of the command line.
func (f *filling) problem(format string, args ...any) {
	if len(f.problems) == maxProblems {
		f.more++
		return
	}
	f.problems = append(f.problems, aloft.Messagef(format, args...))
}

// err is what keeps the command line from being built: a value that cannot be had now, else all mistakes.
func (f *filling) err() error {
	if f.away != nil {
		return fmt.Errorf("fill in the command line: %w", f.away)
	}
	if f.more > 0 {
		f.problems = append(f.problems, fmt.Sprintf("and %d more", f.more))
	}
	if len(f.problems) == 0 {
		return nil
	}
	return fmt.Errorf("fill in the command line: %s", strings.Join(f.problems, "; "))
}

var errNotOurs = errors.New("no variable of Flyte's")

// value is the value of a placeholder by the name in it; errNotOurs: Flyte has no such variable.
func (v Variables) value(name string) (string, error) {
	switch strings.ToLower(name) {
	case "input":
		return v.Input, nil
	case "inputprefix":
		return v.InputPrefix, nil
	case "outputprefix":
		return v.OutputPrefix, nil
	case "rawoutputdataprefix":
		return v.RawOutputPrefix, nil
	case "checkpointoutputprefix":
		return v.Checkpoint, nil
	case "prevcheckpointprefix":
		if v.PrevCheckpoint == "" {
			return `""`, nil // what flytekit reads as none
		}
		return v.PrevCheckpoint, nil
	case "perretryuniquekey":
		return v.PerRetryKey, nil
	case "namespace":
		return v.Namespace, nil
	case "tasktemplatepath":
		return v.TaskTemplatePath()
	case "remote_package_path", "dest_dir":
		return "", errors.New("the client that registered the task should have replaced it; register with pyflyte or flytectl")
	}
	variable, ok := cutFold(name, "inputs.")
	if !ok {
		return "", errNotOurs
	}
	l, ok := v.Inputs.GetLiterals()[variable]
	if !ok {
		return "", fmt.Errorf("the task has no input %q", aloft.Excerpt(variable))
	}
	return literal.Text(l, aloft.MaxArgument)
}

// Platform is how a task reaches the server that it belongs to.
type Platform struct {
	Endpoint string // host:port of gRPC, without TLS
	URL      string // of the console, without a slash at the end
}

// Environment are the variables that every container task gets: the address of the server, the template's own variables,
// Flyte's, the execution's; a later one replaces an earlier one. Source: flyte-execution reference 3.4. flytekit's Config.auto
// reads FLYTE_PLATFORM_*, which Flyte leaves to the image; FLYTE_PLATFORM_URL alone would make flytekit speak TLS.
func Environment(job *Job, platform Platform) map[string]string {
	env := map[string]string{}
	if platform.Endpoint != "" {
		env["FLYTE_PLATFORM_URL"], env["FLYTE_PLATFORM_INSECURE"] = platform.Endpoint, "true"
	}
	if platform.URL != "" {
		e := job.ID.Execution
		env["FLYTE_EXECUTION_URL"] = platform.URL + "/console/projects/" + e.Project + "/domains/" + e.Domain + "/executions/" + e.Name +
			"/nodeId/" + string(job.ID.Node) + "/nodes"
	}
	if id := imageSpecID(job.Template.GetContainer().GetImage()); id != "" {
		env["_F_IMG_ID"] = id
	}
	for _, kv := range job.Template.GetContainer().GetEnv() {
		env[kv.GetKey()] = kv.GetValue()
	}
	task := job.Template.GetId()
	maps.Copy(env, map[string]string{
		"FLYTE_INTERNAL_EXECUTION_WORKFLOW": strings.Join([]string{job.Workflow.GetProject(), job.Workflow.GetDomain(), job.Workflow.GetName()}, ":"),
		"FLYTE_INTERNAL_EXECUTION_ID":       job.ID.Execution.Name,
		"FLYTE_INTERNAL_EXECUTION_PROJECT":  job.ID.Execution.Project,
		"FLYTE_INTERNAL_EXECUTION_DOMAIN":   job.ID.Execution.Domain,
		"FLYTE_ATTEMPT_NUMBER":              strconv.FormatUint(uint64(job.ID.Attempt), 10),
		"FLYTE_INTERNAL_TASK_PROJECT":       task.GetProject(),
		"FLYTE_INTERNAL_TASK_DOMAIN":        task.GetDomain(),
		"FLYTE_INTERNAL_TASK_NAME":          task.GetName(),
		"FLYTE_INTERNAL_TASK_VERSION":       task.GetVersion(),
	})
	maps.Copy(env, job.Envs)
	return env
}

// A tag that flytekit's ImageSpec computes: its id, an MD5 in base64.
var imageSpecTag = regexp.MustCompile(`:([A-Za-z0-9_]{22})$`)

// imageSpecID is what ImageSpec.is_container() compares with the id of the specification (image_spec.py); an image that
// flytekit has built states it as a variable. A tag has "_" where the id has "-", so an id with "-" is not recognized, nor
// one of a specification with files.
func imageSpecID(image string) string {
	if m := imageSpecTag.FindStringSubmatch(image); m != nil {
		return m[1]
	}
	return ""
}

var notIdentifier = regexp.MustCompile(`[^A-Za-z0-9_]+`)
var notInitial = regexp.MustCompile(`^[^A-Za-z_]+`)

// PerRetryKey makes a unique name fit for an identifier.
func PerRetryKey(uniqueName string) string {
	return notIdentifier.ReplaceAllString(notInitial.ReplaceAllString(uniqueName, "a"), "_")
}

// cutFold is strings.CutPrefix for any case of letters, of a string that is longer than the prefix.
func cutFold(s, prefix string) (string, bool) {
	if len(s) <= len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}
