package cli

import (
	"encoding/json"
	"regexp"
	"strings"
)

// Marks of the text that flytekit makes of a Python error (bin/entrypoint.py, format_str).
const (
	traceMark   = "Trace:\n\n"
	messageMark = "\n\nMessage:\n\n"
)

// retryCount is the text that Flyte writes before the error of a node that has no retries left; a code may stand before it. In the
// messages of causes the numbers are "<n>".
var retryCount = regexp.MustCompile(`^((?:[\w:|]+: )?)\[(?:\d+|<n>)/(?:\d+|<n>)\] currentAttempt done\. Last Error: (?:USER|SYSTEM)::`)

// withoutRetryCount removes the count of attempts from an error: a status shows each attempt anyway.
func withoutRetryCount(message string) string { return retryCount.ReplaceAllString(message, "$1") }

// firstLine is the line of an error that says what happened. That is its first line; for a Python error the first line of its
// message; for an error of flytekit that wraps another error, the line of the wrapped error, with what the wrapper is about.
func firstLine(message string) string {
	message = withoutRetryCount(message)
	trace, said, ok := strings.Cut(message, messageMark)
	switch {
	case ok:
		return headline(said, trace)
	case strings.Contains(message, "Traceback (most recent call last)"):
		lines := strings.Split(strings.TrimSpace(message), "\n")
		return strings.TrimSpace(lines[len(lines)-1])
	}
	return headline(message, "") // also of a Python error in a list, which has no trace
}

// wrapper is a form in which flytekit puts an error into the message of another one.
type wrapper struct {
	begins *regexp.Regexp // the first line of the wrapping message
	mark   string         // the beginning of the line with the wrapped error; empty: it is the second line
	about  string         // the first line in short
}

const errorMessage = "Error Message: "

var wrappers = []wrapper{
	{regexp.MustCompile(`^Failed to convert outputs of task '(.*)' at position (.*)\.$`), errorMessage, "output $2 of $1"}, // core/base_task.py
	{regexp.MustCompile(`^Failed to convert inputs of task '(.*)':$`), "", "inputs of $1"},
	{regexp.MustCompile(`^Error converting input '(.*)':$`), "Exception: ", "input $1"},                                                  // core/type_engine.py
	{regexp.MustCompile(`^Failed to get data from (.*) to .* \(recursive=(?:True|False)\)\.$`), "Original exception: ", "cannot get $1"}, // core/data_persistence.py
	{regexp.MustCompile(`^Failed to put data from (.*) to (.*) \(recursive=(?:True|False)\)\.$`), "Original exception: ", "cannot put $1 to $2"},
}

var (
	// className is the class that entrypoint.py writes before a message.
	className = regexp.MustCompile(`^\w+: `)
	// flyteCode is the beginning of the text of flytekit's exceptions (exceptions/base.py). Some texts end with ", cause=…".
	flyteCode = regexp.MustCompile(`^((?:\w+: )?)(?:(?:USER|SYSTEM):)?\w+: error=`)
	// typeDump is the beginning of a type that flytekit writes as a protocol message of several lines.
	typeDump = regexp.MustCompile(`/Flyte Serialized object \(LiteralType\):$`)
)

// headline is the line of a message of a Python error that says what happened.
func headline(message, trace string) string {
	first, about, cause := unwrap(message)
	if cause == "" {
		cause = rootCause(trace)
	}
	switch {
	case about != "" && cause != "":
		return about + ": " + headline(cause, "")
	case !strings.Contains(first, " "):
		return strings.TrimSuffix(first, ":") // a class without a message
	}
	return first
}

// unwrap is the first line of a message, and, if the message wraps another error, what the message is about and the wrapped error.
// Otherwise about and cause are empty. The wrapped error may be empty, too.
func unwrap(message string) (first, about, cause string) {
	message = strings.TrimSpace(message)
	if flyteCode.MatchString(message) {
		message, _, _ = strings.Cut(flyteCode.ReplaceAllString(message, "$1"), ", cause=")
	}
	first, rest, _ := strings.Cut(message, "\n")
	first = typeDump.ReplaceAllString(strings.TrimSpace(first), "")
	said := className.ReplaceAllString(first, "")
	for _, w := range wrappers {
		m := w.begins.FindStringSubmatchIndex(said)
		if m == nil {
			continue
		}
		about = string(w.begins.ExpandString(nil, w.about, said, m))
		for rest != "" {
			var line string
			line, rest, _ = strings.Cut(rest, "\n")
			if cause, ok := strings.CutPrefix(strings.TrimSpace(line), strings.TrimSpace(w.mark)); ok {
				cause = strings.TrimSpace(cause + "\n" + rest)
				if w.mark == errorMessage {
					cause = strings.TrimSuffix(cause, ".") // flytekit adds the full stop
				}
				return first, about, cause
			}
		}
	}
	return first, about, ""
}

// rootCause is the error at the end of the first of several chained tracebacks; empty: the traceback is not chained.
func rootCause(trace string) string {
	first, _, chained := strings.Cut(trace, "\n\n    During handling of the above exception")
	if one, _, ok := strings.Cut(first, "\n\n    The above exception was the direct cause"); ok {
		first, chained = one, true
	}
	_, frames, ok := strings.Cut(first, "    Traceback (most recent call last):\n")
	if !chained || !ok {
		return ""
	}
	for line := range strings.SplitSeq(frames, "\n") {
		if text, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(text, " ") {
			return text
		}
	}
	return ""
}

var (
	frame      = regexp.MustCompile(`^(\s*)File "([^"]*)", line \d+`)
	ofFlytekit = regexp.MustCompile(`/(?:site|dist)-packages/flytekit/|^<(?:frozen importlib|string)`)
	ofFuture   = regexp.MustCompile(`/concurrent/futures/_base\.py", line \d+, in (?:result|__get_result)$`) // by which flytekit waits for its other threads
	ofAttempt  = regexp.MustCompile(`(File ")/[^"]*/attempts/[^/"]+/`)
)

// readable makes an error readable for users: without the count of attempts, and a Python error without the frames of flytekit
// and with paths that begin at the code. A trace of which nothing would remain stays as it is, unless the message wraps another
// error: then the message alone is shown.
func readable(message string) string {
	message = withoutRetryCount(message)
	if !strings.Contains(message, "Traceback (most recent call last)") {
		return message
	}
	var out []string
	frames, skipping, indent := 0, false, ""
	for line := range strings.SplitSeq(message, "\n") {
		if m := frame.FindStringSubmatch(line); m != nil {
			indent = m[1]
			if skipping = ofFlytekit.MatchString(m[2]) || ofFuture.MatchString(line); !skipping {
				frames++
			}
		} else if !strings.HasPrefix(line, indent+" ") {
			skipping = false
		}
		if !skipping {
			out = append(out, ofAttempt.ReplaceAllString(line, "$1"))
		}
	}
	if frames == 0 {
		if _, said, ok := strings.Cut(message, messageMark); ok {
			if _, about, _ := unwrap(said); about != "" {
				return strings.TrimPrefix(strings.ReplaceAll(said, "\n    ", "\n"), "    ")
			}
		}
		return message
	}
	return strings.Join(out, "\n")
}

// flytekitLine is a line of flytekit's own log, which is JSON in a container.
type flytekitLine struct {
	Time    string `json:"asctime"`
	Name    string `json:"name"`
	Level   string `json:"levelname"`
	Message string `json:"message"`
}

// readableLog turns a line of a task's log into readable lines: flytekit's JSON becomes text, other lines stay as they are.
func readableLog(line string) []string {
	if !strings.HasPrefix(line, `{"asctime":`) {
		return []string{line}
	}
	var entry flytekitLine
	if err := json.Unmarshal([]byte(line), &entry); err != nil || !strings.HasPrefix(entry.Name, "flytekit") {
		return []string{line}
	}
	_, clock, _ := strings.Cut(entry.Time, " ")
	lines := strings.Split(strings.TrimRight(readable(entry.Message), "\n"), "\n")
	lines[0] = clock + " " + entry.Level + " " + entry.Name + ": " + lines[0]
	return lines
}
