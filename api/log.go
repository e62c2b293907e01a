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

// logChunk is what is read of a log at once.
const logChunk = 64 << 10

// followLogs is how often a log that is being written is looked at.
const followLogs = 150 * time.Millisecond

// GetLogs sends what an execution's attempts wrote, those that began first coming first; while following, new lines of
// all of them as they come. ErrNotFound for an execution, node or attempt that is not there.
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
		if err := pause(ctx, wake, followLogs/3, followLogs); err != nil {
			return err
		}
	}
}

// logReader is what a call of GetLogs knows.
type logReader struct {
	*Runs
	id      aloft.ExecutionID
	node    string // as it was asked for, and by its id from when it is known; empty: all
	request *aloftv1.GetLogsRequest
	logs    map[blob.Key]*log
	began   bool // the first sendNew is over: streams that appear now are sent from their beginning
}

// sendNew sends what is new. The room that it takes is free again when it has been sent.
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

// look finds the attempts whose logs were asked for, and whether nothing is added to these after. That is looked at first: what
// is written before an end and after the look is sent then.
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

// attempts lists those that were asked for, in order of creation. While following, one that has not begun is no mistake.
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

// log is one stream of one attempt, as far as it has been sent.
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

// read returns the next bytes; none if there is nothing yet.
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

// skipTo moves to the last lines.
func (l *log) skipTo(ctx context.Context, blobs blob.Store, lines int64) error {
	var starts []int64 // of the last lines, a ring
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
	if begin < l.offset { // a last line without an end
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
