package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/legible"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// A page has at most aloft.MaxPageRows rows and as many bytes as its client takes. What there is more of it says with a token,
// also where the request asks for more: a client that goes on as long as there is one gets everything.

// pageBytes is how large a page may be. flytectl, and most programs with gRPC's own libraries, take no message above 4 MiB;
// flytekit, which speaks as grpc-python, raises that to 20 MiB, and other clients have none.
func pageBytes(ctx context.Context) int {
	if agent := callerOf(ctx).userAgent; strings.HasPrefix(agent, "grpc-") && !strings.HasPrefix(agent, "grpc-python") {
		return aloft.MaxSmallPageBytes
	}
	return aloft.MaxPageBytes
}

// budgeted bounds what a list reads. Records are a little larger than the messages that are made of them, or a little smaller:
// the page is cut by its messages.
func budgeted(ctx context.Context, q store.Query) store.Query {
	q.Budget = &store.Budget{Bytes: 2 * pageBytes(ctx)}
	return q
}

// fill makes the messages of a page, and its token. A row that is larger than a page is on it without its content, which slim
// takes out of its message; note says that it did.
func fill[R any, M proto.Message](ctx context.Context, q store.Query, rows []R, message func(R) (M, error), slim func(m M, note string)) (page []M, token string, err error) {
	limit, size := pageBytes(ctx), 0
	var buffer []byte
	for i, row := range rows {
		m, err := message(row)
		if err != nil {
			return nil, "", err
		}
		own := proto.Size(m)
		if own > limit-pageMargin {
			slim(m, fmt.Sprintf("%.1f MiB were left out of this list: get it by its id", float64(own)/(1<<20)))
		}
		if m, err = listable(ctx, &buffer, m, slim); err != nil {
			return nil, "", err
		}
		own = proto.Size(m)
		if size += own + rowMargin; size > limit-pageMargin && len(page) > 0 {
			return page, tokenBehind(q, rows, i), nil
		}
		page = append(page, m)
	}
	if len(rows) > 0 && (len(rows) == q.Limit || q.Budget != nil && q.Budget.Cut) {
		token = tokenBehind(q, rows, len(rows))
	}
	return page, token, nil
}

const (
	pageMargin = 4 << 10 // for the token and the like
	rowMargin  = 8       // for a row's tag and length
)

// listable makes of a message one that all clients can read in a list, where one that some cannot would cost them all others:
// it is without content if it is nested too deep, as those of an earlier release may be, and what has no form in JSON has
// another one, because flytekit makes JSON of what tasks have. buffer is for any number of messages, one after the other.
func listable[M proto.Message](ctx context.Context, buffer *[]byte, m M, slim func(m M, note string)) (M, error) {
	if size := proto.Size(m); size > cap(*buffer) {
		if err := room.Take(ctx, int64(size)); err != nil {
			return m, err
		}
		*buffer = make([]byte, 0, size)
	}
	look := func() (seen legible.Sight, err error) {
		if *buffer, err = (proto.MarshalOptions{}).MarshalAppend((*buffer)[:0], m); err != nil {
			return seen, fmt.Errorf("encode a row of a list: %w", err)
		}
		return legible.Look(m.ProtoReflect().Descriptor(), *buffer), nil
	}
	seen, err := look()
	if err != nil || seen.Formed && seen.Depth < legible.MaxDepth { // the list is a level, too
		return m, err
	}
	m = proto.CloneOf(m) // of which others may have parts
	if seen.Depth >= legible.MaxDepth {
		legible.Known(m)
		if seen, err = look(); err == nil && seen.Depth >= legible.MaxDepth {
			slim(m, fmt.Sprintf("messages that are nested %d levels deep were left out of this list: get it by its id", legible.MaxDepth))
		}
	}
	legible.Mend(m)
	return m, err
}

// tokenBehind is where the list goes on behind its first n rows: at a position, if there is one in its order, else at a number of rows.
func tokenBehind[R any](q store.Query, rows []R, n int) string {
	if e, ok := any(rows[n-1]).(*store.Execution); ok && byCreation(q) {
		return positionToken(store.PositionOf(e))
	}
	return strconv.Itoa(q.Offset + n)
}

func byCreation(q store.Query) bool {
	return q.SortBy == "" || strings.TrimPrefix(q.SortBy, "execution.") == "created_at"
}

// A token is a number of rows, which flytectl computes itself, or a position behind this letter.
const positionLetter = "p"

func positionToken(p *store.Position) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(p.CreatedAt.UnixNano()))
	return positionLetter + base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(b, uint64(p.Key)))
}

func parsePosition(token string) (*store.Position, bool) {
	text, ok := strings.CutPrefix(token, positionLetter)
	b, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(b) != 16 {
		return nil, false
	}
	return &store.Position{CreatedAt: time.Unix(0, int64(binary.BigEndian.Uint64(b))), Key: store.Key(binary.BigEndian.Uint64(b[8:]))}, true
}
