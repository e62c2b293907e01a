package weight

// Where nothing of a message is looked at but the size of its encoding, it is taken to need a multiple of that. No multiple is
// right for all: one long text needs once its size, outputs of tasks 4 to 11 times, compiled workflows 6 to 14 times, many
// empty literals 45 times. Which one is used depends on what a wrong one would do:
//
//	Most     room for one message that comes from a task: too little, and that one fills the memory of the server
//	Kept     the bound of a cache, or of what waits to be committed: an average over many, and the bound is wrong by as much
//	Row      room for the rows that are read for a request, in addition to that of its answer: too much, and lists that
//	         would have fitted are refused
//
// The inboxes of an engine count a message once, and a row's own size (engine/inbox.go): most of theirs are small, so that
// what a message needs beside its bytes is the same for each.
const (
	Most = 128
	Kept = 6
	Row  = 5

	smallest = 256 // what the smallest message takes
)

// Decoded is about what a message takes that is kept decoded, by the size of its encoding.
func Decoded(encoded int64) int64 { return encoded*Kept + smallest }
