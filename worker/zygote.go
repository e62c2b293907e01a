package worker

import (
	"bufio"
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aloft-dev/aloft/internal/leftover"
)

//go:embed zygote.py
var zygoteSource []byte

// zygotes are the warm workers of a supervisor. doc.go tells the life of one.
type zygotes struct {
	log    *slog.Logger
	folder folder
	reaper *reaper
	max    int           // zygotes in live, at most
	idle   time.Duration // after which a zygote without a child ends
	script string        // path of this build's zygote.py

	mu        sync.Mutex
	live      map[string]*zygote        // by key: those that fork for attempts, or will; a failed one keeps its place for a while
	profiles  map[string]*importProfile // by environment
	requested map[string]bool           // keys of the attempts so far
	unfit     map[string]string         // by codeOf: why attempts of this code need a fresh interpreter
}

// importProfile is what the zygotes of an environment have learnt about its modules. It is kept in a file of the folder learnt, which
// a successor zygote reads when it starts.
type importProfile struct {
	path    string
	Prover  string            `json:"prover"`  // name of the zygote.py that has found Dropped; another release may prove more
	Modules []string          `json:"modules"` // to import ahead: tasks have imported them
	Reads   []string          `json:"reads"`   // variables that these modules read at their import
	Dropped map[string]string `json:"dropped"` // modules that are never imported ahead, and why
}

// zygote is one warm worker. The mutex of zygotes guards the fields that are not set once.
type zygote struct {
	key     string
	env     Environment
	startup map[string]string
	ready   chan struct{} // closed when the state is not starting any more
	ended   chan struct{} // closed when the process is gone or told to end: the zygote forks and reports no more

	state     string
	reason    string // of the state failed or ended
	pid       int
	conn      *net.UnixConn      // nil: the process is not started yet, or is gone
	children  map[int]*warmChild // by number: those whose end the process has not reported
	number    int                // of the latest child
	forks     int64
	preloaded int       // modules that were imported ahead
	believed  int       // those of them that an earlier zygote had proved
	rss       int64     // bytes of memory when it was ready
	since     time.Time // of the start, or of the state failed or ended
	used      time.Time // of the latest fork or end of a child

	imports   *imports        // what the process has imported; nil: it is not ready yet
	modules   map[string]bool // modules that it was told to import ahead
	startArgs []string        // further arguments of zygote.py, as an earlier process of this zygote asked for
	slow      bool            // a child spent noticeable time with imports
	previous  *zygote         // the zygote whose place this one takes when it is ready; nil: none
	successor *zygote         // the zygote that is being started to take this one's place; nil: none. z.successor.previous == z
	renewedAt time.Time       // when the latest successor in this line was started
	startTook time.Duration   // how long the latest start in this line took
	retiring  bool            // it takes no new requests and was told to end
}

const (
	zygoteStarting = "starting"
	zygoteReady    = "ready"
	zygoteFailed   = "failed"
	zygoteEnded    = "ended"
)

// warmChild is a forked process that waits for its go, and then runs an attempt.
type warmChild struct {
	zygote   *zygote
	conn     net.Conn
	lines    *bufio.Reader
	pid      int
	reported chan ending // its end, as the zygote reports it
}

const (
	zygoteStartTime = 180 * time.Second
	// No attempt waits for a successor, and it proves thousands of modules, which takes an idle processor ten seconds.
	successorStartTime = 15 * time.Minute
	forkTime           = 20 * time.Second
	failureRest        = 30 * time.Second // the time before a zygote that did not start is started again

	// When a successor is worth its start, which imports all modules again: the zygote lacks at least manyModules of the learnt
	// modules and at least one in manyPart of them, or it lacks a single one and a child took slowImport for its imports. The next
	// successor comes at least renewalPause, and renewalShare times as long as the latest start took, after the one before.
	manyModules  = 10
	manyPart     = 50
	slowImport   = 50 * time.Millisecond
	renewalPause = 2 * time.Second
	renewalShare = 2
)

func newZygotes(log *slog.Logger, f folder, r *reaper, config Config) (*zygotes, error) {
	script := filepath.Join(f.dir, "zygote-"+shortHash(string(zygoteSource))[:12]+".py")
	temp := script + ".new"
	if err := errors.Join(os.WriteFile(temp, zygoteSource, 0o600), os.Rename(temp, script)); err != nil {
		return nil, fmt.Errorf("write warm worker: %w", err)
	}
	return &zygotes{
		log: log, folder: f, reaper: r, max: config.MaxZygotes, idle: config.ZygoteIdle, script: script,
		live: map[string]*zygote{}, profiles: map[string]*importProfile{}, requested: map[string]bool{}, unfit: map[string]string{},
	}, nil
}

var errStopped = errors.New("stopped")

// fork returns a child that is ready to go, or the reason why there can be none.
func (zs *zygotes) fork(spec Spec, c command, message childSpec, stop <-chan struct{}) (*warmChild, string, error) {
	if runtime.GOOS != "linux" {
		return nil, "warm workers need Linux", nil
	}
	zs.mu.Lock()
	why := zs.unfit[codeOf(spec)]
	zs.mu.Unlock()
	if why != "" {
		return nil, why, nil
	}
	for range 4 {
		z, why := zs.obtain(spec.Environment, c.env, false)
		if z == nil {
			return nil, why, nil
		}
		select {
		case <-z.ready:
		case <-stop:
			return nil, "", errStopped
		}
		zs.mu.Lock()
		state, reason := z.state, z.reason
		same := z.key == zs.key(spec.Environment, c.env) // a zygote that gets ready may add variables to the profile, and so to the key
		zs.mu.Unlock()
		switch {
		case state == zygoteFailed:
			return nil, "the warm worker did not start: " + reason, nil
		case state != zygoteReady, !same:
			continue
		}
		if why := z.imports.stale(); why != "" {
			zs.log.Info("warm worker is out of date", "pid", z.pid, "reason", why)
			zs.mu.Lock()
			zs.retireStale(z)
			zs.mu.Unlock()
			continue
		}
		if why := z.imports.whyDifferent(c.env, spec.WorkDir); why != "" {
			return nil, why, nil
		}
		child, err := zs.forkFrom(z, message, stop)
		if err == nil || errors.Is(err, errStopped) {
			return child, "", err
		}
		zs.mu.Lock()
		if !z.retiring { // a retiring zygote has a successor that can fork
			zs.log.Warn("warm worker did not fork", "pid", z.pid, "error", err)
			zs.endLocked(z, zygoteEnded, err.Error())
		}
		zs.mu.Unlock()
	}
	return nil, "the warm worker ended again and again", nil
}

// retireStale takes a zygote out of use whose files have changed since it imported them, and its successor with it. Called with the
// mutex held.
func (zs *zygotes) retireStale(z *zygote) {
	if zs.live[z.key] == z {
		delete(zs.live, z.key)
	}
	zs.retire(z)
}

// codeOf names the code of an attempt: its archive and the task that is loaded from it, in an environment.
func codeOf(spec Spec) string {
	parts := []string{spec.Environment.Interpreter, spec.Environment.Digest}
	for i, arg := range spec.Argv {
		if arg == "--additional-distribution" || arg == "--resolver" {
			parts = append(parts, spec.Argv[i:min(i+2, len(spec.Argv))]...)
		}
		if arg == "task-module" || arg == "vars" {
			parts = append(parts, spec.Argv[i:]...)
			break
		}
	}
	return shortHash(parts...)
}

// setUnfit remembers that attempts of this code cannot be forked.
func (zs *zygotes) setUnfit(spec Spec, why string) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	if len(zs.unfit) > 10_000 {
		clear(zs.unfit)
	}
	zs.unfit[codeOf(spec)] = why
	zs.log.Info("attempts of this code get fresh interpreters", "attempt", spec.AttemptID, "reason", why)
}

// childSpec is all that a warm child must know to run an attempt.
type childSpec struct {
	Argv     []string          `json:"argv"`
	Env      map[string]string `json:"env"`
	Cwd      string            `json:"cwd"`
	Stdout   string            `json:"stdout"`
	Stderr   string            `json:"stderr"`
	TempDir  string            `json:"temp_dir,omitempty"` // made for this attempt alone; empty: there is none
	Mark     string            `json:"mark"`
	Joins    []string          `json:"joins,omitempty"`  // files of control groups: a process that writes 0 to a file is in the group
	Mounts   *mounts           `json:"mounts,omitempty"` // nil: the child sees all folders as we do
	DoneFile string            `json:"done_file"`
}

// forkFrom has a zygote fork a child, and hands the child its spec.
func (zs *zygotes) forkFrom(z *zygote, message childSpec, stop <-chan struct{}) (*warmChild, error) {
	ours, theirs, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	child := &warmChild{zygote: z, conn: ours, lines: bufio.NewReader(io.LimitReader(ours, maxSaid)), reported: make(chan ending, 1)}
	zs.mu.Lock()
	if z.conn == nil { // the zygote was ready when we looked, and has ended since
		zs.mu.Unlock()
		_, _ = ours.Close(), theirs.Close()
		return nil, errors.New("its process ended")
	}
	z.number++
	n := z.number
	z.children[n] = child
	z.used = time.Now()
	conn := z.conn
	zs.mu.Unlock()
	_, _, err = conn.WriteMsgUnix(strconv.AppendInt(nil, int64(n), 10), syscall.UnixRights(int(theirs.Fd())), nil)
	_ = theirs.Close()
	if err != nil {
		zs.removeChild(z, n)
		_ = ours.Close()
		return nil, fmt.Errorf("ask for a fork: %w", err)
	}
	body, err := json.Marshal(message)
	if err != nil {
		panic(err) // strings only
	}
	// A zygote that hangs must not hold us up, nor a stop have to wait: a child that is not told to go ends by itself.
	_ = ours.SetDeadline(time.Now().Add(forkTime))
	unhook := make(chan struct{})
	defer close(unhook)
	go func() {
		look := time.NewTicker(100 * time.Millisecond)
		defer look.Stop()
		for {
			select {
			case <-stop:
				_ = ours.Close()
				return
			case <-unhook:
				return
			case <-look.C:
				if isStopped(z.pid) { // a task can do that: its user is the same
					zs.log.Warn("warm worker was stopped by a signal; it goes on", "pid", z.pid)
					_ = syscall.Kill(z.pid, syscall.SIGCONT)
				}
			}
		}
	}()
	_, err = ours.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	var first struct {
		PID int `json:"pid"`
	}
	if err == nil {
		var line []byte
		if line, err = child.lines.ReadBytes('\n'); err == nil {
			err = json.Unmarshal(line, &first)
		}
	}
	if err != nil || first.PID <= 0 {
		zs.removeChild(z, n)
		_ = ours.Close()
		select {
		case <-stop:
			return nil, errStopped
		default:
			return nil, fmt.Errorf("fork: %w", err)
		}
	}
	_ = ours.SetDeadline(time.Time{})
	child.pid = first.PID
	zs.mu.Lock()
	z.forks++
	zs.mu.Unlock()
	return child, nil
}

// start tells a child to go: from now on it runs user code.
func (child *warmChild) start() error {
	_, err := child.conn.Write([]byte{'g'})
	return err
}

// abandon ends a child that was not told to go.
func (child *warmChild) abandon() { _ = child.conn.Close() }

// wait returns how a child ended; known is false if neither its zygote nor we have seen its end.
func (zs *zygotes) wait(child *warmChild, p process) (e ending, known bool) {
	defer func() { _ = child.conn.Close() }()
	select {
	case e := <-child.reported:
		return e, true
	case <-child.zygote.ended:
	}
	select { // the report may have come just before the zygote ended
	case e := <-child.reported:
		return e, true
	default:
	}
	zs.log.Info("warm worker ended, its child runs on", "pid", child.pid)
	if e, known = awaitInherited(zs.reaper, p); e.usage != nil {
		e.usage.Maxrss = max(0, e.usage.Maxrss-child.zygote.rss/1024)
	}
	return e, known
}

// awaitInherited waits for a process whose parent has died. The process becomes our child, unless its parent had reaped it already
// and died before it could report that.
func awaitInherited(r *reaper, p process) (ending, bool) {
	ended := r.inherit(p.PID)
	gone := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_ = awaitGone(ctx, p)
		close(gone)
	}()
	select {
	case e := <-ended:
		return e, true
	case <-gone:
	}
	select {
	case e := <-ended:
		return e, true
	case <-time.After(time.Second): // a zombie counts as gone and will be reaped within a second; a process that never becomes our child will not
		r.unwatch(p.PID)
		return ending{}, false
	}
}

// removeChild drops a child that could not be forked.
func (zs *zygotes) removeChild(z *zygote, n int) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	delete(z.children, n)
}

// key names the zygote that fits an attempt: interpreter, environment, and the start-up variables of startupVariables. Called with
// the mutex held.
func (zs *zygotes) key(env Environment, variables map[string]string) string {
	parts := []string{env.Interpreter, env.Digest}
	startup := startupVariables(variables, zs.profile(env).Reads)
	for _, name := range slices.Sorted(maps.Keys(startup)) {
		parts = append(parts, name, startup[name])
	}
	return shortHash(parts...)
}

// profile is the import profile of an environment, read from disk at first. Called with the mutex held.
func (zs *zygotes) profile(env Environment) *importProfile {
	name := shortHash(env.Interpreter, env.Digest)
	l, ok := zs.profiles[name]
	if !ok {
		l = &importProfile{}
		path := filepath.Join(zs.folder.learnt(), name+".json")
		readJSON(path, l)
		l.path = path
		if prover := filepath.Base(zs.script); l.Dropped == nil || l.Prover != prover { // another release may prove modules that this one could not
			l.Prover, l.Dropped = prover, map[string]string{}
		}
		zs.profiles[name] = l
	}
	return l
}

// save writes the profile to disk. A profile that is lost will be learnt again. Called with the mutex held.
func (l *importProfile) save(log *slog.Logger) {
	b, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(l.path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(l.path+".new", l.path)
	}
	if err != nil {
		log.Warn("what was learnt is not kept", "error", err)
	}
}

const (
	maxLearnt = 10_000 // modules that one environment preloads, and as many that are known not to be
	maxShown  = 100    // dropped modules that the status shows
)

// forgetModules forgets the modules with which a zygote could not start (modules), except those that the previous zygote has
// imported (preloaded): a module that a task has named may be one that ends every zygote. The harmless ones are learnt again from
// the tasks that import them.
func (l *importProfile) forgetModules(modules, preloaded map[string]bool, log *slog.Logger) {
	l.Modules = slices.DeleteFunc(l.Modules, func(m string) bool { return modules[m] && !preloaded[m] })
	l.save(log)
}

// learn adds modules to the profile that a task of this zygote has imported itself, which took so long, and starts a successor if that
// is worth it.
func (zs *zygotes) learn(z *zygote, modules []string, took time.Duration) {
	if len(modules) == 0 {
		return
	}
	zs.mu.Lock()
	defer zs.mu.Unlock()
	l, grown := zs.profile(z.env), false
	known := make(map[string]bool, len(l.Modules))
	for _, m := range l.Modules {
		known[m] = true
	}
	for _, m := range modules {
		if known[m] || l.dropped(m) || len(l.Modules) >= maxLearnt {
			continue
		}
		l.Modules, grown = append(l.Modules, m), true
	}
	if grown {
		l.save(zs.log)
	}
	z.slow = z.slow || took >= slowImport
	now := time.Now()
	for _, other := range zs.live {
		if other == z || grown && other.env.Interpreter == z.env.Interpreter && other.env.Digest == z.env.Digest {
			zs.renew(other, now)
		}
	}
}

// dropped says whether a module, or its package, is never to be imported ahead.
func (l *importProfile) dropped(module string) bool {
	top, _, _ := strings.Cut(module, ".")
	return l.Dropped[module] != "" || l.Dropped[top] != ""
}

// renew starts the successor of a zygote if that is worth it: see manyModules. It may be called at any time and any number of times;
// called with the mutex held.
func (zs *zygotes) renew(z *zygote, now time.Time) {
	if z.state != zygoteReady || z.successor != nil || z.retiring || now.Sub(z.renewedAt) < max(renewalPause, renewalShare*z.startTook) {
		return
	}
	missing, all := 0, zs.profile(z.env).Modules
	for _, m := range all {
		if !z.modules[m] {
			missing++
		}
	}
	if missing < max(manyModules, len(all)/manyPart) && (missing == 0 || !z.slow) {
		return
	}
	successor := zs.newZygote(z.key, z.env, z.startup)
	successor.previous, z.successor, z.renewedAt, successor.renewedAt = z, successor, now, now
	zs.log.Info("warm worker gets a successor", "pid", z.pid, "modules", missing)
	go zs.run(successor, 0)
}

// obtain returns the zygote that fits these variables, or the reason why there is none. If there is none yet, obtain starts one; the
// zygote need not be ready. If the environment has another zygote that is ready, obtain starts a new one only when the same
// start-up variables come for the second time, or with ahead: a variable that differs from attempt to attempt would otherwise make
// a zygote for each, which costs more than a fresh interpreter.
func (zs *zygotes) obtain(env Environment, variables map[string]string, ahead bool) (*zygote, string) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	key := zs.key(env, variables)
	if z := zs.live[key]; z != nil {
		if z.state != zygoteFailed || time.Since(z.since) < failureRest {
			return z, ""
		}
		delete(zs.live, key)
	}
	again := zs.requested[key]
	if len(zs.requested) > 10_000 {
		clear(zs.requested)
	}
	zs.requested[key] = true
	if !again && !ahead {
		for _, z := range zs.live {
			if z.state == zygoteReady && z.env.Interpreter == env.Interpreter && z.env.Digest == env.Digest {
				return nil, "the first attempt with these start-up variables (such as HOME, LANG, OMP_NUM_THREADS)"
			}
		}
	}
	if len(zs.live) >= zs.max {
		var oldest *zygote
		for _, z := range zs.live {
			if len(z.children) == 0 && z.state != zygoteStarting && (oldest == nil || z.used.Before(oldest.used)) {
				oldest = z
			}
		}
		if oldest == nil {
			return nil, fmt.Sprintf("all %d warm workers are busy with other environments or start-up variables", zs.max)
		}
		zs.endLocked(oldest, zygoteEnded, "another environment needed its place")
	}
	z := zs.newZygote(key, env, variables)
	zs.live[key] = z
	go zs.run(z, 0)
	return z, ""
}

// newZygote is called with the mutex held.
func (zs *zygotes) newZygote(key string, env Environment, variables map[string]string) *zygote {
	startup := startupVariables(variables, zs.profile(env).Reads)
	if path, ok := variables["PATH"]; ok {
		startup["PATH"] = path
	} else {
		startup["PATH"] = withFirst(filepath.Dir(env.Interpreter), "")
	}
	return &zygote{
		key: key, env: env, startup: startup, state: zygoteStarting, children: map[int]*warmChild{},
		ready: make(chan struct{}), ended: make(chan struct{}), since: time.Now(), used: time.Now(),
	}
}

// packetReader puts the messages of a zygote together, of which a long one comes in several packets.
type packetReader struct {
	conn    net.Conn
	buffer  []byte
	message []byte
}

// maxZygoteMessage bounds a message of a zygote, which has some hundred bytes for each module that the zygote was to import ahead.
const maxZygoteMessage = 16 << 20

// next returns a message, which is valid until the next call.
func (r *packetReader) next() ([]byte, error) {
	r.message = r.message[:0]
	for {
		n, err := r.conn.Read(r.buffer)
		switch {
		case err != nil:
			return nil, err
		case n == 0:
			return nil, io.EOF
		case len(r.message)+n > maxZygoteMessage:
			return nil, fmt.Errorf("its message is longer than %d bytes", maxZygoteMessage)
		}
		r.message = append(r.message, r.buffer[1:n]...)
		if r.buffer[0] == '.' { // '+' in its place: more packets of the message follow
			return r.message, nil
		}
	}
}

// zygoteMessage is a message of a zygote (zygote.py): it is ready, wants to be started again, has failed, or a child N was forked or
// has ended (Status).
type zygoteMessage struct {
	Ready *struct {
		Preloaded int               `json:"preloaded"`
		Believed  int               `json:"believed"`
		Reads     []string          `json:"reads"`
		Dropped   map[string]string `json:"dropped"`
		RSS       int64             `json:"rss"`
		importList
	} `json:"ready"`
	Restart *struct {
		Dropped map[string]string `json:"dropped"`
		How     string            `json:"how"`
	} `json:"restart"`
	Failed string  `json:"failed"`
	N      int     `json:"n"`
	PID    int     `json:"pid"`
	Status *uint32 `json:"status"`
	User   float64 `json:"user"`
	Sys    float64 `json:"sys"`
	MaxRSS int64   `json:"maxrss"` // KiB
}

// run starts a zygote's process and handles its messages until it ends. tries counts the restarts that the process has asked for.
func (zs *zygotes) run(z *zygote, tries int) {
	logPath := filepath.Join(zs.folder.dir, "zygote-"+z.key[:12]+".log")
	conn, ended, err := zs.spawn(z, logPath)
	if err != nil {
		zs.fail(z, err.Error())
		return
	}
	patience := zygoteStartTime
	if z.previous != nil {
		patience = successorStartTime
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	packets := packetReader{conn: conn, buffer: make([]byte, 64<<10)}
	for {
		var m zygoteMessage
		message, err := packets.next()
		if err == nil {
			err = json.Unmarshal(message, &m)
		}
		if err != nil {
			_ = conn.Close()
			_ = syscall.Kill(z.pid, syscall.SIGKILL) // the process is gone already, or it hangs
			status := (<-ended).status
			told := lastLine(logPath)
			zs.mu.Lock()
			z.imports.close()
			state, reason := zygoteEnded, "its process ended"
			if z.state == zygoteStarting {
				state, reason = zygoteFailed, told
				if errors.Is(err, os.ErrDeadlineExceeded) {
					reason = fmt.Sprintf("it was not ready after %s", patience)
				} else if reason == "" {
					reason = "its process ended: " + describe(status)
				}
			}
			z.conn = nil // under the same lock as the state: a fork that sees the state ready may use the connection
			zs.endLocked(z, state, reason)
			zs.mu.Unlock()
			return
		}
		switch {
		case m.Ready != nil:
			_ = conn.SetReadDeadline(time.Time{})
			imports, err := watchImports(m.Ready.importList)
			if err != nil {
				zs.fail(z, err.Error())
				continue
			}
			zs.setReady(z, m, imports)
		case m.Restart != nil && tries < 30:
			_ = conn.Close()
			<-ended
			zs.mu.Lock()
			l := zs.profile(z.env)
			l.drop(m.Restart.Dropped)
			l.save(zs.log)
			over := z.state != zygoteStarting
			if m.Restart.How != "" {
				z.startArgs = append(z.startArgs, m.Restart.How)
			}
			zs.mu.Unlock()
			if !over {
				zs.run(z, tries+1)
			}
			return
		case m.Restart != nil:
			zs.fail(z, "its modules could not be imported ahead")
		case m.Failed != "":
			zs.fail(z, m.Failed)
		case m.Status != nil:
			zs.mu.Lock()
			child := z.children[m.N]
			delete(z.children, m.N)
			z.used = time.Now()
			zs.mu.Unlock()
			if child != nil {
				usage := &syscall.Rusage{
					Utime: syscall.NsecToTimeval(int64(m.User * 1e9)), Stime: syscall.NsecToTimeval(int64(m.Sys * 1e9)),
				}
				usage.Maxrss = max(0, m.MaxRSS-z.rss/1024)
				child.reported <- ending{syscall.WaitStatus(*m.Status), usage}
			}
		}
	}
}

// drop notes modules that are never to be imported ahead, and takes them, and the modules of packages with these names, out of the
// learnt ones. If there would be too many, the earlier ones are forgotten: a zygote finds each again once a task has imported it.
func (l *importProfile) drop(found map[string]string) {
	if len(l.Dropped)+len(found) > maxLearnt {
		clear(l.Dropped)
	}
	for name, why := range found {
		l.Dropped[name] = shortened(why)
	}
	l.Modules = slices.DeleteFunc(l.Modules, l.dropped)
}

// setReady takes a zygote into use that has done its imports.
func (zs *zygotes) setReady(z *zygote, m zygoteMessage, imports *imports) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	if z.state != zygoteStarting {
		imports.close()
		return
	}
	z.imports = imports
	l, changed := zs.profile(z.env), false
	for name := range m.Ready.Dropped {
		changed = changed || l.Dropped[name] == ""
	}
	for _, name := range m.Ready.Reads {
		if !slices.Contains(l.Reads, name) {
			l.Reads, changed = append(l.Reads, name), true
		}
	}
	if changed {
		l.drop(m.Ready.Dropped)
		l.save(zs.log)
	}
	z.state, z.preloaded, z.believed, z.rss, z.startTook = zygoteReady, m.Ready.Preloaded, m.Ready.Believed, m.Ready.RSS, time.Since(z.since)
	zs.log.Info("warm worker ready", "pid", z.pid, "interpreter", z.env.Interpreter, "preloaded", z.preloaded, "believed", z.believed,
		"took", z.startTook.Round(time.Millisecond))
	zs.replacePrevious(z)
	close(z.ready)
}

// replacePrevious puts a zygote that is ready in the place of its previous one. It is called with the mutex held, since before the
// variables that its imports read were added to the profile: no attempt may see the new key without the new zygote.
func (zs *zygotes) replacePrevious(z *zygote) {
	previous := z.previous
	if previous == nil {
		return
	}
	z.previous, previous.successor = nil, nil
	if zs.live[previous.key] != previous { // it ended meanwhile, and an attempt may have had a new one started
		zs.endLocked(z, zygoteEnded, "came too late")
		return
	}
	z.used = previous.used
	delete(zs.live, previous.key)
	// The modules may read variables that the key did not have: the new key has the values that the process was started with.
	z.key = zs.key(z.env, z.startup)
	if other := zs.live[z.key]; other != nil && other.state == zygoteReady {
		zs.retire(other)
	} else if other != nil {
		zs.endLocked(other, zygoteEnded, "replaced by one that is ready")
	}
	zs.live[z.key] = z
	zs.retire(previous)
}

// spawn starts the process of a zygote. The channel tells its end.
func (zs *zygotes) spawn(z *zygote, logPath string) (*net.UnixConn, <-chan ending, error) {
	ours, theirs, err := socketPair(syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("start warm worker: %w", err)
	}
	defer null.Close()
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("start warm worker: %w", err)
	}
	defer log.Close()
	zs.mu.Lock()
	over := z.state != zygoteStarting
	l := zs.profile(z.env)
	learntPath := l.path
	z.modules = make(map[string]bool, len(l.Modules))
	if z.previous == nil {
		learntPath = "" // an attempt waits for this zygote, and to prove modules takes long: its successor imports them
	} else {
		for _, m := range l.Modules {
			z.modules[m] = true
		}
	}
	zs.mu.Unlock()
	if over {
		return nil, nil, errors.New("ended before it was ready")
	}
	variables := maps.Clone(z.startup)
	variables[markVariable] = strings.Repeat("0", 32) // overwritten in place by each child
	variables["FLYTE_INTERNAL_EXECUTION_ID"] = "zygote"
	if _, ok := variables["GRPC_ENABLE_FORK_SUPPORT"]; !ok {
		variables["GRPC_ENABLE_FORK_SUPPORT"] = "1" // else a channel made in a child hangs
	}
	argv := append([]string{z.env.Interpreter, "-u", zs.script, learntPath, withoutScript}, z.startArgs...)
	pid, ended, err := zs.reaper.start(z.env.Interpreter, argv, &syscall.ProcAttr{
		Dir:   zs.folder.dir,
		Env:   command{env: variables}.environ(),
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd(), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}, nil)
	if err != nil {
		_ = ours.Close()
		return nil, nil, err
	}
	zs.mu.Lock()
	z.pid, z.conn = pid, ours
	zs.mu.Unlock()
	return ours, ended, nil
}

// fail takes a zygote out of use that cannot get ready.
func (zs *zygotes) fail(z *zygote, reason string) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	zs.endLocked(z, zygoteFailed, reason)
}

// endLocked takes a zygote out of use, and ends its process. Its children run on. A failed zygote stays in live for a while, so that
// the status shows its reason and not every attempt tries to start it. Called with the mutex held.
func (zs *zygotes) endLocked(z *zygote, state, reason string) {
	if z.state == zygoteEnded || z.state == zygoteFailed {
		return
	}
	starting := z.state == zygoteStarting
	z.state, z.reason, z.since = state, reason, time.Now()
	if previous := z.previous; previous != nil {
		if state == zygoteFailed {
			zs.profile(z.env).forgetModules(z.modules, previous.modules, zs.log)
		}
		zs.log.Warn("no successor for a warm worker; the former stays", "pid", previous.pid, "state", state, "reason", reason)
		previous.successor, previous.startTook = nil, max(previous.startTook, zygoteStartTime) // so that renew does not try again soon
	} else if state == zygoteFailed {
		zs.log.Warn("warm worker did not start; tasks get fresh interpreters", "interpreter", z.env.Interpreter, "reason", reason)
	} else if zs.live[z.key] == z {
		delete(zs.live, z.key)
	}
	if z.conn != nil {
		if len(z.children) > 0 && z.pid > 0 {
			// The process hangs. When it is killed, its children become ours; otherwise their ends would never be reported.
			_ = syscall.Kill(z.pid, syscall.SIGKILL)
		}
		_ = z.conn.Close() // the end of the socket ends the process
	}
	close(z.ended)
	if starting {
		close(z.ready)
	}
}

// tend ends idle zygotes, and renews those for which that is worth it. It is called every second or so.
func (zs *zygotes) tend(now time.Time) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	for key, z := range zs.live {
		switch {
		case z.state == zygoteFailed && now.Sub(z.since) > max(failureRest, zs.idle):
			delete(zs.live, key)
		case z.state != zygoteReady:
		case len(z.children) == 0 && now.Sub(z.used) > zs.idle:
			zs.endLocked(z, zygoteEnded, "idle")
		default:
			zs.renew(z, now)
		}
	}
}

// retire ends a zygote that has been replaced; called with the mutex held. Its process still forks the children it was asked for and
// reports the ends that it has seen, and then ends: the children that run become ours. So there are never more than two zygotes of
// a line, however long a task takes.
func (zs *zygotes) retire(z *zygote) {
	if z.state != zygoteReady || z.retiring {
		return
	}
	z.retiring = true
	if z.successor != nil {
		zs.endLocked(z.successor, zygoteEnded, "nobody's successor any more")
	}
	_ = z.conn.CloseWrite() // run reads on until the process has ended
}

func (zs *zygotes) status() []ZygoteStatus {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	list := []ZygoteStatus{}
	for _, z := range zs.live {
		s := ZygoteStatus{
			Interpreter: z.env.Interpreter, Digest: z.env.Digest, PID: z.pid, State: z.state, Reason: z.reason, Forks: z.forks,
			Running: len(z.children), Preloaded: z.preloaded, Believed: z.believed, Since: z.since,
		}
		dropped := zs.profile(z.env).Dropped
		for i, name := range slices.Sorted(maps.Keys(dropped)) {
			if i == maxShown {
				s.Dropped = append(s.Dropped, fmt.Sprintf("… and %d more", len(dropped)-i))
				break
			}
			s.Dropped = append(s.Dropped, name+": "+dropped[name])
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b ZygoteStatus) int { return a.PID - b.PID })
	return list
}

func (zs *zygotes) endAll() {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	for _, z := range zs.live {
		zs.endLocked(z, zygoteEnded, "the supervisor ends")
	}
}

// socketPair returns a connection for us and a file for one child process; other children inherit neither.
func socketPair(kind int) (*net.UnixConn, *os.File, error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	file := os.NewFile(uintptr(fds[0]), "child")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		_ = syscall.Close(fds[1])
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "child"), nil
}

// describe says how a process ended.
func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + cmp.Or(unix.SignalName(status.Signal()), status.Signal().String())
	}
	return "exit code " + strconv.Itoa(status.ExitStatus())
}

// lastLine is the last line of a log.
func lastLine(path string) string {
	b, err := leftover.Tail(path, 4096)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
