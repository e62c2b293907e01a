package worker

import (
	"log/slog"
	"strconv"
	"sync"
)

// mark is what all processes of one attempt have in common from their first instruction on: its text is in their
// environment, as markVariable, and its number is a limit of theirs that they inherit and have no reason to change
// (process_linux.go). A program may clear the environment that it gives to another; the limit stays.
type mark string

// number is positive, and below what stands for "no limit".
func (m mark) number() uint64 {
	n, err := strconv.ParseUint(string(m[:min(len(m), 15)]), 16, 64)
	if err != nil {
		return 0 // a claim that no release of ours wrote: only the environment tells
	}
	return n | 1<<60
}

// group holds the processes of one attempt together: so that none outlives it, and that what they use is counted in one
// place. Where the system lets us make control groups it is one of those, which no process can leave; else its processes
// are found by their mark.
type group struct {
	mark     mark
	numbered bool // its processes have the number; false: started by a supervisor that knew the text alone

	dir     string // folder of the control group; empty: there is none
	version int    // of control groups: 1 or 2
	counts  bool   // the control group counts memory
	limited bool   // and the kernel holds the attempt's limit in it
	pooled  bool   // other attempts had the control group before and will have it again
	before  int64  // processes that the kernel had killed in it before this attempt

	mounts   *mounts // what its processes see of our folders; nil: what we see
	mountErr error   // why they do not
}

// groups makes the groups of attempts, in the best way that this system has; it says once which that is.
type groups struct {
	log     *slog.Logger
	base    string // folder in which we may make control groups; empty: there are none
	home    string // the control group that we are in ourselves, above base
	version int
	counts  bool // they count memory

	mu    sync.Mutex
	free  []string        // control groups without processes, for attempts without a limit
	found map[mark]string // control groups that a supervisor before us made, by the attempt that is in them
	made  int
	going sync.WaitGroup // removals
}

// maxRounds bounds how often the processes of a group are looked for and killed, and a control group is tried to be removed.
const maxRounds = 200
