package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
)

// errorCodes is the one table from the sentinel errors of package aloft to the codes of the protocol. The first match counts.
var errorCodes = []struct {
	err  error
	code connect.Code
}{
	{aloft.ErrNotFound, connect.CodeNotFound},
	{aloft.ErrExists, connect.CodeAlreadyExists},
	{aloft.ErrInvalid, connect.CodeInvalidArgument},
	{aloft.ErrPrecondition, connect.CodeFailedPrecondition},
	{aloft.ErrExhausted, connect.CodeResourceExhausted},
	{aloft.ErrUnimplemented, connect.CodeUnimplemented},
	{aloft.ErrUnavailable, connect.CodeUnavailable},
	{aloft.ErrConflict, connect.CodeAborted},
	{aloft.ErrFenced, connect.CodeUnavailable},
	{aloft.ErrUnreadable, connect.CodeDataLoss},
	{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
	{context.Canceled, connect.CodeCanceled},
}

// maxStatusBytes is the largest status in the headers of a reply. flytekit accepts 32 KiB of headers in all.
const maxStatusBytes = 28 << 10

// safeStatusBytes is the largest status for a client that may have gRPC's default limit: such clients refuse some headers above
// 8 KiB and all above 16 KiB, and then have neither code nor text.
const safeStatusBytes = 7 << 10

// statusRoom is the largest status that a client takes, in bytes. gRPC sends the status in headers. Of the known clients,
// flytekit (told by its Accept header, which no other gRPC client sends) and clients written in Go take large headers.
func statusRoom(r *http.Request) int {
	if !formatOf(r).nativeGRPC() || r.Header.Get("Accept") == "application/grpc" || strings.HasPrefix(r.UserAgent(), "grpc-go") {
		return maxStatusBytes
	}
	return safeStatusBytes
}

// detailedError is an error with a detail, which is a message for programs beside the error's text for users.
type detailedError struct {
	error
	detail proto.Message
}

func (d *detailedError) Unwrap() error { return d.error }

func withDetail(err error, detail proto.Message) error { return &detailedError{err, detail} }

// guard runs a call and turns its error, or its panic, into the error that the client gets.
func guard(ctx context.Context, log *slog.Logger, procedure string, call func() error) *connect.Error {
	err := catchPanic(call)
	if err == nil {
		return nil
	}
	return translate(ctx, log, procedure, err)
}

// panicError is a panic in a call, which is a bug of the server.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// catchPanic runs a call; its panic becomes a *panicError.
func catchPanic(call func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicError{value, debug.Stack()}
		}
	}()
	return call()
}

// translate makes the client's error of a handler's error. An error of connect with a code of its own stays as it is. Any other
// gets the code of errorCodes, its text without what the code says already, and its detail. An error that no row of errorCodes
// matches is INTERNAL: the log has the cause, and the client only the id under which the log has it.
func translate(ctx context.Context, log *slog.Logger, procedure string, err error) *connect.Error {
	name := strings.TrimPrefix(procedure, "/")
	var ready *connect.Error
	if errors.As(err, &ready) && ready.Code() != connect.CodeUnknown && ready.Code() != connect.CodeInternal {
		if ready.Code() == connect.CodeUnimplemented { // the generated answer of a call that we do not serve
			return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s: %w", name, aloft.ErrUnimplemented))
		}
		return ready
	}
	code := connect.CodeInternal
	if gone := ctx.Err(); gone != nil && errors.Is(err, gone) {
		// The client went away, or its deadline has passed. What else the error says follows from that.
		err = fmt.Errorf("%s: %w", name, gone)
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			code = row.code
			break
		}
	}
	text := clientText(err)
	if code == connect.CodeInternal {
		var id [6]byte
		rand.Read(id[:])
		attrs := []any{"rpc", name, "error_id", hex.EncodeToString(id[:]), "error", err}
		if p, ok := errors.AsType[*panicError](err); ok {
			attrs = append(attrs, "stack", string(p.stack))
		}
		log.ErrorContext(ctx, "call ended in an error that is ours", attrs...)
		text = fmt.Sprintf("internal error %s in %s: this is a fault of the server, whose log names the cause under this id", hex.EncodeToString(id[:]), name)
	}
	var d *detailedError
	hasDetail := errors.As(err, &d)
	room := cmp.Or(callerOf(ctx).statusRoom, maxStatusBytes)
	if hasDetail {
		room = room / 3 // text travels a second time, in base64, beside the detail
	}
	answer := connect.NewError(code, errors.New(fit(text, room)))
	if hasDetail {
		if detail, err := connect.NewErrorDetail(d.detail); err == nil {
			answer.AddDetail(detail)
		}
	}
	return answer
}

// clientText is the text of an error for a client: a sentence that says what is wrong needs no "invalid" after it, because the
// code says so. Texts of other sentinel errors stay: "workflow x: not found" would say nothing without its end.
func clientText(err error) string {
	text := err.Error()
	for _, said := range []error{aloft.ErrInvalid, aloft.ErrPrecondition} {
		if errors.Is(err, said) {
			text = strings.TrimSuffix(text, ": "+said.Error())
		}
	}
	return text
}

// fit makes text valid UTF-8 and cuts it so that its percent-encoded form, which is how gRPC sends it, has at most room bytes.
func fit(text string, room int) string {
	const tail = " … (cut)"
	whole := len(text) <= room // a longer text is cut first, so that its rest costs no time
	text = strings.ToValidUTF8(text[:min(len(text), room)], "�")
	if whole && encodedLen(text) <= room {
		return text
	}
	room -= 3 * len(tail)
	size := 0
	for i, r := range text {
		n := 3 * utf8.RuneLen(r)
		if r >= ' ' && r <= '~' && r != '%' {
			n = 1
		}
		if size += n; size > room {
			return text[:i] + tail
		}
	}
	return text + tail
}

func encodedLen(text string) int {
	n := len(text)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '%' {
			n += 2
		}
	}
	return n
}
