package recovery

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Cause is the code and the message that failures with one root cause have in common.
type Cause struct {
	Code    string
	Message string // one line, in which numbers, ids, paths and locations are replaced
}

const maxCause = 300 // bytes of a message

// replacements are the patterns of texts that differ between failures with one cause, and the words that replace them, in the order
// in which they are applied.
var replacements = []struct {
	is   *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^\s"'<>),;]+`), "<location>"},
	{regexp.MustCompile(`(^|[\s"'(=:,\[])(/[^\s"'<>):,;\]/]+)+/?`), "$1<path>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`(?i)\b0x[0-9a-f]+\b`), "<address>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]*[a-f][0-9a-f]*[0-9][0-9a-f]{6,}\b|(?i)\b[0-9a-f]*[0-9][0-9a-f]*[a-f][0-9a-f]{6,}\b`), "<id>"},
	{regexp.MustCompile(`\b[a-z][bcdfghjklmnpqrstvwxz2456789]{19}\b`), "<id>"}, // the name of an execution
	{regexp.MustCompile(`[0-9]+([.:,_-][0-9]+)*`), "<n>"},
	{regexp.MustCompile(`\s+`), " "},
}

// CauseOf finds the cause of a failure. Of a Python traceback only the exception counts, and not where it was raised.
func CauseOf(e *core.ExecutionError) Cause {
	message := e.GetMessage()
	if _, said, ok := strings.Cut(message, "\n\nMessage:\n\n"); ok { // flytekit writes the message behind this mark
		message = said
	} else if at := strings.LastIndex(message, "Traceback (most recent call last)"); at >= 0 {
		lines := strings.Split(strings.TrimSpace(message[at:]), "\n")
		message = lines[len(lines)-1]
	}
	message = strings.TrimSpace(message)
	if len(message) > 4*maxCause {
		message = message[:4*maxCause]
	}
	message = strings.ToValidUTF8(message, "")
	for _, v := range replacements {
		message = v.is.ReplaceAllString(message, v.word)
	}
	if len(message) > maxCause {
		cut := maxCause
		for !utf8.RuneStart(message[cut]) {
			cut--
		}
		message = message[:cut] + "…"
	}
	return Cause{Code: e.GetCode(), Message: message}
}
