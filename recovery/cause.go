package recovery

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Cause is what failures have in common that have one root cause.
type Cause struct {
	Code    string
	Message string // one line, in which what differs from run to run is replaced
}

const maxCause = 300 // bytes of a message

// What differs between failures with one cause, and the word for it, in the order in which they are replaced.
var varying = []struct {
	is   *regexp.Regexp
	word string
}{
	{regexp.MustCompile(`[a-z][a-z0-9+.-]*://[^\s"'<>),;]+`), "<location>"},
	{regexp.MustCompile(`(^|[\s"'(=:,\[])(/[^\s"'<>):,;\]/]+)+/?`), "$1<path>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`), "<id>"},
	{regexp.MustCompile(`(?i)\b0x[0-9a-f]+\b`), "<address>"},
	{regexp.MustCompile(`(?i)\b[0-9a-f]*[a-f][0-9a-f]*[0-9][0-9a-f]{6,}\b|(?i)\b[0-9a-f]*[0-9][0-9a-f]*[a-f][0-9a-f]{6,}\b`), "<id>"},
	{regexp.MustCompile(`\b[a-z][bcdfghjklmnpqrstvwxz2456789]{19}\b`), "<id>"}, // an execution
	{regexp.MustCompile(`[0-9]+([.:,_-][0-9]+)*`), "<n>"},
	{regexp.MustCompile(`\s+`), " "},
}

// CauseOf finds the root cause of a failure. Of a Python traceback it is what was raised that counts, not where.
func CauseOf(e *core.ExecutionError) Cause {
	message := e.GetMessage()
	if _, said, ok := strings.Cut(message, "\n\nMessage:\n\n"); ok { // as flytekit writes it
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
	for _, v := range varying {
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
