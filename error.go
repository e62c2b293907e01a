package aloft

import "errors"

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
	ErrConflict      = errors.New("overtaken by another write") // a unique sequence or key is taken by different content
)

// Limits, each stated once and named in the message that refuses what is above it.
const (
	MaxExecutionName  = 63
	MaxWorkflowNodes  = 50_000
	MaxInlineLiterals = 64 << 10 // literal maps up to this many bytes live in their row, larger ones are objects
	MaxInlineData     = 2 << 20  // outputs up to this many bytes are inline in answers
	MaxRetries        = 10
	MaxCacheVersion   = 200       // bytes
	MaxMessageBytes   = 64 << 20  // one request or reply
	MaxDecodedBytes   = 256 << 20 // one request once it is decoded, by estimate
)
