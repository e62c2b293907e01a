package worker

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/leftover"
	"github.com/aloft-dev/aloft/internal/removal"
)

// run is the life of one attempt. The claim is synced while the process is prepared; user code starts after both.
func (s *supervisor) run(a *attempt) {
	record := newRecord(a)
	go func() {
		a.claimErr = s.journal.claim(claim{
			Version: Protocol, AttemptID: a.spec.AttemptID, Token: a.spec.Token, Mark: string(a.mark), Numbered: true, BootID: s.boot, ClaimedAt: time.Now(),
			OutputDir: a.spec.OutputDir, TempDir: a.spec.TempDir, MemoryLimit: a.spec.MemoryLimit, Grace: int64(a.spec.Grace),
			Environment: a.spec.Environment.Digest, DataDir: s.dataDir, Place: s.place,
		})
		close(a.claimed)
	}()
	group, err := s.prepare(a)
	var child *forked
	if err == nil {
		child, record.WhyCold, err = s.forkWarm(a, group)
	}
	<-a.claimed
	if a.claimErr != nil {
		if child != nil {
			child.abandon()
		}
		s.groups.release(group)
		s.removeTemp(a)
		s.mu.Lock()
		delete(s.attempts, a.spec.AttemptID)
		close(a.over)
		s.settle()
		s.mu.Unlock()
		return
	}
	if err != nil {
		record.Stopped = errors.Is(err, errStopped)
		record.Code, record.Reason = 128, "the attempt was not started: "+err.Error()
		record.Unready = !record.Stopped
		if record.Stopped {
			record.Reason = "stopped before it was started"
		}
		s.finish(a, group, record)
		return
	}
	record.Mode = ModeCold
	if child != nil {
		record.Mode, record.WhyCold = ModeWarm, ""
	}
	record.StartedAt = time.Now()
	if child != nil {
		s.runWarm(a, group, child, record)
	} else {
		s.runCold(a, group, record)
	}
}

func newRecord(a *attempt) ExitRecord {
	return ExitRecord{AttemptID: a.spec.AttemptID, Token: a.spec.Token, Environment: a.spec.Environment.Digest}
}

// prepare makes what both ways of starting need, so that both fail alike.
func (s *supervisor) prepare(a *attempt) (*group, error) {
	if info, err := os.Stat(a.spec.WorkDir); err != nil {
		return nil, fmt.Errorf("use working folder: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("use working folder: %s is not a folder", a.spec.WorkDir)
	}
	if a.spec.TempDir != "" {
		if err := os.MkdirAll(a.spec.TempDir, 0o700); err != nil {
			return nil, fmt.Errorf("make temporary folder: %w", err)
		}
	}
	for _, path := range []string{a.spec.Stdout, a.spec.Stderr} {
		if path == "" {
			continue
		}
		file, err := openLog(path)
		if err != nil {
			return nil, fmt.Errorf("capture logs: %w", err)
		}
		_ = file.Close()
	}
	group := s.groups.take(a.mark, a.spec.MemoryLimit, a.spec.Mode != ModeCold && a.command.cold == "")
	if s.mounts == nil && len(a.spec.ReadOnly) > 0 {
		group.mounts = &mounts{ReadOnly: a.spec.ReadOnly, Writable: a.spec.Writable}
	}
	return group, nil
}

func (s *supervisor) forkWarm(a *attempt, group *group) (child *forked, whyCold string, err error) {
	switch {
	case a.spec.Mode == ModeCold:
		return nil, "", nil
	case a.command.cold != "":
		whyCold = a.command.cold
	default:
		child, whyCold, err = s.zygotes.fork(a.spec, a.command, childSpec{
			Argv: a.command.argv, Env: a.command.env, Cwd: a.spec.WorkDir, Mark: string(a.mark), Joins: group.joins(),
			Stdout: orNull(a.spec.Stdout), Stderr: orNull(a.spec.Stderr), TempDir: a.spec.TempDir,
			Mounts: group.mounts, DoneFile: s.folder.done(a.spec.AttemptID),
		}, a.stop)
	}
	if child == nil && err == nil && a.spec.Mode == ModeWarm {
		s.log.Warn("attempt is not warm as asked for", "attempt", a.spec.AttemptID, "reason", whyCold)
	}
	return child, whyCold, err
}

func orNull(path string) string {
	if path == "" {
		return os.DevNull
	}
	return path
}

func (s *supervisor) runWarm(a *attempt, group *group, child *forked, record ExitRecord) {
	p := process{
		BootID: s.boot, PID: child.pid, StartTime: startTime(child.pid), Mode: record.Mode, StartedAt: record.StartedAt,
	}
	if err := s.journal.process(a.spec.AttemptID, p); err != nil {
		s.log.Warn("process is not recorded; after a crash of ours it is found by its mark", "attempt", a.spec.AttemptID, "error", err)
	}
	if err := group.claim(child.pid); err != nil {
		s.log.Warn("process is not marked; it is found by its environment", "attempt", a.spec.AttemptID, "error", err)
	}
	// Events stay in order because the child is told to go before anything of it can be read.
	s.advance(a, StateRunning, p.PID, nil)
	_ = child.start() // a child that is dead by now says so by its end
	watched := s.watch(a, p, group)

	var done *childDone
	var unfit string
	var imported []string
	told := make(chan struct{})
	go func() {
		defer close(told)
		// A child that has more to say is not read any further: its attempt is judged by its exit, as if it had said nothing more.
		defer func() { _ = child.conn.Close() }()
		for range maxLines {
			line, err := child.lines.ReadBytes('\n')
			if err != nil {
				return
			}
			var m childDone
			if json.Unmarshal(line, &m) != nil {
				continue
			}
			m.bound()
			if m.Imported != nil { // and its work begins: others may profit from what it had to import while it works
				imported = m.Modules
				s.zygotes.learn(child.zygote, m.Modules, seconds(*m.Imported))
			}
			if m.Done != nil {
				m.Modules = append(imported, m.Modules...)
				done = &m
				if group.kills() > 0 { // it lost a process: that decides, not what the task makes of it
					continue
				}
				// What it leaves running may still write to what it returns: then its outcome is not read before that has ended.
				if m.Children = m.Children || group.orphaned(child.pid); !m.Children {
					provisional := record
					provisional.Code, provisional.EndedAt = *m.Done, time.Now()
					provisional.Modules = listed(m.Modules)
					provisional.CPUUser, provisional.CPUSystem = seconds(m.User), seconds(m.Sys)
					s.mu.Lock()
					provisional.Stopped = a.stopped
					s.mu.Unlock()
					s.advance(a, StateDone, 0, &provisional)
				}
				s.zygotes.learn(child.zygote, m.Modules[len(imported):], 0)
			}
			unfit = cmp.Or(unfit, m.Unfit)
			if m.Unmounted != "" {
				s.log.Warn("stored objects are not read-only for an attempt", "attempt", a.spec.AttemptID, "reason", m.Unmounted)
			}
			if m.Memory > 0 {
				record.PeakMemory = m.Memory << 10
			}
		}
	}()
	ended, known, gone := s.waitWarm(child, p, told, watched.unkillable)
	if !gone {
		s.giveUp(a, p, watched, group, record)
		return
	}
	watched.stop()
	record.EndedAt = time.Now()
	if known {
		record.Code, record.Signal = split(ended.status)
		if ended.usage != nil {
			record.CPUUser, record.CPUSystem = time.Duration(ended.usage.Utime.Nano()), time.Duration(ended.usage.Stime.Nano())
			record.PeakMemory = max(record.PeakMemory, maxRSS(ended.usage))
		}
	}
	if done != nil {
		record.Code, record.Signal, record.Modules = *done.Done, 0, listed(done.Modules)
	} else if !known {
		s.decideUnknown(a, &record)
	}
	if done == nil || done.Children || group.orphaned(p.PID) || len(group.members()) > 0 {
		s.killAll(a, p.PID, group)
	}
	if unfit != "" && s.startOver(a, unfit) {
		record.Mode, record.WhyCold = ModeCold, unfit
		record.Code, record.Signal, record.Lost, record.Reason = 0, 0, false, ""
		s.runCold(a, group, record)
		return
	}
	watched.judge(&record)
	s.finish(a, group, record)
}

// startOver prepares an attempt for a fresh interpreter: its warm child came to an import that its warm worker has done
// otherwise and that cannot be done again in one process, and nothing of what it wrote counts. It is the last resort: code
// for which it happened is not forked again.
func (s *supervisor) startOver(a *attempt, why string) bool {
	s.zygotes.setUnfit(a.spec, why)
	s.mu.Lock()
	stopped := a.stopped
	s.mu.Unlock()
	if stopped {
		return false
	}
	for _, path := range []string{a.spec.Stdout, a.spec.Stderr} {
		if path != "" {
			_ = os.Truncate(path, 0)
		}
	}
	if !s.removeTemp(a) {
		aside := filepath.Join(filepath.Dir(a.spec.TempDir), "gone-"+rand.Text())
		if os.Rename(a.spec.TempDir, aside) == nil {
			go func() { _ = removal.All(context.Background(), aside) }()
		}
	}
	if a.spec.TempDir != "" {
		_ = os.MkdirAll(a.spec.TempDir, 0o700)
	}
	return true
}

// childDone is what a child says: what it has imported when the task's own work begins, and then how it ended.
type childDone struct {
	Imported *float64 `json:"imported"` // seconds of the processor that loading the task took
	Done     *int     `json:"done"`
	User     float64  `json:"user"`
	Sys      float64  `json:"sys"`
	Children bool     `json:"children"`
	Modules  []string `json:"modules"` // that it had not told before
	Memory   int64    `json:"memory"`  // KiB
	Unfit    string   `json:"unfit"`   // why the attempt needs a fresh interpreter; nothing follows

	Unmounted string `json:"unmounted"` // why it has not the mounts that it was to have
}

// waitWarm returns when the child has ended, or is unkillable, and all that it said was read.
func (s *supervisor) waitWarm(child *forked, p process, told, unkillable <-chan struct{}) (ended ending, known, gone bool) {
	through := make(chan func(), 1)
	go func() {
		e, k := s.zygotes.wait(child, p)
		through <- func() { ended, known, gone = e, k, true }
	}()
	select {
	case note := <-through:
		note()
	case <-unkillable:
	}
	// What it said is in the socket's buffer now. A process that it left behind may hold the other end open, so the end of
	// the stream may not come.
	_ = child.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	<-told
	_ = child.conn.Close()
	return ended, known, gone
}

// giveUp ends an attempt whose process was killed and is still there: one that waits in the kernel for a disk that does not
// answer, or that is frozen where we cannot reach. Its execution goes on without it, and so does what waits for its place:
// the kernel ends it as soon as it can, and no count of ours makes the memory that it holds free.
func (s *supervisor) giveUp(a *attempt, p process, watched *watching, group *group, record ExitRecord) {
	watched.stop()
	record.Signal, record.EndedAt = int(syscall.SIGKILL), time.Now()
	watched.judge(&record)
	if record.Reason == "" {
		record.Reason = fmt.Sprintf("its process %d was killed and is still there (%s): a disk does not answer, or it is frozen", p.PID, condition(p.PID))
	}
	s.log.Error("a process cannot be killed; its attempt is over all the same", "attempt", a.spec.AttemptID, "pid", p.PID, "state", condition(p.PID))
	s.remain(a, append(group.processes(), p.PID))
	s.finish(a, group, record)
}

// remain notes processes that were killed and are still there.
func (s *supervisor) remain(a *attempt, pids []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pid := range pids {
		if !slices.ContainsFunc(s.undead, func(u Undead) bool { return u.PID == pid && u.started == startTime(pid) }) {
			s.undead = append(s.undead, Undead{AttemptID: a.spec.AttemptID, PID: pid, started: startTime(pid)})
		}
	}
}

// stillThere is what remains of them.
func (s *supervisor) stillThere() []Undead {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undead = slices.DeleteFunc(s.undead, func(u Undead) bool { return !alive(process{BootID: s.boot, PID: u.PID, StartTime: u.started}) })
	found := slices.Clone(s.undead)
	for i := range found {
		found[i].Condition = condition(found[i].PID)
	}
	return found
}

func (s *supervisor) runCold(a *attempt, group *group, record ExitRecord) {
	pid, ended, err := s.execute(a, group)
	if err != nil {
		record.Code, record.Reason, record.EndedAt = 127, err.Error(), time.Now()
		record.Unready = machineLacks(err)
		if errors.Is(err, os.ErrPermission) {
			record.Code = 126
		}
		appendLine(a.spec.Stderr, err.Error())
		s.finish(a, group, record)
		return
	}
	p := process{
		BootID: s.boot, PID: pid, StartTime: startTime(pid), Mode: record.Mode, WhyCold: record.WhyCold, StartedAt: record.StartedAt,
	}
	if err := s.journal.process(a.spec.AttemptID, p); err != nil {
		s.log.Warn("process is not recorded; after a crash of ours it is found by its mark", "attempt", a.spec.AttemptID, "error", err)
	}
	s.advance(a, StateRunning, pid, nil)
	watched := s.watch(a, p, group)
	var e ending
	select {
	case e = <-ended:
	case <-watched.unkillable:
		s.giveUp(a, p, watched, group, record)
		return
	}
	watched.stop()
	record.EndedAt = time.Now()
	record.Code, record.Signal = split(e.status)
	record.CPUUser, record.CPUSystem = time.Duration(e.usage.Utime.Nano()), time.Duration(e.usage.Stime.Nano())
	record.PeakMemory = maxRSS(e.usage)
	s.killAll(a, pid, group)
	watched.judge(&record)
	s.finish(a, group, record)
}

// machineLacks says whether a process could not be started for want of something that a machine has when it is well. A
// program that is not there is the task's own mistake.
func machineLacks(err error) bool {
	for _, lack := range []error{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE,
	} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

func (s *supervisor) execute(a *attempt, group *group) (int, <-chan ending, error) {
	path, argv, err := a.command.executable(a.spec)
	if err != nil {
		return 0, nil, fmt.Errorf("start attempt: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, fmt.Errorf("start attempt: %w", err)
	}
	defer null.Close()
	files := []uintptr{null.Fd()}
	for _, name := range []string{a.spec.Stdout, a.spec.Stderr} {
		file, err := openLog(name)
		if err != nil {
			return 0, nil, fmt.Errorf("start attempt: %w", err)
		}
		defer file.Close()
		files = append(files, file.Fd())
	}
	pid, ended, err := s.reaper.start(path, argv, &syscall.ProcAttr{
		Dir: a.spec.WorkDir, Env: a.command.environ(), Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	}, group)
	if group.mountErr != nil {
		s.log.Warn("stored objects are not read-only for an attempt", "attempt", a.spec.AttemptID, "reason", group.mountErr)
	}
	return pid, ended, err
}

// openLog opens the file that takes what an attempt writes; without one it is lost. Another attempt may have put something
// else in its place, which must neither block us nor get what this one writes.
func openLog(path string) (*os.File, error) {
	if path == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, leftover.Explain(path, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &leftover.NotFileError{Name: filepath.Base(path), What: leftover.Kind(info.Mode())}
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// adopt takes over what a supervisor before us has left.
func (s *supervisor) adopt(left []stored) {
	for _, found := range left {
		c := found.claim
		a := newAttempt(Spec{
			AttemptID: c.AttemptID, Token: c.Token, OutputDir: c.OutputDir, TempDir: c.TempDir, MemoryLimit: c.MemoryLimit,
			Grace: time.Duration(c.Grace), Environment: Environment{Digest: c.Environment},
		}, mark(c.Mark))
		a.adopted = true
		close(a.claimed)
		s.attempts[c.AttemptID] = a
		if found.exit != nil {
			a.state, a.exit = StateExited, found.exit
			close(a.over)
			continue
		}
		if c.Place != "" && c.BootID == s.boot && (c.Place != s.place || !leads(c.DataDir, c.Place)) {
			go s.disown(a, found)
			continue
		}
		go s.readopt(a, found)
	}
	s.mu.Lock()
	s.settle()
	s.mu.Unlock()
}

// movedReason is why an attempt is lost that was told a path which no longer leads to its data folder.
const movedReason = "the data folder was moved or copied while the attempt ran"

// disown gives up an attempt that was started before the data folder was moved, or in the folder that this one is a copy of:
// then its processes and files are not ours to touch.
func (s *supervisor) disown(a *attempt, found stored) {
	record := newRecord(a)
	record.lose(movedReason)
	record.EndedAt = time.Now()
	a.spec.TempDir, a.spec.OutputDir = "", ""
	var g *group
	if found.claim.Place == s.place {
		pid := 0
		if p := found.process; p != nil && alive(*p) {
			pid = p.PID
			record.Mode, record.WhyCold, record.StartedAt = p.Mode, p.WhyCold, p.StartedAt
		}
		g = s.groups.find(a.mark, a.spec.MemoryLimit, found.claim.Numbered)
		s.killAll(a, pid, g)
	}
	s.finish(a, g, record)
}

// readopt watches an attempt that is not our child: its exit code is unknown unless it wrote it down.
func (s *supervisor) readopt(a *attempt, found stored) {
	record := newRecord(a)
	sameBoot := found.claim.BootID == s.boot
	p := found.process
	if p == nil && sameBoot {
		// The supervisor before us ended between the start of the process and its record.
		if pids := processesOf(a.mark, true); len(pids) > 0 {
			p = &process{BootID: s.boot, PID: pids[0], StartTime: startTime(pids[0])}
		}
	}
	if p != nil {
		record.Mode, record.WhyCold, record.StartedAt = p.Mode, p.WhyCold, p.StartedAt
		sameBoot = sameBoot && p.BootID == s.boot
	}
	group := s.groups.find(a.mark, a.spec.MemoryLimit, found.claim.Numbered)
	if p != nil && sameBoot && alive(*p) {
		s.log.Info("attempt adopted", "attempt", a.spec.AttemptID, "pid", p.PID)
		s.advance(a, StateRunning, p.PID, nil)
		watched := s.watch(a, *p, group)
		through := make(chan struct{})
		go func() {
			defer close(through)
			_ = awaitGone(context.Background(), *p)
		}()
		select {
		case <-through:
		case <-watched.unkillable:
			s.giveUp(a, *p, watched, group, record)
			return
		}
		watched.stop()
		s.decideUnknown(a, &record)
		s.killAll(a, p.PID, group)
		watched.judge(&record)
	} else {
		s.decideUnknown(a, &record)
		if p == nil {
			record.lose("the supervisor ended before the attempt was started")
		} else if !sameBoot && record.Lost {
			record.Reason = "the machine stopped while the attempt ran"
		}
		if sameBoot {
			s.killAll(a, 0, group)
		}
	}
	record.EndedAt = time.Now()
	s.finish(a, group, record)
}

// living is the marks of the attempts of a journal that may have processes.
func living(left []stored, boot string) (marks []mark) {
	for _, found := range left {
		if found.exit == nil && found.claim.BootID == boot {
			marks = append(marks, mark(found.claim.Mark))
		}
	}
	return marks
}

// decideUnknown judges an attempt whose end nobody saw by what it left.
func (s *supervisor) decideUnknown(a *attempt, record *ExitRecord) {
	if code := readDone(s.folder.done(a.spec.AttemptID)); code != nil {
		record.Code = *code
		return
	}
	if name := completeResult(a.spec.OutputDir); name != "" {
		record.Reason = "its exit code is unknown since the supervisor ended meanwhile; it left " + name
		return
	}
	record.lose("its exit code is unknown since the supervisor ended meanwhile, and it left no result")
}

// completeResult names the file by which flytekit tells a result, if one is there and whole.
func completeResult(dir string) string {
	if dir == "" {
		return ""
	}
	for _, name := range []string{"futures.pb", "error.pb", "outputs.pb"} {
		if b, err := leftover.Read(filepath.Join(dir, name), aloft.MaxMessageBytes); err == nil && wholeMessage(b) {
			return name
		}
	}
	return ""
}

// wholeMessage says whether these bytes are a protobuf message to their end: one that was cut while it was written is not,
// unless the cut is between two fields.
func wholeMessage(b []byte) bool {
	varint := func() (v uint64, ok bool) {
		for shift := 0; len(b) > 0 && shift < 64; shift += 7 {
			c := b[0]
			b = b[1:]
			v |= uint64(c&0x7f) << shift
			if c < 0x80 {
				return v, true
			}
		}
		return 0, false
	}
	for len(b) > 0 {
		tag, ok := varint()
		if !ok || tag>>3 == 0 {
			return false
		}
		var skip uint64
		switch tag & 7 {
		case 0:
			_, ok = varint()
		case 1:
			skip = 8
		case 2:
			skip, ok = varint()
		case 5:
			skip = 4
		default:
			return false
		}
		if !ok || skip > uint64(len(b)) {
			return false
		}
		b = b[skip:]
	}
	return true
}

// killAll ends every process of the attempt that is left, whatever session, parent or environment it has.
func (s *supervisor) killAll(a *attempt, pid int, group *group) {
	killSession(pid)
	for round := range maxRounds { // a fork may be faster than one look
		left := group.processes()
		if len(left) == 0 {
			return
		}
		group.kill(left)
		if round > 0 {
			pause(round)
		}
	}
	s.log.Error("processes of an ended attempt cannot be killed", "attempt", a.spec.AttemptID)
	s.remain(a, group.processes())
}

// endInherited ends the children that we did not start and that no attempt is known to have: a task took both mark and
// control group from them, and they became ours when their parents ended. Whose they are cannot be told, so they are left
// alone until the last attempt that runs ends.
func (s *supervisor) endInherited(last *attempt) {
	for round := range maxRounds {
		strays := s.reaper.strays() // before the question who runs: what an attempt that begins now starts is not among them
		if len(strays) == 0 {
			return
		}
		s.mu.Lock()
		for _, a := range s.attempts {
			if a != last && a.state != StateExited {
				s.mu.Unlock()
				return
			}
		}
		s.mu.Unlock()
		for _, p := range strays {
			_ = killOnly(p.PID, func(int) bool { return alive(p) })
		}
		pause(round)
	}
}

// finish makes the end durable and tells it.
func (s *supervisor) finish(a *attempt, group *group, record ExitRecord) {
	if s.moved() {
		record.lose(movedReason)
	}
	// A task that finds no room cannot write that down either. Asked before we make some.
	if record.Reason == "" && (record.Code != 0 || record.Signal != 0) && diskFull(s.folder.dir) {
		record.Reason = "the disk of the data folder was full: No space left on device; make room and run it again"
	}
	s.endInherited(a)
	s.removeTemp(a)
	s.mu.Lock()
	forgotten := a.forgotten
	if a.stopped {
		record.Stopped = true
	}
	s.mu.Unlock()
	if record.EndedAt.IsZero() {
		record.EndedAt = time.Now()
	}
	record.Reason, record.WhyCold = shortened(record.Reason), shortened(record.WhyCold)
	if !forgotten {
		if err := s.journal.exit(record.kept()); err != nil {
			// It is told all the same; after a crash of ours it would be judged by the task's files.
			s.log.Error("exit record is not durable", "attempt", record.AttemptID, "error", err)
		}
	}
	s.groups.release(group)
	s.advance(a, StateExited, 0, &record)
}

// tempAtOnce is how many files of a temporary folder are removed before the end of its attempt is told.
const tempAtOnce = 1000

// removeTemp removes the temporary folder of an attempt, and says whether all of it is gone. What would take long is left to
// the server, which removes the folders of an attempt when it forgets it.
func (s *supervisor) removeTemp(a *attempt) (gone bool) {
	if a.spec.TempDir == "" {
		return true
	}
	gone, err := removal.Some(a.spec.TempDir, tempAtOnce)
	if err != nil {
		s.log.Warn("temporary folder stays", "attempt", a.spec.AttemptID, "error", err)
	}
	return gone
}

func split(status syscall.WaitStatus) (code, signal int) {
	if status.Signaled() {
		return 0, int(status.Signal())
	}
	return status.ExitStatus(), 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func appendLine(path, line string) {
	if path == "" {
		return
	}
	if file, err := openLog(path); err == nil {
		_, _ = file.WriteString(strings.TrimSpace(line) + "\n")
		_ = file.Close()
	}
}
