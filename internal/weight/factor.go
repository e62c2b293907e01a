package weight

// If only the size of a message's encoding is known, its memory is estimated as a multiple of that size. No multiple is right
// for all messages: a long text takes once its size, outputs of tasks 4 to 11 times, compiled workflows 6 to 14 times, many
// empty literals 45 times. There are three multiples, by the consequence of an estimate that is wrong:
//
//	Most     room for a single message that comes from a task: if it is too little, that message fills the memory of the server
//	Kept     the bound of a cache, or of messages that wait to be committed: an average over many, and the bound is wrong by as much
//	Row      room for the rows that are read for a request, in addition to that of its answer: if it is too much, lists are
//	         refused that would have fitted
//
// The inboxes of an engine count the size of a message once, plus a fixed size for its row (engine/inbox.go): most messages
// there are small, so that they take about the same beside their bytes.
const (
	Most = 128
	Kept = 6
	Row  = 5

	smallest = 256 // bytes that the smallest message takes
)

// Decoded estimates the memory of a message that is kept decoded, by the size of its encoding.
func Decoded(encoded int64) int64 { return encoded*Kept + smallest }
