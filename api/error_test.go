package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
)

func TestEverySentinelHasACodeAndNoneIsUnknown(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]connect.Code{
		aloft.ErrNotFound:        connect.CodeNotFound,
		aloft.ErrExists:          connect.CodeAlreadyExists,
		aloft.ErrInvalid:         connect.CodeInvalidArgument,
		aloft.ErrPrecondition:    connect.CodeFailedPrecondition,
		aloft.ErrExhausted:       connect.CodeResourceExhausted,
		aloft.ErrUnimplemented:   connect.CodeUnimplemented,
		aloft.ErrUnavailable:     connect.CodeUnavailable,
		aloft.ErrFenced:          connect.CodeUnavailable,
		aloft.ErrConflict:        connect.CodeAborted,
		context.DeadlineExceeded: connect.CodeDeadlineExceeded,
		context.Canceled:         connect.CodeCanceled,
	} {
		got := guard(t.Context(), slog.New(slog.DiscardHandler), "/s/M", func() error { return fmt.Errorf("do it: %w", err) })
		if got.Code() != want || !strings.Contains(got.Message(), "do it") {
			t.Errorf("%v becomes %v, want %v with the message", err, got, want)
		}
	}
}

func TestTheCodeIsNotSaidAgainInTheMessage(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("list executions: invalid sort key 'x': %w", aloft.ErrInvalid), "list executions: invalid sort key 'x'"},
		{fmt.Errorf("recover: it has not ended: wait: %w", aloft.ErrPrecondition), "recover: it has not ended: wait"},
		{fmt.Errorf("execution p/d/e: %w", aloft.ErrNotFound), "execution p/d/e: not found"},
	} {
		if got := clientText(test.err); got != test.want {
			t.Errorf("%v is told as %q, want %q", test.err, got, test.want)
		}
	}
}

func TestWhatIsOursIsInternalWithAnIdThatTheLogHas(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func() error{
		"an error without a kind": func() error { return errors.New("secret of the server") },
		"a panic":                 func() error { panic("secret of the server") },
		"a framework's UNKNOWN":   func() error { return connect.NewError(connect.CodeUnknown, errors.New("secret of the server")) },
	} {
		var log bytes.Buffer
		got := guard(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), "/s/M", call)
		if got.Code() != connect.CodeInternal {
			t.Errorf("%s becomes %v, want INTERNAL", name, got)
		}
		if strings.Contains(got.Message(), "secret") {
			t.Errorf("%s: the client learns the cause: %s", name, got.Message())
		}
		_, rest, _ := strings.Cut(got.Message(), "internal error ")
		id, _, _ := strings.Cut(rest, " ")
		if id == "" || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "secret of the server") {
			t.Errorf("%s: the log lacks id %q or the cause: %s", name, id, log.String())
		}
	}
}

func TestACallerThatWentAwayIsNotAFaultOfOurs(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got := guard(ctx, slog.New(slog.DiscardHandler), "/s/M", func() error { return fmt.Errorf("read: %w: %w", aloft.ErrUnavailable, ctx.Err()) })
	if got.Code() != connect.CodeCanceled {
		t.Errorf("got %v, want CANCELED", got)
	}
}

func TestMessagesFitIntoTheHeadersThatClientsTake(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Repeat("x", 100_000), strings.Repeat("ü", 100_000), strings.Repeat("%", 100_000), strings.Repeat("\n", 100_000), strings.Repeat("\xffa", 50_000),
	} {
		got := guard(t.Context(), slog.New(slog.DiscardHandler), "/s/M", func() error { return fmt.Errorf("%w: %s", aloft.ErrInvalid, text) }).Message()
		if n := encodedLen(got); n > maxStatusBytes || n < maxStatusBytes/2 {
			t.Errorf("100,000 of %q take %d bytes, want at most %d and not much less", text[:1], n, maxStatusBytes)
		}
		if !strings.HasSuffix(got, "(cut)") {
			t.Errorf("a cut message does not say so: …%s", got[len(got)-20:])
		}
	}
	if got := fit("short", 100); got != "short" {
		t.Errorf("a short message became %q", got)
	}
	if got := fit(strings.Repeat("\xff", 1000)+"the rest", 500); got != "� … (cut)" {
		t.Errorf("a message whose beginning is no text became %q", got)
	}
}
