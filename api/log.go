package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// logChunk is how many bytes of a log are read at once.
const logChunk = 64 << 10

// logInterval is the time between two reads of a log that is being written.
const logInterval = 150 * time.Millisecond

// GetLogs sends what an execution's attempts wrote, in the order in which the attempts were created; while following, also new
// lines of all attempts as they come. ErrNotFound if there is no such execution, node or attempt.
func (r *Runs) GetLogs(ctx context.Context, request *aloftv1.GetLogsRequest, stream *connect.ServerStream[aloftv1.GetLogsResponse]) error {
	if n := request.GetTailLines(); n < 0 {
		return fmt.Errorf("get logs: tail_lines is %d; want a number of lines, or 0 for all of them: %w", n, aloft.ErrInvalid)
	}
	l := &logReader{Runs: r, id: aloft.ExecutionIDOf(request.GetId()), node: request.GetNode(), request: request, logs: map[blob.Key]*log{}}
	wake, cancel := r.Store.Subscribe(store.TopicExecution(l.id))
	defer cancel()
	for {
		over, err := l.sendNew(ctx, stream)
		if err != nil || over {
			return err
		}
		if err := pause(ctx, wake, logInterval/3, logInterval); err != nil {
			return err
		}
	}
}

// logReader is the state of one call of GetLogs.
type logReader struct {
	*Runs
	id      aloft.ExecutionID
	node    string // as the client names it; the node's id as soon as the node is found; empty: all nodes
	request *aloftv1.GetLogsRequest
	logs    map[blob.Key]*log // of which a part may have been sent
	began   bool              // the first sendNew is over: logs that appear now are sent from their beginning
}

// sendNew sends what was written since the last call, and says whether the call is over. It gives back the room that it took.
func (l *logReader) sendNew(ctx context.Context, stream *connect.ServerStream[aloftv1.GetLogsResponse]) (over bool, err error) {
	defer room.Part(ctx)()
	var attempts []*store.Attempt
	if err := room.Again(ctx, func() error {
		over, attempts, err = l.look(ctx)
		return err
	}); err != nil {
		return false, err
	}
	for _, a := range attempts {
		for _, which := range []aloftv1.GetLogsResponse_Stream{aloftv1.GetLogsResponse_STDOUT, aloftv1.GetLogsResponse_STDERR} {
			key := blob.Key(a.ID.RunKey() + "/" + map[aloftv1.GetLogsResponse_Stream]string{0: "stdout", 1: "stderr"}[which])
			sent := l.logs[key]
			if sent == nil {
				sent = &log{node: string(a.Node), attempt: a.Attempt, stream: which, key: key}
				l.logs[key] = sent
				if !l.began && l.request.GetTailLines() > 0 {
					if err := sent.skipTo(ctx, l.Blobs, l.request.GetTailLines()); err != nil {
						return false, err
					}
				}
			}
			if err := sent.send(ctx, l.Blobs, stream); err != nil {
				return false, err
			}
		}
	}
	l.began = true
	return over, nil
}

// look finds the attempts whose logs the client wants, and whether all of these attempts have ended (over). It must run before the
// logs are read: then a log that is read after the end of its attempt has all lines.
func (l *logReader) look(ctx context.Context) (over bool, attempts []*store.Attempt, err error) {
	execution, err := l.Store.GetExecution(ctx, l.id)
	if err != nil {
		return false, nil, err
	}
	over = !l.request.GetFollow() || aloft.Terminal(execution.Phase)
	if l.node != "" {
		n, err := findNode(ctx, l.Store, l.id, l.node)
		switch {
		case err == nil:
			l.node = string(n.ID)
			over = over || aloft.Terminal(n.Phase)
		case !errors.Is(err, aloft.ErrNotFound) || over:
			return false, nil, err
		}
	}
	attempts, err = l.attempts(ctx, over)
	return over, attempts, err
}

// attempts lists the attempts that the client wants, in order of creation. While following, an attempt that does not exist yet
// is no error.
func (l *logReader) attempts(ctx context.Context, over bool) ([]*store.Attempt, error) {
	all, err := l.Store.ListAttempts(ctx, l.id, aloft.NodeID(l.node), store.Query{Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("list attempts of %s: %w", l.id, err)
	}
	var attempts []*store.Attempt
	for _, a := range all {
		if !a.ByEngine && (l.request.Attempt == nil || a.Attempt == l.request.GetAttempt()) {
			attempts = append(attempts, a)
		}
	}
	if request := l.request; len(attempts) == 0 && over && request.Attempt != nil { // people count from 1
		where, most := "node "+l.node, uint32(0)
		if l.node == "" {
			where = "each node"
		}
		for _, a := range all {
			if !a.ByEngine {
				most = max(most, a.Attempt+1)
			}
		}
		return nil, fmt.Errorf("attempt %d: %s of execution %s had up to %d: %w", request.GetAttempt()+1, where, l.id, most, aloft.ErrNotFound)
	}
	return attempts, nil
}

// log is stdout or stderr of one attempt, of which the first offset bytes have been sent or skipped.
type log struct {
	node    string
	attempt uint32
	stream  aloftv1.GetLogsResponse_Stream
	key     blob.Key
	offset  int64
}

func (l *log) send(ctx context.Context, blobs blob.Store, stream *connect.ServerStream[aloftv1.GetLogsResponse]) error {
	for {
		data, err := l.read(ctx, blobs, logChunk)
		if err != nil || len(data) == 0 {
			return err
		}
		l.offset += int64(len(data))
		if err := stream.Send(&aloftv1.GetLogsResponse{Node: l.node, Attempt: l.attempt, Stream: l.stream, Data: data}); err != nil {
			return err
		}
	}
}

// read returns the next bytes; none if no more are written yet.
func (l *log) read(ctx context.Context, blobs blob.Store, limit int64) ([]byte, error) {
	reader, err := blobs.Get(ctx, l.key, blob.Range{Offset: l.offset, Length: limit})
	if errors.Is(err, aloft.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	defer reader.Close()
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, fmt.Errorf("read log %s: %w", l.key, err)
	}
	return data, nil
}

// skipTo moves offset to the beginning of the last lines.
func (l *log) skipTo(ctx context.Context, blobs blob.Store, lines int64) error {
	var starts []int64 // offsets at which the last lines begin, at most lines of them
	begin := int64(0)
	for {
		data, err := l.read(ctx, blobs, logChunk)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			break
		}
		for rest, at := data, l.offset; ; {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			starts = append(starts, begin)
			if int64(len(starts)) > lines {
				starts = starts[1:]
			}
			at += int64(i) + 1
			begin, rest = at, rest[i+1:]
		}
		l.offset += int64(len(data))
	}
	if begin < l.offset { // the last line has no newline
		starts = append(starts, begin)
		if int64(len(starts)) > lines {
			starts = starts[1:]
		}
	}
	if len(starts) > 0 {
		l.offset = starts[0]
	}
	return nil
}
