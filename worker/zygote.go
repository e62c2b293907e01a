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

// zygotes is the warm workers of a supervisor.
type zygotes struct {
	log    *slog.Logger
	folder folder
	reaper *reaper
	max    int
	idle   time.Duration
	script string // where zygote.py of this build is

	mu     sync.Mutex
	live   map[string]*zygote // by key
	learnt map[string]*learnt // by environment
	asked  map[string]bool    // keys that an attempt has come with
	unfit  map[string]string  // by code: why its attempts need a fresh interpreter
}

// learnt is what is known of an environment across zygotes and supervisors; a file of it is what a zygote starts with.
type learnt struct {
	path    string
	Prover  string            `json:"prover"` // the zygote.py that Dropped is of
	Modules []string          `json:"modules"`
	Reads   []string          `json:"reads"`   // variables that these read at their import
	Dropped map[string]string `json:"dropped"` // modules that are never imported ahead, and why
}

// zygote is one warm worker. The mutex of zygotes guards what is not set once.
type zygote struct {
	key     string
	env     Environment
	startup map[string]string
	ready   chan struct{} // closed when it is ready, or will never be
	ended   chan struct{} // closed when its process is gone or told to go: it forks and reports no more

	state     string
	reason    string
	pid       int
	conn      *net.UnixConn
	children  map[int]*forked
	number    int
	forks     int64
	preloaded int
	believed  int
	rss       int64
	since     time.Time
	used      time.Time

	imports  *imports        // what it has imported, set when it is ready
	modules  map[string]bool // what it was told to preload
	how      []string        // how it is to be started another time (zygote.py)
	slow     bool            // a child of it spent noticeable time with imports
	former   *zygote         // whose place it takes when it is ready; nil: nobody's
	next     *zygote         // that is to take its place; nil: none is being started
	renewed  time.Time       // when the last one of its line was started
	lasted   time.Duration   // how long that one took to be ready
	retiring bool            // it forks no more and is told to end
}

const (
	zygoteStarting = "starting"
	zygoteReady    = "ready"
	zygoteFailed   = "failed"
	zygoteEnded    = "ended"
)

// forked is a child that waits for its go.
type forked struct {
	zygote   *zygote
	conn     net.Conn
	lines    *bufio.Reader
	pid      int
	reported chan ending // by the zygote
}

const (
	zygoteStartTime = 180 * time.Second
	// No attempt waits for a successor, which proves what thousands of modules do: ten seconds of a processor that is idle.
	successorStartTime = 15 * time.Minute
	forkTime           = 20 * time.Second
	failureRest        = 30 * time.Second // a zygote that did not start is not tried again for so long

	// A successor is started for so many modules that the zygote has not, at least this part of all, since it imports all of
	// them again; or for a single one if imports were slow. And not sooner after the one before than renewalPause, and than
	// renewalShare times what that one took.
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
		live: map[string]*zygote{}, learnt: map[string]*learnt{}, asked: map[string]bool{}, unfit: map[string]string{},
	}, nil
}

var errStopped = errors.New("stopped")

// fork returns a child that has everything but its go, or the reason why there can be none.
func (zs *zygotes) fork(spec Spec, c command, message childSpec, stop <-chan struct{}) (*forked, string, error) {
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
		same := z.key == zs.key(spec.Environment, c.env) // getting ready may have taught us variables that matter
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
			zs.outdate(z)
			zs.mu.Unlock()
			continue
		}
		if why := z.imports.differ(c.env, spec.WorkDir); why != "" {
			return nil, why, nil
		}
		child, err := zs.forkFrom(z, message, stop)
		if err == nil || errors.Is(err, errStopped) {
			return child, "", err
		}
		zs.mu.Lock()
		if !z.retiring { // else its successor is there
			zs.log.Warn("warm worker did not fork", "pid", z.pid, "error", err)
			zs.endLocked(z, zygoteEnded, err.Error())
		}
		zs.mu.Unlock()
	}
	return nil, "the warm worker ended again and again", nil
}

// outdate takes a zygote, whose files are no longer what it imported, and the one that was to succeed it out of use. Called
// with the mutex held.
func (zs *zygotes) outdate(z *zygote) {
	if zs.live[z.key] == z {
		delete(zs.live, z.key)
	}
	zs.retire(z)
}

// codeOf is what tells an attempt's code from others': its archive, and what of it is loaded.
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

// childSpec is what a child of a zygote is told.
type childSpec struct {
	Argv     []string          `json:"argv"`
	Env      map[string]string `json:"env"`
	Cwd      string            `json:"cwd"`
	Stdout   string            `json:"stdout"`
	Stderr   string            `json:"stderr"`
	TempDir  string            `json:"temp_dir,omitempty"` // made for this attempt alone; empty: none was
	Mark     string            `json:"mark"`
	Joins    []string          `json:"joins,omitempty"`  // files of control groups: a process that writes 0 to them is in
	Mounts   *mounts           `json:"mounts,omitempty"` // nil: it sees what we see
	DoneFile string            `json:"done_file"`
}

func (zs *zygotes) forkFrom(z *zygote, message childSpec, stop <-chan struct{}) (*forked, error) {
	ours, theirs, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	child := &forked{zygote: z, conn: ours, lines: bufio.NewReader(io.LimitReader(ours, maxSaid)), reported: make(chan ending, 1)}
	zs.mu.Lock()
	if z.conn == nil { // it was ready when we looked, and has ended since
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
		zs.leave(z, n)
		_ = ours.Close()
		return nil, fmt.Errorf("ask for a fork: %w", err)
	}
	body, err := json.Marshal(message)
	if err != nil {
		panic(err) // strings only
	}
	// A zygote that hangs, or a stop, must not keep us: without its go the child ends by itself.
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
				if isStopped(z.pid) { // by a task: it is of the same user
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
		zs.leave(z, n)
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

// start lets a child run user code.
func (child *forked) start() error {
	_, err := child.conn.Write([]byte{'g'})
	return err
}

// abandon ends a child that had no go.
func (child *forked) abandon() { _ = child.conn.Close() }

// wait returns how the child ended; known is false where nobody can say.
func (zs *zygotes) wait(child *forked, p process) (e ending, known bool) {
	defer func() { _ = child.conn.Close() }()
	select {
	case e := <-child.reported:
		return e, true
	case <-child.zygote.ended:
	}
	select { // it may have been its last word
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

// awaitInherited waits for a process whose parent died. It becomes our child, unless that parent had reaped it and told nobody.
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
	case <-time.After(time.Second): // a zombie is gone and will be reaped; one that never becomes ours is not
		r.leave(p.PID)
		return ending{}, false
	}
}

func (zs *zygotes) leave(z *zygote, n int) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	delete(z.children, n)
}

// key is called with the mutex held.
func (zs *zygotes) key(env Environment, variables map[string]string) string {
	parts := []string{env.Interpreter, env.Digest}
	startup := startupVariables(variables, zs.lesson(env).Reads)
	for _, name := range slices.Sorted(maps.Keys(startup)) {
		parts = append(parts, name, startup[name])
	}
	return shortHash(parts...)
}

// lesson is called with the mutex held.
func (zs *zygotes) lesson(env Environment) *learnt {
	name := shortHash(env.Interpreter, env.Digest)
	l, ok := zs.learnt[name]
	if !ok {
		l = &learnt{}
		path := filepath.Join(zs.folder.learnt(), name+".json")
		readJSON(path, l)
		l.path = path
		if prover := filepath.Base(zs.script); l.Dropped == nil || l.Prover != prover { // another one may prove more
			l.Prover, l.Dropped = prover, map[string]string{}
		}
		zs.learnt[name] = l
	}
	return l
}

// save is called with the mutex held. What is learnt may be lost: it will be learnt again.
func (l *learnt) save(log *slog.Logger) {
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
	maxShown  = 100    // of these, in the status
)

// unlearn forgets the modules with which a zygote could not start, but for those that its former has preloaded: what a task has
// said that it imported may be a module that ends a zygote. The others are learnt again from the tasks that import them.
func (l *learnt) unlearn(modules, preloaded map[string]bool, log *slog.Logger) {
	l.Modules = slices.DeleteFunc(l.Modules, func(m string) bool { return modules[m] && !preloaded[m] })
	l.save(log)
}

// learn takes the modules that a task of this zygote has imported from its environment, and how long that took.
func (zs *zygotes) learn(z *zygote, modules []string, took time.Duration) {
	if len(modules) == 0 {
		return
	}
	zs.mu.Lock()
	defer zs.mu.Unlock()
	l, grown := zs.lesson(z.env), false
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
			zs.improve(other, now)
		}
	}
}

func (l *learnt) dropped(module string) bool {
	top, _, _ := strings.Cut(module, ".")
	return l.Dropped[module] != "" || l.Dropped[top] != ""
}

// improve starts the successor of a zygote if there is enough that its children must import by themselves; called with the
// mutex held. It may be called as often as one likes.
func (zs *zygotes) improve(z *zygote, now time.Time) {
	if z.state != zygoteReady || z.next != nil || z.retiring || now.Sub(z.renewed) < max(renewalPause, renewalShare*z.lasted) {
		return
	}
	missing, all := 0, zs.lesson(z.env).Modules
	for _, m := range all {
		if !z.modules[m] {
			missing++
		}
	}
	if missing < max(manyModules, len(all)/manyPart) && (missing == 0 || !z.slow) {
		return
	}
	next := zs.newZygote(z.key, z.env, z.startup)
	next.former, z.next, z.renewed, next.renewed = z, next, now, now
	zs.log.Info("warm worker gets a successor", "pid", z.pid, "modules", missing)
	go zs.run(next, 0)
}

// obtain returns the zygote for these variables, starting it where there is none; it need not be ready. An environment's
// second and later ones are started when an attempt with the same start-up variables comes again: a variable that differs
// from attempt to attempt would otherwise make a warm worker for each, which costs more than a fresh interpreter.
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
	again := zs.asked[key]
	if len(zs.asked) > 10_000 {
		clear(zs.asked)
	}
	zs.asked[key] = true
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
	startup := startupVariables(variables, zs.lesson(env).Reads)
	if path, ok := variables["PATH"]; ok {
		startup["PATH"] = path
	} else {
		startup["PATH"] = withFirst(filepath.Dir(env.Interpreter), "")
	}
	return &zygote{
		key: key, env: env, startup: startup, state: zygoteStarting, children: map[int]*forked{},
		ready: make(chan struct{}), ended: make(chan struct{}), since: time.Now(), used: time.Now(),
	}
}

// packetReader puts the packets of a zygote together: a message that is longer than a packet may be comes in several.
type packetReader struct {
	conn    net.Conn
	buffer  []byte
	message []byte
}

// maxZygoteMessage bounds a message of a zygote, which has some hundred bytes for each module that it was told to preload.
const maxZygoteMessage = 16 << 20

// next returns a message, which is valid until the next one is read.
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
		if r.buffer[0] == '.' { // else '+': more of it follows
			return r.message, nil
		}
	}
}

// zygoteMessage is what a zygote says.
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

// run starts a zygote's process and follows it to its end.
func (zs *zygotes) run(z *zygote, tries int) {
	logPath := filepath.Join(zs.folder.dir, "zygote-"+z.key[:12]+".log")
	conn, ended, err := zs.spawn(z, logPath)
	if err != nil {
		zs.fail(z, err.Error())
		return
	}
	patience := zygoteStartTime
	if z.former != nil {
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
			_ = syscall.Kill(z.pid, syscall.SIGKILL) // gone already, or it hangs
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
			z.conn = nil // in one moment with the state: who sees it ready may use its connection
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
			l := zs.lesson(z.env)
			l.drop(m.Restart.Dropped)
			l.save(zs.log)
			over := z.state != zygoteStarting
			if m.Restart.How != "" {
				z.how = append(z.how, m.Restart.How)
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

// drop takes modules, and all modules of a package with such a name, out of what is imported ahead. When too many would be known
// the former ones are forgotten: a zygote finds each of them again once a task has imported it.
func (l *learnt) drop(found map[string]string) {
	if len(l.Dropped)+len(found) > maxLearnt {
		clear(l.Dropped)
	}
	for name, why := range found {
		l.Dropped[name] = shortened(why)
	}
	l.Modules = slices.DeleteFunc(l.Modules, l.dropped)
}

func (zs *zygotes) setReady(z *zygote, m zygoteMessage, imports *imports) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	if z.state != zygoteStarting {
		imports.close()
		return
	}
	z.imports = imports
	l, changed := zs.lesson(z.env), false
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
	z.state, z.preloaded, z.believed, z.rss, z.lasted = zygoteReady, m.Ready.Preloaded, m.Ready.Believed, m.Ready.RSS, time.Since(z.since)
	zs.log.Info("warm worker ready", "pid", z.pid, "interpreter", z.env.Interpreter, "preloaded", z.preloaded, "believed", z.believed,
		"took", z.lasted.Round(time.Millisecond))
	zs.succeed(z)
	close(z.ready)
}

// succeed gives a zygote the place of its former; called with the mutex held, the same that what it read at its imports
// was learnt under: no attempt may see the one without the other.
func (zs *zygotes) succeed(z *zygote) {
	former := z.former
	if former == nil {
		return
	}
	z.former, former.next = nil, nil
	if zs.live[former.key] != former { // it ended meanwhile, and who came next has preloaded what we have
		zs.endLocked(z, zygoteEnded, "came too late")
		return
	}
	z.used = former.used
	delete(zs.live, former.key)
	// The modules may read variables that the key did not have: then it stands for what it was started with.
	z.key = zs.key(z.env, z.startup)
	if other := zs.live[z.key]; other != nil && other.state == zygoteReady {
		zs.retire(other)
	} else if other != nil {
		zs.endLocked(other, zygoteEnded, "replaced by one that is ready")
	}
	zs.live[z.key] = z
	zs.retire(former)
}

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
	l := zs.lesson(z.env)
	learntPath := l.path
	z.modules = make(map[string]bool, len(l.Modules))
	if z.former == nil {
		learntPath = "" // an attempt waits for it, and to prove what modules do takes long; its successor has them
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
	argv := append([]string{z.env.Interpreter, "-u", zs.script, learntPath, withoutScript}, z.how...)
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

func (zs *zygotes) fail(z *zygote, reason string) {
	zs.mu.Lock()
	defer zs.mu.Unlock()
	zs.endLocked(z, zygoteFailed, reason)
}

// endLocked takes a zygote out of use. One that failed stays listed, so that its reason can be seen and it is not tried
// for every attempt. Its running children live on.
func (zs *zygotes) endLocked(z *zygote, state, reason string) {
	if z.state == zygoteEnded || z.state == zygoteFailed {
		return
	}
	starting := z.state == zygoteStarting
	z.state, z.reason, z.since = state, reason, time.Now()
	if former := z.former; former != nil {
		if state == zygoteFailed {
			zs.lesson(z.env).unlearn(z.modules, former.modules, zs.log)
		}
		zs.log.Warn("no successor for a warm worker; the former stays", "pid", former.pid, "state", state, "reason", reason)
		former.next, former.lasted = nil, max(former.lasted, zygoteStartTime) // not soon again
	} else if state == zygoteFailed {
		zs.log.Warn("warm worker did not start; tasks get fresh interpreters", "interpreter", z.env.Interpreter, "reason", reason)
	} else if zs.live[z.key] == z {
		delete(zs.live, z.key)
	}
	if z.conn != nil {
		if len(z.children) > 0 && z.pid > 0 {
			// It hangs. Killed, it leaves its children to us; otherwise their ends would never be known.
			_ = syscall.Kill(z.pid, syscall.SIGKILL)
		}
		_ = z.conn.Close() // the end of the socket ends the process
	}
	close(z.ended)
	if starting {
		close(z.ready)
	}
}

// tend ends idle zygotes and renews those that could preload more than they have. It is called every second or so.
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
			zs.improve(z, now)
		}
	}
}

// retire ends a zygote that has been replaced; called with the mutex held. It still forks what it was asked for and tells
// of the children whose end it saw; the others become ours. So there are never more than two of a line, however long a
// task takes.
func (zs *zygotes) retire(z *zygote) {
	if z.state != zygoteReady || z.retiring {
		return
	}
	z.retiring = true
	if z.next != nil {
		zs.endLocked(z.next, zygoteEnded, "nobody's successor any more")
	}
	_ = z.conn.CloseWrite() // run reads on until the process has gone
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
		dropped := zs.lesson(z.env).Dropped
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

// socketPair returns a connection for us and a file for a child; neither is inherited by others.
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

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + cmp.Or(unix.SignalName(status.Signal()), status.Signal().String())
	}
	return "exit code " + strconv.Itoa(status.ExitStatus())
}

func lastLine(path string) string {
	b, err := leftover.Tail(path, 4096)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
