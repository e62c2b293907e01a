package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// inboxes is what an engine has read of the inboxes of its executions. Everything that reaches an execution from outside is
// a row in its inbox. The collector reads the rows of all executions of our shards together, in the order of their sequence,
// and never stops before the last one: what one execution cannot consume hides nothing of the others. What is kept of them
// in memory is bounded in bytes:
//
//   - bytes of a run's inbox ≤ runInboxBytes, but for its first message, which is always known;
//   - bytes of all inboxes ≤ allInboxBytes, but for what is always known of each run: that there is a first message, with
//     its content only if that is Create, which is small, and those that end the run;
//   - of a run whose step could not be done, the first message and those that end it (terminate, give up), which go before
//     all others;
//   - of a large message (store.InboxRow), only that it is there and its size, until a step reads it.
//
// The cursor is the sequence up to which rows have been read: 0 ≤ cursor. Each row after it is unread. A row at or before
// it is in memory (known), was consumed, or was left in the store: then its run's unread is not after it. When such a run
// has no messages in memory any more, or may try again, the cursor goes back before its unread. It also goes back to the
// beginning at each poll, because a transaction may become visible after one with a larger sequence. Rows that were consumed
// while the collector was reading (consumed) may be in what it read, and are not taken for new ones.
//
// A row that cannot be understood (damaged) stops its own execution alone, which waits and says why, until it is terminated:
// then it ends at once (endUnread).
//
// Engine.mu guards it.
type inboxes struct {
	known    map[int64]struct{} // rows in memory
	consumed map[int64]struct{} // rows that went since the present collection began
	bytes    int64              // of the known rows
	cursor   int64
	reread   int64 // the cursor goes back before this row; 0: it does not
}

// inbox is what is known of one run's inbox.
type inbox struct {
	messages []store.InboxRow // known, not consumed and not taken, oldest first
	taken    []store.InboxRow // those that the present step consumes
	damaged  []store.InboxRow // that cannot be understood: of small ones the first, and the large ones that were read
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
	inboxRowBytes   = 256 // that a row and its message take beside the message's bytes, about
)

// rowBytes is what a row is counted for: less than it takes in memory where its message has many small values (weight.Kept).
func rowBytes(row store.InboxRow) int64 {
	if row.Inbox == nil {
		return inboxRowBytes
	}
	return int64(row.Size) + inboxRowBytes
}

func newInboxes() inboxes {
	return inboxes{known: make(map[int64]struct{}), consumed: make(map[int64]struct{})}
}

// begin begins a collection, and says after which row: where the last one ended, before what is to be read again, or at the
// beginning.
func (in *inboxes) begin(again bool) (after int64) {
	switch {
	case again:
		in.cursor = 0
	case in.reread > 0:
		in.cursor = min(in.cursor, in.reread-1)
	}
	in.reread = 0
	in.consumed = make(map[int64]struct{})
	return in.cursor
}

// rereadFrom lets the next collection begin before a row.
func (in *inboxes) rereadFrom(seq int64) {
	if in.reread == 0 || seq < in.reread {
		in.reread = seq
	}
}

// seen says whether a row is known, or was consumed after it had been read.
func (in *inboxes) seen(row store.InboxRow) bool {
	_, known := in.known[row.Seq]
	_, gone := in.consumed[row.Seq]
	return known || gone
}

// add gives an inbox a row, or leaves the row in the store if there is no room. Of a run that waits until it may try again
// only the first is known, and what ends it.
func (in *inboxes) add(b *inbox, row store.InboxRow, waits bool) (added bool) {
	size := rowBytes(row)
	fits := !waits && b.bytes+size <= runInboxBytes && in.bytes+size <= allInboxBytes
	switch {
	case row.Unreadable != nil && len(b.damaged) > 0, !fits && !b.empty() && !ends(row):
		b.leave(row.Seq)
		return false
	case in.bytes+size > allInboxBytes && !creates(row) && !ends(row):
		row.Inbox = nil // it is read by the step that takes it, as a large one
		size = rowBytes(row)
	}
	in.known[row.Seq] = struct{}{}
	b.bytes += size
	in.bytes += size
	if row.Unreadable != nil {
		b.damaged = append(b.damaged, row)
	} else {
		b.insert(row)
	}
	return true
}

// forget takes rows out of memory. Those that are still in the store are read again once the cursor goes back.
func (in *inboxes) forget(b *inbox, rows []store.InboxRow) {
	for _, m := range rows {
		delete(in.known, m.Seq)
		b.bytes -= rowBytes(m)
		in.bytes -= rowBytes(m)
	}
}

// consume takes rows out of memory that are not in the store any more.
func (in *inboxes) consume(b *inbox, rows []store.InboxRow) {
	in.forget(b, rows)
	for _, m := range rows {
		in.consumed[m.Seq] = struct{}{}
	}
}

// release leaves in the store what a run that cannot go on now has in memory: all but its first message and those that end it.
func (in *inboxes) release(b *inbox) {
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
	in.forget(b, left)
	b.messages = kept
}

// drop forgets all of an inbox; what is in the store is to be read again.
func (in *inboxes) drop(b *inbox) (left bool) {
	for _, rows := range b.rows() {
		in.forget(b, rows)
		for _, m := range rows {
			b.leave(m.Seq)
		}
	}
	left = in.rewind(b)
	*b = inbox{}
	return left
}

// end forgets all of an inbox whose rows are not in the store any more, or of no use.
func (in *inboxes) end(b *inbox) {
	for _, rows := range b.rows() {
		in.consume(b, rows)
	}
	*b = inbox{}
}

// rewind lets the next collection read what was left in the store of an inbox, if anything was.
func (in *inboxes) rewind(b *inbox) (left bool) {
	if b.unread == 0 {
		return false
	}
	in.rereadFrom(b.unread)
	b.unread = 0
	return true
}

func (b *inbox) rows() [][]store.InboxRow {
	return [][]store.InboxRow{b.messages, b.taken, b.damaged}
}

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

// take chooses what the next step consumes. Giving up goes before all others, which may be what cannot be done, and so does
// a request to terminate where something of the execution cannot be understood, or the last step could not be done. Create
// goes with them: what has not started cannot end.
func (b *inbox) take(failed bool) {
	var first func(store.InboxRow) bool
	switch {
	case slices.ContainsFunc(b.messages, givesUp):
		first = givesUp
	case (failed || len(b.damaged) > 0) && slices.ContainsFunc(b.messages, terminates):
		first = terminates
	}
	if first != nil {
		var rest []store.InboxRow
		for _, m := range b.messages {
			if first(m) || creates(m) {
				b.taken = append(b.taken, m)
			} else {
				rest = append(rest, m)
			}
		}
		b.messages = rest
		return
	}
	n, size := 0, 0
	for n < min(len(b.messages), messagesPerStep) && (n == 0 || size+b.messages[n].Size <= bytesPerStep) {
		size += b.messages[n].Size
		n++
	}
	b.taken, b.messages = b.messages[:n:n], b.messages[n:]
	if len(b.messages) == 0 {
		b.messages = nil // release the backing array
	}
}

// damage notes of rows that the present step took that they cannot be understood: it does not consume them.
func (b *inbox) damage(rows []store.InboxRow) {
	b.taken = slices.DeleteFunc(slices.Clone(b.taken), func(m store.InboxRow) bool {
		return slices.ContainsFunc(rows, func(d store.InboxRow) bool { return d.Seq == m.Seq })
	})
	b.damaged = append(b.damaged, rows...)
}

// giveBack puts what a step took and did not consume before the other messages.
func (b *inbox) giveBack() {
	if len(b.taken) > 0 {
		b.messages = append(slices.Clip(b.taken), b.messages...)
		b.taken = nil
	}
}

func creates(m store.InboxRow) bool { return m.Inbox.GetCreate() != nil }

func terminates(m store.InboxRow) bool { return m.Inbox.GetTerminate() != nil }

func givesUp(m store.InboxRow) bool { return m.Inbox.GetGiveUp() != nil }

func ends(m store.InboxRow) bool { return terminates(m) || givesUp(m) }

// add gives a run a message that was read from the inbox, and makes it ready. The caller holds mu.
func (e *Engine) add(row store.InboxRow) {
	if e.inboxes.seen(row) {
		return
	}
	r := e.run(row.Execution, row.Shard)
	if !e.inboxes.add(&r.inbox, row, !r.retryAt.IsZero()) {
		return
	}
	if !r.busy && ends(row) {
		r.retryAt = time.Time{} // what cannot be done may not have to be done any more
	}
	e.push(r)
}

// rewind lets the collector read again what was left in the store of a run. The caller holds mu.
func (e *Engine) rewind(r *run) {
	if e.inboxes.rewind(&r.inbox) {
		e.wakeCollector()
	}
}
