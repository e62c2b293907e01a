package engine

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/recovery"
	"github.com/aloft-dev/aloft/store"
)

// source is an execution that another one recovers. It has ended and never changes. The run of the recovering execution keeps
// it until the run leaves memory, and its bytes count as the run's (memory.go).
type source struct {
	id       aloft.ExecutionID
	run      *recovery.Run
	bytes    int64                // that the nodes take, about
	finished []aloft.NodeID       // nodes in the order in which they began, which is about that in which they are asked for
	index    map[aloft.NodeID]int // of nodes in finished
}

// valuesPerRead is how many nodes' inputs and outputs are read at once: those of the node that is asked for, and of the nodes
// that began after it. With 64 KiB for each value this bounds a read at 32 MiB.
const valuesPerRead = 256

// sourceNodeBytes is what a node of a source takes beside its texts and messages, about.
const sourceNodeBytes = 400

// nodesPerRead is how many nodes of a source are listed at once.
const nodesPerRead = 10_000

// readSource reads which nodes an execution had finished, page by page: there may be very many.
func (e *Engine) readSource(ctx context.Context, id aloft.ExecutionID) (*source, error) {
	var records []*store.Node
	for last := nodesPerRead; last == nodesPerRead; {
		page, err := e.store.ListNodes(ctx, id, "", true, store.Query{Ascending: true, Limit: nodesPerRead, Offset: len(records)})
		if err != nil && !errors.Is(err, aloft.ErrNotFound) { // ErrNotFound: deleted, nothing is left to be taken over
			return nil, fmt.Errorf("read nodes of execution %s: %w", id, err)
		}
		records, last = append(records, page...), len(page)
	}
	s := &source{id: id, run: recovery.NewRun(records), index: make(map[aloft.NodeID]int)}
	for _, n := range records {
		s.bytes += sourceNodeBytes + int64(4*len(n.ID)+len(n.DeckURI)) + weight.Decoded(int64(proto.Size(n.Cache)+proto.Size(n.Target)))
		if aloft.Succeeded(n.Phase) && n.Unreadable == nil {
			s.index[n.ID] = len(s.finished)
			s.finished = append(s.finished, n.ID)
		}
	}
	return s, nil
}

// Recovered says what the source, the execution that this one recovers, has of a node. Its nodes are listed once; their inputs
// and outputs are read many at a time, when the first of them is asked for.
func (f *facts) Recovered(node machine.NodeRef) (machine.Recovery, error) {
	if f.run.source == nil {
		s, err := f.engine.readSource(f.ctx, aloft.ExecutionIDOf(f.state.Create().GetRecovers()))
		if err != nil {
			return machine.Recovery{}, err
		}
		f.run.source = s
	}
	s := f.run.source
	d := s.run.Decide(pathOf(node), node.Template())
	if !d.Take {
		return machine.Recovery{Checkpoint: d.Checkpoint}, nil
	}
	record, err := f.finishedNode(s, d.Source.ID)
	if err != nil {
		return machine.Recovery{}, err
	}
	if record.Unreadable != nil {
		f.engine.logger.Info("a finished node runs again", "execution", s.id.String(), "node", string(d.Source.ID), "reason", record.Unreadable)
		return machine.Recovery{}, nil //nolint:nilerr // its record is damaged: the node runs again
	}
	if catalog := f.engine.config.Catalog; catalog != nil {
		// Files may have been removed or have rotted since: then the node runs again, as it would after a hit on such a result.
		problem, err := catalog.Lost(f.ctx, record.Outputs)
		if err != nil {
			return machine.Recovery{}, fmt.Errorf("look for the outputs of node %s of execution %s: %w", d.Source.ID, s.id, err)
		}
		if problem != "" {
			f.engine.logger.Info("a finished node runs again", "execution", s.id.String(), "node", string(d.Source.ID), "reason", problem)
			return machine.Recovery{}, nil
		}
	}
	return machine.Recovery{
		Take: true, Inputs: f.takeOver(record.Inputs), Outputs: f.takeOver(record.Outputs),
		DeckURI: d.Source.DeckURI, Cache: d.Source.Cache, Source: d.Source.ID,
	}, nil
}

func pathOf(node machine.NodeRef) recovery.Path {
	var above recovery.Path
	if parent, nested := node.Parent(); nested {
		above = pathOf(parent)
	}
	return above.Join(node.SpecID())
}

// finishedNode is the record of a finished node of the source with its values.
func (f *facts) finishedNode(s *source, id aloft.NodeID) (*store.Node, error) {
	if n := f.sourceNodes[id]; n != nil {
		return n, nil
	}
	from := s.index[id]
	records, err := f.engine.store.NodeValues(f.ctx, s.id, s.finished[from:min(from+valuesPerRead, len(s.finished))])
	if err != nil {
		return nil, fmt.Errorf("read inputs and outputs of execution %s: %w", s.id, err)
	}
	f.sourceNodes = make(map[aloft.NodeID]*store.Node, len(records))
	for _, n := range records {
		f.sourceNodes[n.ID] = n
	}
	if n := f.sourceNodes[id]; n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("node %s of execution %s, which had finished: %w", id, s.id, aloft.ErrNotFound)
}

// takeOver keeps a value of the source at hand for the record of the node that takes it over, and for nodes that bind to it.
func (f *facts) takeOver(l *aloftv1.Literals) *aloftv1.LiteralRef {
	if len(l.GetRef().GetDigest()) == 0 {
		return nil
	}
	f.cacheValue(l, l.GetValue())
	return l.GetRef()
}
