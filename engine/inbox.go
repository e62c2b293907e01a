package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// inboxes is what an engine has read of the inboxes of its executions. Everything that reaches an execution from outside is a
// row in its inbox. The collector reads the rows of all executions of the engine's shards together, in the order of their
// sequence, and never stops before the last one: messages that one execution cannot consume do not hide those of the others.
// What is kept of the rows in memory is bounded in bytes:
//
//   - bytes of a run's inbox ≤ runInboxBytes, but for its first message, which is always known;
//   - bytes of all inboxes ≤ allInboxBytes, but for what is always known of each run: that there is a first message, with
//     its content only if that is Create, which is small, and the messages that end the run (terminate, give up);
//   - of a run whose step could not be done, the first message and those that end the run, which go before all others;
//   - of a large message (store.InboxRow), only that it is there and its size, until a step reads it.
//
// The cursor is the sequence up to which rows have been read, and from which the collector reads on: 0 ≤ cursor. Of each row at
// or before the cursor that is in the store, one of these holds:
//
//	it is in memory (known), or
//	0 < oldestLeft of its run ≤ its sequence    it was left in the store, or
//	0 < reread ≤ its sequence                   the next collection begins before it
//
// When a run whose messages were left has none in memory any more, or may try again, the next collection begins before its
// oldestLeft. At each poll it begins at 0, because a transaction may become visible after one with a larger sequence, and
// because a read of the store may have failed. Rows that a commit consumed while the collector was reading (consumed) may be
// among those that it read, and are not taken for new ones.
//
// A step takes messages from the front (taken). Its commit consumes them; if the step fails or is refused they are put back.
//
// A row that cannot be understood (damaged) stops its own execution alone, which waits and says why, until it is terminated:
// then it ends at once (endUnread).
//
// Example: of a run's 200 outcomes of 10 KiB each, rows 11 to 210, the first 99 fit into runInboxBytes. Row 110 and those after
// it are left: oldestLeft is 110, and the cursor goes on to 210 and beyond. When the run has consumed rows 11 to 109, reread is
// 110: the next collection begins after row 109, skips the rows of other runs that are known, and takes in the next 99.
//
// Engine.mu guards it.
type inboxes struct {
	known    map[int64]struct{} // rows in memory
	consumed map[int64]struct{} // rows that were consumed since the present collection began
	bytes    int64              // of the known rows
	cursor   int64
	reread   int64 // the oldest row that the next collection is to read again; 0: none
}

// inbox is what is known of one run's inbox.
type inbox struct {
	messages   []store.InboxRow // known and not taken, oldest first
	taken      []store.InboxRow // those that the present step is made with
	damaged    []store.InboxRow // rows that cannot be understood: the first of the small ones, and the large ones that were read
	bytes      int64            // of all of these
	oldestLeft int64            // sequence of the oldest row that was seen and left in the store; 0: none
}

// Bounds of inboxes in memory and of what one step takes.
const (
	messagesPerRead = 1000
	messagesPerStep = 1000
	bytesPerStep    = 8 << 20
	runInboxBytes   = 1 << 20
	allInboxBytes   = 64 << 20
	inboxRowBytes   = 256 // what a row and its message take beside the message's bytes, about
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

// beginCollection returns the sequence after which the next collection reads: where the last one ended, before the oldest row
// that is to be read again, or 0.
func (in *inboxes) beginCollection(fromStart bool) (after int64) {
	switch {
	case fromStart:
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

// seen says whether a row that was read is known, or was consumed meanwhile.
func (in *inboxes) seen(row store.InboxRow) bool {
	_, known := in.known[row.Seq]
	_, gone := in.consumed[row.Seq]
	return known || gone
}

// add gives an inbox a row, or leaves the row in the store if there is no room. Of a run that waits until it may try again
// only the first message is known, and those that end the run.
func (in *inboxes) add(b *inbox, row store.InboxRow, waits bool) (added bool) {
	size := rowBytes(row)
	fits := !waits && b.bytes+size <= runInboxBytes && in.bytes+size <= allInboxBytes
	switch {
	case row.Unreadable != nil && len(b.damaged) > 0, !fits && !b.empty() && !endsRun(row):
		b.leaveInStore(row.Seq)
		return false
	case in.bytes+size > allInboxBytes && !creates(row) && !endsRun(row):
		row.Inbox = nil // as of a large message: the step that takes the row reads it
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

// leaveAllButFirst leaves in the store what a run that cannot go on now has in memory: all but its first message and those that
// end the run.
func (in *inboxes) leaveAllButFirst(b *inbox) {
	if len(b.messages) < 2 {
		return
	}
	kept := b.messages[:1:1]
	var left []store.InboxRow
	for _, m := range b.messages[1:] {
		if endsRun(m) {
			kept = append(kept, m)
		} else {
			left = append(left, m)
			b.leaveInStore(m.Seq)
		}
	}
	in.forget(b, left)
	b.messages = kept
}

// drop forgets all of an inbox. left: some of its rows are in the store, and the next collection reads them again.
func (in *inboxes) drop(b *inbox) (left bool) {
	for _, rows := range b.rows() {
		in.forget(b, rows)
		for _, m := range rows {
			b.leaveInStore(m.Seq)
		}
	}
	left = in.rewind(b)
	*b = inbox{}
	return left
}

// end forgets all of an inbox whose rows are not in the store any more, or of no use to an execution that has ended.
func (in *inboxes) end(b *inbox) {
	for _, rows := range b.rows() {
		in.consume(b, rows)
	}
	*b = inbox{}
}

// rewind lets the next collection read the rows of an inbox that were left in the store. left: there were some.
func (in *inboxes) rewind(b *inbox) (left bool) {
	if b.oldestLeft == 0 {
		return false
	}
	in.rereadFrom(b.oldestLeft)
	b.oldestLeft = 0
	return true
}

func (b *inbox) rows() [][]store.InboxRow {
	return [][]store.InboxRow{b.messages, b.taken, b.damaged}
}

func (b *inbox) empty() bool { return len(b.messages)+len(b.taken)+len(b.damaged) == 0 }

// leaveInStore notes that a row is in the store and not in memory.
func (b *inbox) leaveInStore(seq int64) {
	if b.oldestLeft == 0 || seq < b.oldestLeft {
		b.oldestLeft = seq
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

// take chooses the messages of the next step: the oldest, at most messagesPerStep and about bytesPerStep. A message to give up
// goes before all others, because they may be what the last step failed by. So does a request to terminate if the last step
// failed or a message is damaged. Create goes with either: an execution that has not started cannot end.
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

// markDamaged notes that rows which the present step took cannot be understood: the step is not made with them.
func (b *inbox) markDamaged(rows []store.InboxRow) {
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

func endsRun(m store.InboxRow) bool { return terminates(m) || givesUp(m) }

// addMessage gives a run a message that was read from its inbox, and makes the run ready. The caller holds mu.
func (e *Engine) addMessage(row store.InboxRow) {
	if e.inboxes.seen(row) {
		return
	}
	r := e.runOf(row.Execution, row.Shard)
	if !e.inboxes.add(&r.inbox, row, !r.retryAt.IsZero()) {
		return
	}
	if !r.busy && endsRun(row) {
		r.retryAt = time.Time{} // the step that failed may not be needed any more
	}
	e.makeReady(r)
}

// rewind lets the collector read the messages of a run that were left in the store. The caller holds mu.
func (e *Engine) rewind(r *run) {
	if e.inboxes.rewind(&r.inbox) {
		e.wakeCollector()
	}
}
