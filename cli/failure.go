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

// counted is what Flyte writes before the error of a node that has no retries left. A status says it of each attempt.
var counted = regexp.MustCompile(`^\[\d+/\d+\] currentAttempt done\. Last Error: (?:USER|SYSTEM)::`)

// firstLine is the line of an error that says what happened: the first one, of a Python error that of its message.
func firstLine(message string) string {
	message = counted.ReplaceAllString(message, "")
	if _, said, ok := strings.Cut(message, messageMark); ok {
		message = said
	} else if strings.Contains(message, "Traceback (most recent call last)") {
		lines := strings.Split(strings.TrimSpace(message), "\n")
		message = lines[len(lines)-1]
	}
	line, _, _ := strings.Cut(strings.TrimSpace(message), "\n")
	return strings.TrimSpace(line)
}

var (
	frame      = regexp.MustCompile(`^(\s*)File "([^"]*)", line \d+`)
	ofFlytekit = regexp.MustCompile(`/(?:site|dist)-packages/flytekit/|^<(?:frozen importlib|string)`)
	ofAttempt  = regexp.MustCompile(`(File ")/[^"]*/attempts/[^/"]+/`)
)

// readable makes an error fit for people: without the count of attempts; a Python error without the frames of flytekit, with paths that begin where the code does.
// It is left as it is where nothing would remain of the trace.
func readable(message string) string {
	message = counted.ReplaceAllString(message, "")
	if !strings.Contains(message, "Traceback (most recent call last)") {
		return message
	}
	var out []string
	frames, skipping, indent := 0, false, ""
	for line := range strings.SplitSeq(message, "\n") {
		if m := frame.FindStringSubmatch(line); m != nil {
			indent = m[1]
			if skipping = ofFlytekit.MatchString(m[2]); !skipping {
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
		return message
	}
	return strings.Join(out, "\n")
}

// flytekitLine is a line of flytekit's own log, which it writes as JSON in a container.
type flytekitLine struct {
	Time    string `json:"asctime"`
	Name    string `json:"name"`
	Level   string `json:"levelname"`
	Message string `json:"message"`
}

// readableLog makes a line of a task's log fit for people: flytekit's JSON becomes lines of text. Others stay as they are.
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
