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
	var child *warmChild
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
		s.updateQuiet()
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

// prepare makes what a warm and a cold start need alike, so that both fail alike.
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

// forkWarm forks a child for an attempt. Without a child and an error the attempt is to start cold; whyCold says why, and is empty
// if the spec asks for that.
func (s *supervisor) forkWarm(a *attempt, group *group) (child *warmChild, whyCold string, err error) {
	switch {
	case a.spec.Mode == ModeCold:
		return nil, "", nil
	case a.command.cold != "":
		whyCold = a.command.cold
	default:
		child, whyCold, err = s.zygotes.fork(a.spec, a.command, childSpec{
			Argv: a.command.argv, Env: a.command.env, Cwd: a.spec.WorkDir, Mark: string(a.mark), Joins: group.joins(),
			Stdout: orDevNull(a.spec.Stdout), Stderr: orDevNull(a.spec.Stderr), TempDir: a.spec.TempDir,
			Mounts: group.mounts, DoneFile: s.folder.done(a.spec.AttemptID),
		}, a.stop)
	}
	if child == nil && err == nil && a.spec.Mode == ModeWarm {
		s.log.Warn("attempt is not warm as asked for", "attempt", a.spec.AttemptID, "reason", whyCold)
	}
	return child, whyCold, err
}

func orDevNull(path string) string {
	if path == "" {
		return os.DevNull
	}
	return path
}

// runWarm lets a warm child go, and follows it to its end.
func (s *supervisor) runWarm(a *attempt, group *group, child *warmChild, record ExitRecord) {
	p := process{
		BootID: s.boot, PID: child.pid, StartTime: startTime(child.pid), Mode: record.Mode, StartedAt: record.StartedAt,
	}
	if err := s.journal.process(a.spec.AttemptID, p); err != nil {
		s.log.Warn("process is not recorded; after a crash of ours it is found by its mark", "attempt", a.spec.AttemptID, "error", err)
	}
	if err := group.markProcess(child.pid); err != nil {
		s.log.Warn("process is not marked; it is found by its environment", "attempt", a.spec.AttemptID, "error", err)
	}
	// The event comes before the child may go: so EventDone cannot overtake EventStarted.
	s.advance(a, StateRunning, p.PID, nil)
	_ = child.start() // if the child is dead by now, waitWarm finds that out
	watched := s.watch(a, p, group)

	var done *childDone
	var unfit string
	var imported []string
	told := make(chan struct{})
	go func() {
		defer close(told)
		// Lines beyond maxLines are not read: the attempt is then judged by its exit and the lines that were read.
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
			if m.Imported != nil { // the task's own work begins: a successor can import the modules ahead for others meanwhile
				imported = m.Modules
				s.zygotes.learn(child.zygote, m.Modules, seconds(*m.Imported))
			}
			if m.Done != nil {
				m.Modules = append(imported, m.Modules...)
				done = &m
				if group.kills() > 0 { // the kernel killed a process of the attempt: that decides, not the task's exit code
					continue
				}
				// A process that the task leaves running may still write to the outputs: then the outcome is not read before that
				// process has ended.
				if m.Children = m.Children || group.orphaned(child.pid); !m.Children {
					provisional := record
					provisional.Code, provisional.EndedAt = *m.Done, time.Now()
					provisional.Modules = fitInEvent(m.Modules)
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
		record.Code, record.Signal, record.Modules = *done.Done, 0, fitInEvent(done.Modules)
	} else if !known {
		s.decideUnknown(a, &record)
	}
	if done == nil || done.Children || group.orphaned(p.PID) || len(group.members()) > 0 {
		s.killAll(a, p.PID, group)
	}
	if unfit != "" && s.prepareColdStart(a, unfit) {
		record.Mode, record.WhyCold = ModeCold, unfit
		record.Code, record.Signal, record.Lost, record.Reason = 0, 0, false, ""
		s.runCold(a, group, record)
		return
	}
	watched.judge(&record)
	s.finish(a, group, record)
}

// prepareColdStart prepares an attempt for a fresh interpreter after its warm child has ended at an import: the warm worker had
// imported that module under other circumstances, and a native module cannot be loaded twice in one process. What the child wrote
// does not count. This is the last resort: the same code is not forked again. It returns false if the attempt was stopped.
func (s *supervisor) prepareColdStart(a *attempt, why string) bool {
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

// childDone is a message of a warm child: the modules that it has imported when the task's own work begins (Imported), or how the
// task ended (Done), or one of the last three fields.
type childDone struct {
	Imported *float64 `json:"imported"` // seconds of the processor that loading the task took
	Done     *int     `json:"done"`
	User     float64  `json:"user"`
	Sys      float64  `json:"sys"`
	Children bool     `json:"children"`
	Modules  []string `json:"modules"` // those that no earlier message named
	Memory   int64    `json:"memory"`  // KiB
	Unfit    string   `json:"unfit"`   // why the attempt needs a fresh interpreter; no message follows

	Unmounted string `json:"unmounted"` // why the mounts of childSpec could not be made
}

// waitWarm returns when the child has ended, or is unkillable (gone is false), and all its messages were read (told is closed).
func (s *supervisor) waitWarm(child *warmChild, p process, told, unkillable <-chan struct{}) (ended ending, known, gone bool) {
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
	// All messages of the child are in the socket's buffer now. A process that it left behind may hold the other end open, so the
	// end of the stream may not come.
	_ = child.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	<-told
	_ = child.conn.Close()
	return ended, known, gone
}

// giveUp ends an attempt whose process was killed and is still there: the process waits in the kernel for a disk that does not
// answer, or is frozen in a control group that we cannot thaw. The execution goes on, and the attempt's room is given to others:
// the kernel ends the process as soon as it can, and to keep the room would not free the memory that the process holds.
func (s *supervisor) giveUp(a *attempt, p process, watched *watcher, group *group, record ExitRecord) {
	watched.stop()
	record.Signal, record.EndedAt = int(syscall.SIGKILL), time.Now()
	watched.judge(&record)
	if record.Reason == "" {
		record.Reason = fmt.Sprintf("its process %d was killed and is still there (%s): a disk does not answer, or it is frozen", p.PID, condition(p.PID))
	}
	s.log.Error("a process cannot be killed; its attempt is over all the same", "attempt", a.spec.AttemptID, "pid", p.PID, "state", condition(p.PID))
	s.addUndead(a, append(group.processes(), p.PID))
	s.finish(a, group, record)
}

// addUndead notes processes that were killed and are still there.
func (s *supervisor) addUndead(a *attempt, pids []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, pid := range pids {
		if !slices.ContainsFunc(s.undead, func(u Undead) bool { return u.PID == pid && u.started == startTime(pid) }) {
			s.undead = append(s.undead, Undead{AttemptID: a.spec.AttemptID, PID: pid, started: startTime(pid)})
		}
	}
}

// listUndead are the noted processes that are still there.
func (s *supervisor) listUndead() []Undead {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undead = slices.DeleteFunc(s.undead, func(u Undead) bool { return !alive(process{BootID: s.boot, PID: u.PID, StartTime: u.started}) })
	found := slices.Clone(s.undead)
	for i := range found {
		found[i].Condition = condition(found[i].PID)
	}
	return found
}

// runCold starts a fresh process for an attempt, and follows it to its end.
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

// machineLacks says whether a process could not be started for want of something that a machine has when it is well: room, memory,
// descriptors. A program that does not exist is the task's own mistake.
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

// execute starts the command of an attempt as a fresh process. The channel tells its end.
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

// openLog opens the file for the output of an attempt; an empty path is /dev/null. Another attempt may have put a pipe, a link or
// something else in the place of the file: that must neither block us nor get the output.
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

// adopt takes over the attempts that an earlier supervisor has left.
func (s *supervisor) adopt(left []storedAttempt) {
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
		if c.Place != "" && c.BootID == s.boot && (c.Place != s.place || !leadsTo(c.DataDir, c.Place)) {
			go s.disown(a, found)
			continue
		}
		go s.watchAdopted(a, found)
	}
	s.mu.Lock()
	s.updateQuiet()
	s.mu.Unlock()
}

// movedReason is the reason of a lost attempt that was told a path which no longer leads to its data folder.
const movedReason = "the data folder was moved or copied while the attempt ran"

// disown gives up an attempt that was started before the data folder was moved, or in the data folder of which ours is a copy: in
// that case its processes and files are those of the other folder, and stay untouched.
func (s *supervisor) disown(a *attempt, found storedAttempt) {
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

// watchAdopted follows an attempt whose process is not our child: the exit code is unknown unless the process wrote it down.
func (s *supervisor) watchAdopted(a *attempt, found storedAttempt) {
	record := newRecord(a)
	sameBoot := found.claim.BootID == s.boot
	p := found.process
	if p == nil && sameBoot {
		// The earlier supervisor ended after the start of the process and before its entry in the journal.
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

// unfinishedMarks are the marks of those attempts that may have processes.
func unfinishedMarks(left []storedAttempt, boot string) (marks []mark) {
	for _, found := range left {
		if found.exit == nil && found.claim.BootID == boot {
			marks = append(marks, mark(found.claim.Mark))
		}
	}
	return marks
}

// decideUnknown judges an attempt by the files it left, since no supervisor saw its end.
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

// completeResult is the name of the file in which flytekit has written a result; empty: there is none that is whole.
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

// wholeMessage says whether these bytes are a protobuf message to their end. A message that was cut while it was written is not,
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

// killAll ends every process of the attempt that is left, in any session, under any parent, with any environment.
func (s *supervisor) killAll(a *attempt, pid int, group *group) {
	killSession(pid)
	for round := range maxRounds { // a process may fork while we look
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
	s.addUndead(a, group.processes())
}

// endInherited ends children of ours that we did not start and that belong to no known attempt: a task took both mark and control
// group from them, and they became our children when their parents ended. It cannot be told to which attempt they belonged, so
// they are left alone until the last attempt that runs has ended.
func (s *supervisor) endInherited(last *attempt) {
	for round := range maxRounds {
		strays := s.reaper.strays() // before we look for running attempts: no process of an attempt that begins meanwhile is among them
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

// finish makes the exit record durable and sends EventExited.
func (s *supervisor) finish(a *attempt, group *group, record ExitRecord) {
	if s.moved() {
		record.lose(movedReason)
	}
	// A task that finds the disk full cannot write that down either. Checked before removeTemp makes room.
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
		if err := s.journal.exit(record.bounded()); err != nil {
			// The event is sent all the same; after a crash of ours the attempt would be judged by its files.
			s.log.Error("exit record is not durable", "attempt", record.AttemptID, "error", err)
		}
	}
	s.groups.release(group)
	s.advance(a, StateExited, 0, &record)
}

// tempAtOnce is how many files of a temporary folder are removed before EventExited is sent.
const tempAtOnce = 1000

// removeTemp removes the temporary folder of an attempt, and says whether all of it is gone. A folder of many files is left to the
// server, which removes the folders of an attempt when it forgets the attempt.
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

// split is the exit code and the signal of a status; one of them is 0.
func split(status syscall.WaitStatus) (code, signal int) {
	if status.Signaled() {
		return 0, int(status.Signal())
	}
	return status.ExitStatus(), 0
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// appendLine adds a line to a log of an attempt, if that is possible.
func appendLine(path, line string) {
	if path == "" {
		return
	}
	if file, err := openLog(path); err == nil {
		_, _ = file.WriteString(strings.TrimSpace(line) + "\n")
		_ = file.Close()
	}
}
