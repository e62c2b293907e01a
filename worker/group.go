package worker

import (
	"log/slog"
	"strconv"
	"sync"
)

// mark tells the processes of one attempt from all others, from their first instruction on. Its text is in their environment, as
// markVariable; its number is a resource limit of theirs that they inherit and have no reason to change (process_linux.go). A
// program may clear the environment that it gives to another program; the limit stays.
type mark string

// number is the mark as a resource limit: above 0, and below the number that stands for "no limit".
func (m mark) number() uint64 {
	n, err := strconv.ParseUint(string(m[:min(len(m), 15)]), 16, 64)
	if err != nil {
		return 0 // no release of ours wrote the claim: the processes are found by their environment alone
	}
	return n | 1<<60
}

// group are the processes of one attempt, held together so that no process outlives the attempt and their memory is counted in one
// place. Where the system lets us make control groups, the group is a control group, which no process can leave; else its
// processes are found by their mark.
type group struct {
	mark     mark
	numbered bool // the processes have the mark's number; false: only its text, since an earlier release started them

	dir          string // folder of the control group; empty: there is none
	version      int    // of control groups: 1 or 2
	countsMemory bool   // the control group counts memory
	limited      bool   // the kernel enforces the attempt's memory limit in the control group
	pooled       bool   // the control group is used again by later attempts
	killsBefore  int64  // processes that the kernel had killed in the control group before this attempt

	mounts   *mounts // folders that are read-only for the processes; nil: the processes see the folders as we do
	mountErr error   // why mounts could not be made for the first process; nil: they could
}

// groups makes the groups of attempts, in the best way that this system has.
type groups struct {
	log          *slog.Logger
	base         string // folder in which we may make control groups; empty: there are none
	home         string // the control group that we are in ourselves, above base
	version      int
	countsMemory bool // the control groups count memory

	mu       sync.Mutex
	free     []string        // control groups without processes, for attempts without a limit
	found    map[mark]string // control groups that an earlier supervisor made, by the mark of the attempt in them
	made     int
	removals sync.WaitGroup // of control groups, under way
}

// maxRounds bounds how often the processes of a group are looked for and killed, and how often a control group is tried to be
// removed.
const maxRounds = 200
