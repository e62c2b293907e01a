package engine

import (
	"math/rand/v2"
	"strings"
	"testing"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/store"
)

func message(seq int64, inbox *aloftv1.Inbox, size int) store.InboxRow {
	return store.InboxRow{Seq: seq, Inbox: inbox, Size: size}
}

var (
	wakeMessage      = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: strings.Repeat("x", 1000)}}}
	createMessage    = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: &aloftv1.Create{}}}
	terminateMessage = &aloftv1.Inbox{Kind: &aloftv1.Inbox_Terminate{Terminate: &aloftv1.Terminate{}}}
)

// However many executions have messages, the bytes of messages in memory are bounded; messages that begin or end an execution
// are always in memory.
func TestFirstMessagesAreBoundedTogether(t *testing.T) {
	t.Parallel()
	in := newInboxes()
	runs := make([]inbox, 3*allInboxBytes/store.MaxListedMessage)
	for i := range runs {
		if !in.add(&runs[i], message(int64(i+1), wakeMessage, store.MaxListedMessage), false) {
			t.Fatalf("of run %d it is not known that there is a message", i)
		}
	}
	if most := int64(allInboxBytes + len(runs)*inboxRowBytes); in.bytes > most {
		t.Errorf("%d messages of 16 KiB take %d bytes, want at most %d", len(runs), in.bytes, most)
	}
	last := &runs[len(runs)-1]
	if len(last.messages) != 1 || last.messages[0].Inbox != nil || last.messages[0].Size != store.MaxListedMessage {
		t.Errorf("of the last run %v is known, want that there is a message and its size", last.messages)
	}
	var created, ended inbox
	if !in.add(&created, message(1e6, createMessage, 100), false) || created.messages[0].Inbox == nil {
		t.Error("Create is not kept whole")
	}
	if !in.add(&ended, message(1e6+1, wakeMessage, 100), true) || !in.add(&ended, message(1e6+2, terminateMessage, 100), true) || ended.messages[1].Inbox == nil {
		t.Error("a request to terminate is not kept whole")
	}
	if in.add(&ended, message(1e6+3, wakeMessage, 100), true) || ended.oldestLeft != 1e6+3 {
		t.Errorf("of a run that waits a second message is known, or its place is not: %d", ended.oldestLeft)
	}
}

// The bytes that inboxes count are always those of the rows that they know, and each row that was left in the store is read
// again.
func TestBytesOfInboxesAreThoseOfKnownRows(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	in := newInboxes()
	runs := make([]inbox, 5)
	stored := map[int64]store.InboxRow{}
	of := map[int64]int{}
	last := int64(0)
	for range 20_000 {
		b := &runs[random.IntN(len(runs))]
		switch random.IntN(8) {
		case 0, 1, 2:
			last++
			kind := []*aloftv1.Inbox{wakeMessage, createMessage, terminateMessage, nil}[random.IntN(4)]
			stored[last], of[last] = message(last, kind, 1+random.IntN(runInboxBytes/8)), random.IntN(len(runs))
		case 3:
			for seq := in.beginCollection(random.IntN(4) == 0) + 1; seq <= last; seq++ {
				if row, there := stored[seq]; there && !in.seen(row) {
					in.add(&runs[of[seq]], row, random.IntN(2) == 0)
				}
			}
			in.cursor = last
		case 4:
			b.giveBack()
			b.take(random.IntN(2) == 0)
		case 5:
			for _, m := range b.taken {
				delete(stored, m.Seq)
			}
			in.consume(b, b.taken)
			b.taken = nil
		case 6:
			b.giveBack()
			in.leaveAllButFirst(b)
		case 7:
			if in.rewind(b); random.IntN(4) == 0 {
				in.drop(b)
			}
		}
		all := int64(0)
		rows := 0
		for i := range runs {
			own := int64(0)
			for _, group := range runs[i].rows() {
				for _, m := range group {
					own += rowBytes(m)
					rows++
				}
			}
			if own != runs[i].bytes {
				t.Fatalf("run %d counts %d bytes and has %d", i, runs[i].bytes, own)
			}
			all += own
		}
		if all != in.bytes || rows != len(in.known) {
			t.Fatalf("counted are %d bytes of %d rows, there are %d of %d", in.bytes, len(in.known), all, rows)
		}
		for seq := range stored {
			_, known := in.known[seq]
			unread := runs[of[seq]].oldestLeft
			if !known && seq <= in.cursor && !(unread > 0 && unread <= seq) && !(in.reread > 0 && in.reread <= seq) {
				t.Fatalf("message %d is before the cursor %d, not in memory, and nothing says that it was left", seq, in.cursor)
			}
		}
	}
	for i := range runs {
		in.end(&runs[i])
	}
	if in.bytes != 0 || len(in.known) != 0 {
		t.Errorf("after all have ended, %d bytes of %d rows are counted", in.bytes, len(in.known))
	}
}
