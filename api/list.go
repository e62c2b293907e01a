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

// A page has at most aloft.MaxPageRows rows and as many bytes as its client takes, even if the request asks for more. A page that
// is not the last has a token: a client that goes on until there is no token gets all rows.

// pageBytes is the size limit of a page. flytectl, and most programs with gRPC's own libraries, take no message above 4 MiB;
// flytekit, whose user agent is grpc-python, raises that to 20 MiB; clients of other protocols have no limit.
func pageBytes(ctx context.Context) int {
	if agent := callerOf(ctx).userAgent; strings.HasPrefix(agent, "grpc-") && !strings.HasPrefix(agent, "grpc-python") {
		return aloft.MaxSmallPageBytes
	}
	return aloft.MaxPageBytes
}

// withBudget bounds the bytes that a list reads from the store, at twice the size of a page: a record may be somewhat larger or
// smaller than its message. fillPage then cuts the page by the size of its messages.
func withBudget(ctx context.Context, q store.Query) store.Query {
	q.Budget = &store.Budget{Bytes: 2 * pageBytes(ctx)}
	return q
}

// fillPage makes the messages of a page, and its token. A row that is larger than a page is listed without its content: slim takes
// the content out of the message and puts the note there.
func fillPage[R any, M proto.Message](ctx context.Context, q store.Query, rows []R, message func(R) (M, error), slim func(m M, note string)) (page []M, token string, err error) {
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
		if m, err = makeListable(ctx, &buffer, m, slim); err != nil {
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

// makeListable returns a message that all clients can read in a list, because a row that a client cannot read takes the whole
// list from it. A message that is nested too deep, which an earlier release may have accepted, loses its content. A value
// without a form in JSON is replaced, because flytekit turns the custom part of tasks into JSON. buffer is reused for one
// message after the other.
func makeListable[M proto.Message](ctx context.Context, buffer *[]byte, m M, slim func(m M, note string)) (M, error) {
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
	if err != nil || seen.Formed && seen.Depth < legible.MaxDepth { // below, not at: the list around the message is a level, too
		return m, err
	}
	m = proto.CloneOf(m) // parts of m may belong to a record in a cache
	if seen.Depth >= legible.MaxDepth {
		legible.Known(m)
		if seen, err = look(); err == nil && seen.Depth >= legible.MaxDepth {
			slim(m, fmt.Sprintf("messages that are nested %d levels deep were left out of this list: get it by its id", legible.MaxDepth))
		}
	}
	legible.Mend(m)
	return m, err
}

// tokenBehind is the token of the page behind the first n rows: a position if the rows are executions in order of creation,
// else the number of rows before it.
func tokenBehind[R any](q store.Query, rows []R, n int) string {
	if e, ok := any(rows[n-1]).(*store.Execution); ok && sortedByCreation(q) {
		return positionToken(store.PositionOf(e))
	}
	return strconv.Itoa(q.Offset + n)
}

func sortedByCreation(q store.Query) bool {
	return q.SortBy == "" || strings.TrimPrefix(q.SortBy, "execution.") == "created_at"
}

// A token is a number of rows, which flytectl also computes itself, or a position, which begins with this letter.
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
