package worker

import (
	"log/slog"
	"time"
)

// Config of a supervisor and its clients. Both sides must be given the same data folder.
type Config struct {
	DataDir string       // the server's data folder; ours is the folder worker in it
	Logger  *slog.Logger // nil: nothing is logged

	// Executable is the command line that starts a supervisor, such as {"/usr/bin/aloft", "worker"}; the client
	// appends "--data-dir" and DataDir. The program must call [Main].
	Executable []string

	Build      string        // version of this binary, told in the hello; empty: "unknown"
	Grace      time.Duration // supervisor: ends when no client is connected and no attempt runs for this long; 0: 30 s
	ZygoteIdle time.Duration // supervisor: a warm worker without an attempt for this long ends; 0: 15 min
	MaxZygotes int           // supervisor: at most this many warm workers; 0: 8
	KillTime   time.Duration // supervisor: an attempt is over this long after its process was killed, even if the process is still there; 0: 30 s

	// ControlGroups is for tests of one way to hold processes together: "v1", "v2" (control groups of that version alone) or
	// "none". Empty: the best way that the system has.
	ControlGroups string
}

// Mode says how an attempt is started, and in an [ExitRecord] how it was.
type Mode string

// The modes. Only ModeWarm and ModeCold appear in an exit record.
const (
	ModeAuto Mode = "auto" // warm where that is equal to cold, else cold; the empty string means the same
	ModeWarm Mode = "warm" // a fork of a process that has flytekit imported. In a Spec: as auto, but a fallback to cold is logged as a warning
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
	Env  map[string]string `json:"env,omitempty"` // complete; the supervisor adds only the interpreter's folder to PATH, CodeDir to PYTHONPATH, TMPDIR, and one mark

	WorkDir string `json:"work_dir"`           // current directory; private, made by the caller
	TempDir string `json:"temp_dir,omitempty"` // made if missing, becomes TMPDIR, removed when the attempt is over unless that would take long; empty: TMPDIR as in Env
	Stdout  string `json:"stdout,omitempty"`   // files, appended to; empty: /dev/null
	Stderr  string `json:"stderr,omitempty"`

	OutputDir string `json:"output_dir,omitempty"` // where outputs.pb, error.pb, futures.pb and deck.html appear
	// CodeDir is the unpacked code archive of a fast-registered task; it goes to the end of PYTHONPATH, as
	// pyflyte-fast-execute does. That command's own download step never runs: its --dest-dir is no place of this machine.
	CodeDir string `json:"code_dir,omitempty"`

	// ReadOnly are folders that the attempt's processes can read and by no means change, where the system lets us do that.
	// Writable are folders below them that the processes can change; they exist.
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
	Signal  int    `json:"signal,omitempty"`  // the signal of which the process died; 0: none
	OOM     bool   `json:"oom,omitempty"`     // the attempt was killed for its memory limit; never with Lost
	Stopped bool   `json:"stopped,omitempty"` // the attempt ended after a Stop
	Lost    bool   `json:"lost,omitempty"`    // it is not known how the attempt ended, and it left no complete result: run another attempt
	Unready bool   `json:"unready,omitempty"` // the attempt never ran, for want of something that the machine has when it is well: room on the disk, a process
	Reason  string `json:"reason,omitempty"`  // a sentence where Code and Signal do not say it all

	Environment string `json:"environment,omitempty"` // the spec's Environment.Digest, also of an attempt that an earlier supervisor started

	Mode    Mode   `json:"mode,omitempty"`     // ModeWarm or ModeCold; empty: the attempt never started
	WhyCold string `json:"why_cold,omitempty"` // why Mode is not ModeWarm; empty for ModeWarm, and if the spec asked for ModeCold

	StartedAt  time.Time     `json:"started_at,omitzero"`
	EndedAt    time.Time     `json:"ended_at,omitzero"`
	CPUUser    time.Duration `json:"cpu_user,omitempty"`    // of the process and its reaped children; 0: unknown
	CPUSystem  time.Duration `json:"cpu_system,omitempty"`  // the same
	PeakMemory int64         `json:"peak_memory,omitempty"` // bytes; pages that a warm process shares with its warm worker are not counted; 0: unknown

	// Modules of the environment that the task imported and that the warm worker had not, at most 64 KiB of names. They are in the
	// event of the attempt's end, and are not kept: a record that comes again has none.
	Modules []string `json:"modules,omitempty"`
}

// lose notes that it is not known how the attempt ended.
func (r *ExitRecord) lose(reason string) { r.Lost, r.OOM, r.Reason = true, false, reason }

// outOfMemory notes that the attempt was killed for want of memory, through its own fault. An attempt that counted as lost does so
// no longer: its end is known then.
func (r *ExitRecord) outOfMemory(reason string) { r.Lost, r.OOM, r.Reason = false, true, reason }

// State of an attempt in the supervisor. It only moves forward.
type State string

// The states.
const (
	StateStarting State = "starting" // claimed; the process may be there already but runs no user code
	StateRunning  State = "running"
	StateDone     State = "done"   // the task has ended and its process has told the exit code; the process is about to end
	StateExited   State = "exited" // no process of the attempt runs any more, the exit record is durable
)

// Status is one attempt as the supervisor has it.
type Status struct {
	AttemptID string      `json:"attempt_id"`
	Token     string      `json:"token"`
	State     State       `json:"state"`
	PID       int         `json:"pid,omitempty"`  // 0 before StateRunning and for a lost attempt
	Exit      *ExitRecord `json:"exit,omitempty"` // with StateDone (provisional) and StateExited
	Attached  bool        `json:"attached"`       // answer to Start: the attempt had been started before
	Adopted   bool        `json:"adopted"`        // an earlier supervisor started the attempt
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
	// outcome may be acted upon; Exit has code, modules and CPU so far, none of which is durable yet. A warm attempt that ended
	// by itself and left no process has this event some milliseconds before EventExited; others go straight to EventExited.
	EventDone EventKind = "done"
	// EventExited: nothing of the attempt runs any more; Exit is durable and comes again on each connection until Forget.
	EventExited EventKind = "exited"
)

// Hello introduces a supervisor to its clients.
type Hello struct {
	Protocol int    `json:"protocol"` // see Protocol
	Build    string `json:"build"`
	PID      int    `json:"pid"`
	BootID   string `json:"boot_id"`
	DataDir  string `json:"data_dir,omitempty"` // path of the data folder, as all attempts were told it
	Place    string `json:"place,omitempty"`    // the data folder itself, see Place
	Mounts   string `json:"mounts,omitempty"`   // "yes": Spec.ReadOnly holds; else why it does not; empty: an earlier release, where it does not
}

// Protocol is the version of the protocol of this build. A higher version adds calls and fields, and removes none.
const Protocol = 1

// Undead is a process of an ended attempt that was killed and is still there: it waits in the kernel for a disk that does not
// answer, or is frozen in a control group that we cannot thaw.
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
	Preloaded   int       `json:"preloaded"`         // modules of the learnt list that the warm worker has imported
	Believed    int       `json:"believed"`          // those of them that an earlier warm worker has proved harmless
	Dropped     []string  `json:"dropped,omitempty"` // learnt modules that may not be imported ahead, with the reason
	Since       time.Time `json:"since"`
}
