package worker

import (
	"context"
	"time"
)

// Client is the server's end of the supervisor. It reconnects by itself, starting another supervisor where the former is
// gone; calls wait for that until their context ends. All calls may be repeated. Safe for concurrent use.
type Client struct{}

// Connect finds the supervisor of the data folder, or starts one that outlives this process.
func Connect(ctx context.Context, config Config) (*Client, error) { return nil, nil }

// Hello is what the present supervisor said when we connected.
func (c *Client) Hello() Hello { return Hello{} }

// Events is the one stream of events, in order per attempt. It never drops; it is closed by Close. After each
// (re)connection there is an EventStarted for all that runs and an EventExited for all that was not forgotten.
func (c *Client) Events() <-chan Event { return nil }

// Start runs an attempt. When it returns without an error the claim is durable; what follows comes as events. A second
// Start of an attempt id starts nothing and answers with the first one's status, exit record included.
// An error that wraps aloft.ErrInvalid means that this spec can never run; nothing was claimed then.
func (c *Client) Start(ctx context.Context, spec Spec) (Status, error) { return Status{}, nil }

// Stop ends an attempt: SIGTERM, and after grace (0: the spec's) SIGKILL of all its processes. It returns at once;
// EventExited tells the end. An attempt that is unknown or over is no error.
func (c *Client) Stop(ctx context.Context, attemptID string, grace time.Duration) error { return nil }

// List is all attempts that were not forgotten.
func (c *Client) List(ctx context.Context) ([]Status, error) { return nil, nil }

// Forget removes the claims: their outcome is durable with the caller. One that still runs is forgotten when it has
// ended, and gives no EventExited then. Unknown ones are no error.
func (c *Client) Forget(ctx context.Context, attemptIDs ...string) error { return nil }

// Prepare starts the warm worker of an environment ahead of its first attempt. It returns at once.
func (c *Client) Prepare(ctx context.Context, env Environment) error { return nil }

// Zygotes is the warm workers there are, for display.
func (c *Client) Zygotes(ctx context.Context) ([]ZygoteStatus, error) { return nil, nil }

// Shutdown stops all attempts (each with its grace, or the given one if not 0) and ends the supervisor. It returns when the supervisor is gone;
// exit records that were not forgotten stay on disk for the next one. The client is of no use after it.
func (c *Client) Shutdown(ctx context.Context, grace time.Duration) error { return nil }

// Close ends the connection, and nothing else.
func (c *Client) Close() error { return nil }
