package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// Everything that reaches an execution from outside is a row in its inbox. The collector reads the rows of all executions
// of our shards together, in the order of their sequence, and never stops before the last one: what one execution cannot
// consume hides nothing of the others. What is kept of each execution in memory is bounded in bytes:
//
//   - bytes of a run ≤ runInboxBytes, but for its first message, which is always kept;
//   - bytes of all runs ≤ allInboxBytes, but for the first message of each;
//   - of a run whose step could not be done, the first message and those that end it (terminate, give up), which go before
//     all others;
//   - of a large message (store.InboxRow), its size until a step takes it.
//
// The cursor is the sequence up to which rows have been read: 0 ≤ cursor. Each row after it is unread. A row at or before
// it is in memory (known), was consumed, or was left in the store: then its run's unread is not after it. When such a run
// has no messages in memory any more, or may try again, the cursor goes back before its unread. It also goes back to the
// beginning at each poll, because a transaction may become visible after one with a larger sequence. Rows that were consumed
// while the collector was reading (consumedSinceRead) may be in what it read, and are not taken for new ones.
//
// A row that cannot be understood (damaged) stops its own execution alone, which waits and says why, until it is terminated.
type inbox struct {
	messages []store.InboxRow // known, not consumed and not taken, oldest first
	taken    []store.InboxRow // those that the present step consumes
	damaged  []store.InboxRow // the first that cannot be understood; empty: none is known
	bytes    int64            // of all of these
	unread   int64            // sequence of the oldest row that was seen and left in the store; 0: none
}

// Bounds of what is in memory of inboxes.
const (
	messagesPerRead = 1000
	messagesPerStep = 1000
	bytesPerStep    = 8 << 20
	runInboxBytes   = 1 << 20
	allInboxBytes   = 64 << 20
	inboxRowBytes   = 256 // that a row takes beside its message, about
)

func rowBytes(row store.InboxRow) int64 { return int64(row.Size) + inboxRowBytes }

func (b *inbox) empty() bool { return len(b.messages)+len(b.taken)+len(b.damaged) == 0 }

// leave notes that a row is in the store and not in memory.
func (b *inbox) leave(seq int64) {
	if b.unread == 0 || seq < b.unread {
		b.unread = seq
	}
}

// insert adds a message in the order of sequences.
func (b *inbox) insert(row store.InboxRow) {
	if last := len(b.messages) - 1; last < 0 || b.messages[last].Seq < row.Seq {
		b.messages = append(b.messages, row)
		return
	}
	at, _ := slices.BinarySearchFunc(b.messages, row.Seq, func(m store.InboxRow, seq int64) int { return cmp.Compare(m.Seq, seq) })
	b.messages = slices.Insert(b.messages, at, row)
}

// giveBack puts what a step took and did not consume before the other messages.
func (b *inbox) giveBack() {
	if len(b.taken) > 0 {
		b.messages = append(slices.Clip(b.taken), b.messages...)
		b.taken = nil
	}
}

func terminates(m store.InboxRow) bool { return m.Inbox.GetTerminate() != nil }

func givesUp(m store.InboxRow) bool { return m.Inbox.GetGiveUp() != nil }

func ends(m store.InboxRow) bool { return terminates(m) || givesUp(m) }

// add gives a run a message that was read from the inbox, if there is room. The caller holds mu, as for all methods here.
func (e *Engine) add(row store.InboxRow) {
	if _, have := e.known[row.Seq]; have {
		return
	}
	if _, gone := e.consumedSinceRead[row.Seq]; gone {
		return
	}
	r := e.run(row.Execution, row.Shard)
	b := &r.inbox
	size := rowBytes(row)
	fits := b.empty() || r.retryAt.IsZero() && b.bytes+size <= runInboxBytes && e.inboxBytes+size <= allInboxBytes
	if !fits && !ends(row) || row.Unreadable != nil && len(b.damaged) > 0 {
		b.leave(row.Seq)
		return
	}
	e.known[row.Seq] = struct{}{}
	b.bytes += size
	e.inboxBytes += size
	if row.Unreadable != nil {
		b.damaged = append(b.damaged, row)
	} else {
		b.insert(row)
	}
	if !r.busy && ends(row) {
		r.retryAt = time.Time{} // what cannot be done may not have to be done any more
	}
	e.push(r)
}

// forget takes rows out of memory. Those that are still in the store are read again once the cursor goes back.
func (e *Engine) forget(r *run, rows []store.InboxRow) {
	for _, m := range rows {
		delete(e.known, m.Seq)
		r.inbox.bytes -= rowBytes(m)
		e.inboxBytes -= rowBytes(m)
	}
}

// consume takes rows out of memory that are not in the store any more.
func (e *Engine) consume(r *run, rows []store.InboxRow) {
	e.forget(r, rows)
	for _, m := range rows {
		e.consumedSinceRead[m.Seq] = struct{}{}
	}
}

// take chooses what the next step consumes. Giving up goes before all others, which may be what cannot be done, and so does
// a request to terminate where something of the execution cannot be understood.
func (e *Engine) take(r *run) {
	b := &r.inbox
	first := func(store.InboxRow) bool { return false }
	switch {
	case slices.ContainsFunc(b.messages, givesUp):
		first = givesUp
	case (r.unreadable || len(b.damaged) > 0) && slices.ContainsFunc(b.messages, terminates):
		first = terminates
	}
	if slices.ContainsFunc(b.messages, first) {
		var rest []store.InboxRow
		for _, m := range b.messages {
			if first(m) || m.Inbox.GetCreate() != nil {
				b.taken = append(b.taken, m)
			} else {
				rest = append(rest, m)
			}
		}
		b.messages = rest
		return
	}
	n, size := 0, int64(0)
	for n < min(len(b.messages), messagesPerStep) && (n == 0 || size+rowBytes(b.messages[n]) <= bytesPerStep) {
		size += rowBytes(b.messages[n])
		n++
	}
	b.taken, b.messages = b.messages[:n:n], b.messages[n:]
	if len(b.messages) == 0 {
		b.messages = nil // release the backing array
	}
}

// release leaves in the store what a run that cannot go on now has in memory: all but its first message and those that end it.
func (e *Engine) release(r *run) {
	b := &r.inbox
	if len(b.messages) < 2 {
		return
	}
	kept := b.messages[:1:1]
	var left []store.InboxRow
	for _, m := range b.messages[1:] {
		if ends(m) {
			kept = append(kept, m)
		} else {
			left = append(left, m)
			b.leave(m.Seq)
		}
	}
	e.forget(r, left)
	b.messages = kept
}

// rewind lets the collector read again what was left in the store of a run.
func (e *Engine) rewind(r *run) {
	if r.inbox.unread == 0 {
		return
	}
	e.rereadFrom(r.inbox.unread)
	r.inbox.unread = 0
}

// rereadFrom lets the collector begin again at a sequence.
func (e *Engine) rereadFrom(seq int64) {
	if e.reread == 0 || seq < e.reread {
		e.reread = seq
	}
	e.wakeCollector()
}
