package worker

import (
	"log/slog"
	"time"
)

// Config is what a supervisor and its clients are told. Both sides must be given the same data folder.
type Config struct {
	DataDir string       // the server's data folder; ours is the folder worker in it
	Logger  *slog.Logger // nil: nothing is logged

	// Executable is the command line that starts a supervisor, such as {"/usr/bin/aloft", "worker"}; the client
	// appends "--data-dir" and DataDir. The program must call [Main].
	Executable []string

	Build      string        // version of this binary, told in the hello; empty: "unknown"
	Grace      time.Duration // supervisor: ends when nobody is connected and nothing runs for this long; 0: 30 s
	ZygoteIdle time.Duration // supervisor: a warm worker without an attempt for this long ends; 0: 15 min
	MaxZygotes int           // supervisor: at most this many warm workers; 0: 8
	KillTime   time.Duration // supervisor: an attempt whose process is still there so long after it was killed is over; 0: 30 s

	// ControlGroups is for tests of the one way to hold processes together that a system has: "v1", "v2" (control groups of
	// that version alone) or "none". Empty: the best that there is.
	ControlGroups string
}

// Mode says how an attempt is started, and in an [ExitRecord] how it was.
type Mode string

// The modes. Only ModeWarm and ModeCold appear in an exit record.
const (
	ModeAuto Mode = "auto" // warm where that is equal to cold, else cold; the empty string means the same
	ModeWarm Mode = "warm" // a fork of a process that has flytekit imported. Asked for, it is auto, with the reason for a fallback logged as a warning
	ModeCold Mode = "cold" // a fresh process
)

// Environment is the interpreter that stands for a task's image. The zero value: the command needs none.
type Environment struct {
	Interpreter string `json:"interpreter,omitempty"` // absolute path of python
	Digest      string `json:"digest,omitempty"`      // of its packages, Python version and platform: another digest, another warm worker
	// Variables are what attempts in this environment usually get in Env. Only [Client.Prepare] reads it, so that the
	// warm worker it starts has the same start-up variables (LANG, OMP_NUM_THREADS, …) as the attempts to come.
	Variables map[string]string `json:"variables,omitempty"`
}

// Spec is all a supervisor must know to run one attempt. Fields that a supervisor does not know are ignored.
type Spec struct {
	AttemptID string `json:"attempt_id"` // unique for ever; starting it twice attaches to the first start
	Token     string `json:"token"`      // the attempt's fence; handed back in the exit record

	Argv []string          `json:"argv"`          // rendered command line, as the client registered it
	Env  map[string]string `json:"env,omitempty"` // complete; nothing of ours is added but PATH's entry for the interpreter, TMPDIR, PYTHONPATH's for CodeDir, and one mark

	WorkDir string `json:"work_dir"`           // current directory; private, made by the caller
	TempDir string `json:"temp_dir,omitempty"` // made if missing, becomes TMPDIR, removed when the attempt is over unless that would take long; empty: TMPDIR as in Env
	Stdout  string `json:"stdout,omitempty"`   // files, appended to; empty: /dev/null
	Stderr  string `json:"stderr,omitempty"`

	OutputDir string `json:"output_dir,omitempty"` // where outputs.pb, error.pb, futures.pb and deck.html appear
	// CodeDir is the unpacked code archive of a fast-registered task; it goes to the end of PYTHONPATH, as
	// pyflyte-fast-execute does. That command's own download step never runs: its --dest-dir is no place of this machine.
	CodeDir string `json:"code_dir,omitempty"`

	// ReadOnly is folders that the attempt's processes can read and not change, however they go about it, where the system
	// lets us do that; but for Writable, folders below these, which are there.
	ReadOnly []string `json:"read_only,omitempty"`
	Writable []string `json:"writable,omitempty"`

	Environment Environment `json:"environment,omitzero"`
	Mode        Mode        `json:"mode,omitempty"`

	MemoryLimit int64         `json:"memory_limit,omitempty"` // bytes for all processes of the attempt; 0: none
	CPU         float64       `json:"cpu,omitempty"`          // cores; not enforced, handed on for display
	Grace       time.Duration `json:"grace,omitempty"`        // between SIGTERM and SIGKILL when Stop names none; 0: 10 s
}

// ExitRecord is how an attempt ended. What a task left in its output folder decides about success, not this record:
// flytekit exits 0 with an error.pb when user code raised.
type ExitRecord struct {
	AttemptID string `json:"attempt_id"`
	Token     string `json:"token"`

	Code    int    `json:"code"`              // exit code; 0 with Signal or Lost has no meaning
	Signal  int    `json:"signal,omitempty"`  // the signal it died of; 0: none
	OOM     bool   `json:"oom,omitempty"`     // it was killed for its memory limit; never with Lost
	Stopped bool   `json:"stopped,omitempty"` // it ended after a Stop
	Lost    bool   `json:"lost,omitempty"`    // it is gone, how is unknown, and it left no complete result: run another attempt
	Unready bool   `json:"unready,omitempty"` // it never ran, as the machine lacked something that it needs: room on the disk, a process
	Reason  string `json:"reason,omitempty"`  // a sentence where Code and Signal do not say it all

	Environment string `json:"environment,omitempty"` // the spec's Environment.Digest, also where a supervisor before this one started it

	Mode    Mode   `json:"mode,omitempty"`     // ModeWarm or ModeCold; empty: it never started
	WhyCold string `json:"why_cold,omitempty"` // why not warm; empty when warm or when cold was asked for

	StartedAt  time.Time     `json:"started_at,omitzero"`
	EndedAt    time.Time     `json:"ended_at,omitzero"`
	CPUUser    time.Duration `json:"cpu_user,omitempty"`    // with its reaped children; 0: unknown
	CPUSystem  time.Duration `json:"cpu_system,omitempty"`  //
	PeakMemory int64         `json:"peak_memory,omitempty"` // bytes that were its own, shared pages of the warm worker not counted; 0: unknown

	// Modules of the environment that it imported and the warm worker had not, at most 64 KiB of names. They are told once, when it
	// ends, and are not kept: a record that comes again has none.
	Modules []string `json:"modules,omitempty"`
}

// lose notes that it is unknown how the attempt ended.
func (r *ExitRecord) lose(reason string) { r.Lost, r.OOM, r.Reason = true, false, reason }

// outOfMemory notes that the attempt was killed for want of memory, and that this is its own doing. Also where nobody saw its
// end: that is known then.
func (r *ExitRecord) outOfMemory(reason string) { r.Lost, r.OOM, r.Reason = false, true, reason }

// State of an attempt in the supervisor. It only moves forward.
type State string

// The states.
const (
	StateStarting State = "starting" // claimed; the process may be there already but runs no user code
	StateRunning  State = "running"
	StateDone     State = "done"   // the task has ended and said its code; its process is about to be gone
	StateExited   State = "exited" // nothing of it runs any more, the exit record is durable
)

// Status is one attempt as the supervisor has it.
type Status struct {
	AttemptID string      `json:"attempt_id"`
	Token     string      `json:"token"`
	State     State       `json:"state"`
	PID       int         `json:"pid,omitempty"`  // 0 before StateRunning and for what was lost
	Exit      *ExitRecord `json:"exit,omitempty"` // with StateDone (provisional) and StateExited
	Attached  bool        `json:"attached"`       // answer to Start: the attempt had been started before
	Adopted   bool        `json:"adopted"`        // a supervisor before this one started it
}

// Event is a step of an attempt. After a reconnection events may come again: handle each as if it were the first.
type Event struct {
	Kind      EventKind   `json:"kind"`
	AttemptID string      `json:"attempt_id"`
	Token     string      `json:"token"`
	PID       int         `json:"pid,omitempty"`
	Exit      *ExitRecord `json:"exit,omitempty"` // with EventDone and EventExited
}

// EventKind names an event.
type EventKind string

// The events.
const (
	// EventStarted: the process runs, its claim is durable.
	EventStarted EventKind = "started"
	// EventDone: the task's code has ended, its threads and exit handlers too, and everything it writes is written. The
	// outcome may be acted upon; Exit has code, modules and CPU so far, nothing of it is durable yet. Warm attempts that
	// ended by themselves and left no process have it, a few milliseconds before EventExited; others go straight to EventExited.
	EventDone EventKind = "done"
	// EventExited: nothing of the attempt runs any more; Exit is durable and comes again on each connection until Forget.
	EventExited EventKind = "exited"
)

// Hello is what a supervisor says of itself.
type Hello struct {
	Protocol int    `json:"protocol"` // see Protocol
	Build    string `json:"build"`
	PID      int    `json:"pid"`
	BootID   string `json:"boot_id"`
	DataDir  string `json:"data_dir,omitempty"` // its path, as all that runs was told it
	Place    string `json:"place,omitempty"`    // and the folder itself, see Place
	Mounts   string `json:"mounts,omitempty"`   // "yes": Spec.ReadOnly holds; else why it does not; empty: not said, and it does not
}

// Protocol is the version of the protocol of this build. A higher one adds calls and fields and keeps what was there.
const Protocol = 1

// Undead is a process of an attempt that has ended which was killed and is still there: it waits in the kernel, for a disk that does
// not answer, or is frozen where we cannot reach.
type Undead struct {
	AttemptID string `json:"attempt_id"`
	PID       int    `json:"pid"`
	Condition string `json:"condition"` // as the system calls it
	started   uint64
}

// ZygoteStatus is one warm worker, for display.
type ZygoteStatus struct {
	Interpreter string    `json:"interpreter"`
	Digest      string    `json:"digest"`
	PID         int       `json:"pid"`
	State       string    `json:"state"` // starting, ready, failed, ended
	Reason      string    `json:"reason,omitempty"`
	Forks       int64     `json:"forks"`
	Running     int       `json:"running"`
	Preloaded   int       `json:"preloaded"`         // modules of the learnt list that it has imported
	Believed    int       `json:"believed"`          // of these, those that are proved harmless by a warm worker before it
	Dropped     []string  `json:"dropped,omitempty"` // learnt modules that may not be imported ahead, with the reason
	Since       time.Time `json:"since"`
}
