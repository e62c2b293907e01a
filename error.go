package aloft

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What callers must tell apart. Wrap them with the facts: fmt.Errorf("execution %s: %w", id, aloft.ErrNotFound).
// One table in package api turns them into gRPC codes; an error that wraps none of them is INTERNAL, never UNKNOWN,
// which flytekit takes for a request to log in.
var (
	ErrNotFound      = errors.New("not found")
	ErrExists        = errors.New("already exists")
	ErrInvalid       = errors.New("invalid")                    // the request is wrong and will be wrong again
	ErrPrecondition  = errors.New("not in the right state")     // the request is right but not now, such as terminating what has ended
	ErrExhausted     = errors.New("too large or too many")      // a limit of ours, named in the message
	ErrUnimplemented = errors.New("not supported yet")          // a part of Flyte's protocol that a later release brings
	ErrUnavailable   = errors.New("unavailable")                // a service of ours (disk, database) cannot do its part now: try again
	ErrFenced        = errors.New("lease lost")                 // a commit under a lease that somebody else holds by now
	ErrUnreadable    = errors.New("unreadable")                 // what is stored is damaged: it is the next time, too
	ErrConflict      = errors.New("overtaken by another write") // a unique sequence or key is taken by different content
)

// Bytes of a text that a message quotes.
const (
	maxExcerpt = 200
	maxListed  = 2 << 10 // where it may be a list of names
)

// Excerpt is what a message quotes of a text that came from outside: all of it, or the beginning of one that has more than 200
// bytes. A text may be as large as a request, and what says that it is wrong must cost no multiple of that.
func Excerpt(text string) string { return beginning(text, maxExcerpt) }

// Messagef is fmt.Sprintf for what is said about requests: of a long text among the arguments it takes the beginning.
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
