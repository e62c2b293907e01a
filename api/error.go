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

// errorCodes is the one table from our errors to the protocol's. The first match counts.
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

// maxStatusBytes is what a status may take in the headers of a reply. flytekit accepts 32 KiB of them in all.
const maxStatusBytes = 28 << 10

// safeStatusBytes is what it may take where the client may keep to gRPC's own limit: from 8 KiB of headers on some are
// refused, from 16 KiB on all, and then the client has neither code nor text.
const safeStatusBytes = 7 << 10

// statusRoom is how much of a status a client takes. Statuses of gRPC travel in headers, and of the clients that are known
// flytekit (by the header accept, which no other sends) and those written in Go take many.
func statusRoom(r *http.Request) int {
	if !formatOf(r).nativeGRPC() || r.Header.Get("Accept") == "application/grpc" || strings.HasPrefix(r.UserAgent(), "grpc-go") {
		return maxStatusBytes
	}
	return safeStatusBytes
}

// detailed adds a message that programs read to an error that people read.
type detailed struct {
	error
	detail proto.Message
}

func (d *detailed) Unwrap() error { return d.error }

func withDetail(err error, detail proto.Message) error { return &detailed{err, detail} }

// guard runs a call and turns its error, or its panic, into the error that the client gets.
func guard(ctx context.Context, log *slog.Logger, procedure string, call func() error) *connect.Error {
	err := recovered(call)
	if err == nil {
		return nil
	}
	return translate(ctx, log, procedure, err)
}

// panicked is a bug of ours that was met in a call.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func recovered(call func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicked{value, debug.Stack()}
		}
	}()
	return call()
}

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
		// The caller went away or its time is over: all else that the error says follows from that.
		err = fmt.Errorf("%s: %w", name, gone)
	}
	for _, row := range errorCodes {
		if errors.Is(err, row.err) {
			code = row.code
			break
		}
	}
	text := plain(err)
	if code == connect.CodeInternal {
		var id [6]byte
		rand.Read(id[:])
		attrs := []any{"rpc", name, "error_id", hex.EncodeToString(id[:]), "error", err}
		if p, ok := errors.AsType[*panicked](err); ok {
			attrs = append(attrs, "stack", string(p.stack))
		}
		log.ErrorContext(ctx, "call ended in an error that is ours", attrs...)
		text = fmt.Sprintf("internal error %s in %s: this is a fault of the server, whose log names the cause under this id", hex.EncodeToString(id[:]), name)
	}
	var d *detailed
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

// plain is the text of an error without what its code says already: a sentence that says what is wrong needs no "invalid"
// after it. That something is not there, or is there already, is all that the others say of it.
func plain(err error) string {
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
	whole := len(text) <= room // of one that is longer no more than so many bytes are looked at
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
