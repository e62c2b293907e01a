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
	"github.com/aloft-dev/aloft/store"
)

// logChunk is what is read of a log at once.
const logChunk = 64 << 10

// followLogs is how often a log that is being written is looked at.
const followLogs = 150 * time.Millisecond

// GetLogs sends what an execution's attempts wrote, those that began first coming first; while following, new lines of
// all of them as they come. ErrNotFound for an execution, node or attempt that is not there.
func (r *Runs) GetLogs(ctx context.Context, request *aloftv1.GetLogsRequest, stream *connect.ServerStream[aloftv1.GetLogsResponse]) error {
	id, node := aloft.ExecutionIDOf(request.GetId()), aloft.NodeID(request.GetNode())
	named := node == "" // whether node is one that exists, and not only what somebody calls it
	wake, cancel := r.Store.Subscribe(store.TopicExecution(id))
	defer cancel()
	logs := map[string]*log{}
	for first := true; ; first = false {
		execution, err := r.Store.GetExecution(ctx, id)
		if err != nil {
			return err
		}
		if !named {
			n, err := findNode(ctx, r.Store, id, request.GetNode())
			switch {
			case err == nil:
				node, named = n.ID, true
			case !errors.Is(err, aloft.ErrNotFound) || !request.GetFollow() || aloft.Terminal(execution.Phase):
				return err
			}
		}
		attempts, err := r.attempts(ctx, id, node, request, aloft.Terminal(execution.Phase) || !request.GetFollow())
		if err != nil {
			return err
		}
		for _, a := range attempts {
			for _, which := range []aloftv1.GetLogsResponse_Stream{aloftv1.GetLogsResponse_STDOUT, aloftv1.GetLogsResponse_STDERR} {
				key := blob.Key(a.ID.RunKey() + "/" + map[aloftv1.GetLogsResponse_Stream]string{0: "stdout", 1: "stderr"}[which])
				l := logs[string(key)]
				if l == nil {
					l = &log{node: string(a.Node), attempt: a.Attempt, stream: which, key: key}
					logs[string(key)] = l
					if first && request.GetTailLines() > 0 {
						if err := l.skipTo(ctx, r.Blobs, request.GetTailLines()); err != nil {
							return err
						}
					}
				}
				if err := l.send(ctx, r.Blobs, stream); err != nil {
					return err
				}
			}
		}
		if !request.GetFollow() || aloft.Terminal(execution.Phase) {
			return nil
		}
		if node != "" {
			n, err := r.Store.GetNode(ctx, id, node)
			if err != nil && !errors.Is(err, aloft.ErrNotFound) {
				return err
			}
			if err == nil && aloft.Terminal(n.Phase) {
				return nil
			}
		}
		if err := pause(ctx, wake, followLogs/3, followLogs); err != nil {
			return err
		}
	}
}

// attempts lists those that were asked for, in order of creation. While following, a node that has not begun is no mistake.
func (r *Runs) attempts(ctx context.Context, id aloft.ExecutionID, node aloft.NodeID, request *aloftv1.GetLogsRequest, over bool) ([]*store.Attempt, error) {
	all, err := r.Store.ListAttempts(ctx, id, node, store.Query{Ascending: true})
	if err != nil {
		return nil, fmt.Errorf("list attempts of %s: %w", id, err)
	}
	var attempts []*store.Attempt
	for _, a := range all {
		if !a.ByEngine && (request.Attempt == nil || a.Attempt == request.GetAttempt()) {
			attempts = append(attempts, a)
		}
	}
	if len(attempts) == 0 && node != "" && over {
		if request.Attempt != nil {
			return nil, fmt.Errorf("attempt %d of node %s of execution %s: %w", request.GetAttempt(), node, id, aloft.ErrNotFound)
		}
		if _, err := r.Store.GetNode(ctx, id, node); err != nil {
			return nil, err
		}
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
