package aloft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The errors that callers must tell apart. Wrap them with the facts: fmt.Errorf("execution %s: %w", id, aloft.ErrNotFound).
// One table in package api turns them into gRPC codes; an error that wraps none of them is INTERNAL, never UNKNOWN,
// which flytekit takes for a request to log in.
var (
	ErrNotFound      = errors.New("not found")
	ErrExists        = errors.New("already exists")
	ErrInvalid       = errors.New("invalid")                    // the request is wrong, and repeating it does not help
	ErrPrecondition  = errors.New("not in the right state")     // the request is wrong in the present state, such as terminating an execution that has ended
	ErrExhausted     = errors.New("too large or too many")      // a limit of the server, named in the message
	ErrUnimplemented = errors.New("not supported yet")          // a part of Flyte's protocol that a later release brings
	ErrUnavailable   = errors.New("unavailable")                // a service of the server (disk, database) cannot do its part now: try again
	ErrFenced        = errors.New("lease lost")                 // a commit under a lease that another process holds by now
	ErrUnreadable    = errors.New("unreadable")                 // a stored record or object is damaged: reading it again does not help
	ErrConflict      = errors.New("overtaken by another write") // a unique sequence or key is taken by different content
)

// Bytes of a text that a message quotes.
const (
	maxExcerpt = 200
	maxListed  = 2 << 10 // of an argument of Messagef, which may be a list of names
)

// Excerpt is the part of a text from a request that a message quotes: all of it, or the first maxExcerpt bytes. A text may be
// as large as a request, and the message about it must not take a multiple of that.
func Excerpt(text string) string { return beginning(text, maxExcerpt) }

// Messagef is fmt.Sprintf for messages about requests: of a long text among the arguments it takes the first maxListed bytes.
func Messagef(format string, args ...any) string {
	args = slices.Clone(args)
	for i, arg := range args {
		if text, ok := arg.(string); ok {
			args[i] = beginning(text, maxListed)
		}
	}
	return fmt.Sprintf(format, args...)
}

func beginning(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return strings.ToValidUTF8(text[:size], "") + "…"
}
