package worker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func maxRSS(u *syscall.Rusage) int64 { return int64(u.Maxrss) << 10 } //nolint:unconvert // int32 on 32 bits

// newGroups finds out which control groups this system lets us make. only is empty, or the one kind that a test wants: "v1",
// "v2" or "none".
func newGroups(log *slog.Logger, f folder, only string) *groups {
	gs := &groups{log: log, found: map[mark]string{}}
	name := "aloft-" + shortHash(f.dir)[:12]
	unified, memory := ownGroups()
	for _, try := range []struct {
		home         string
		version      int
		countsMemory bool
	}{{unified, 2, true}, {memory, 1, true}, {unified, 2, false}} {
		if try.home == "" || only != "" && only != fmt.Sprintf("v%d", try.version) {
			continue
		}
		gs.home, gs.base, gs.version, gs.countsMemory = try.home, filepath.Join(try.home, name), try.version, try.countsMemory
		if gs.works() {
			gs.remember(f)
			return gs
		}
		_ = os.Remove(gs.base)
	}
	gs.base = ""
	log.Info("no control groups can be used: processes of attempts are found by their mark, memory limits are held by sampling")
	return gs
}

// works says whether the folder for our groups can be made and used.
func (gs *groups) works() bool {
	if err := os.Mkdir(gs.base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false
	}
	if gs.version == 2 {
		// To move a process we need the right to write to the nearest group above both its old and its new group: ours.
		if unix.Access(filepath.Join(gs.home, "cgroup.procs"), unix.W_OK) != nil {
			return false
		}
		if gs.countsMemory {
			// The controller must be handed down to our groups. That fails if the group above them is not the root and has
			// processes itself: us.
			_ = os.WriteFile(filepath.Join(gs.home, "cgroup.subtree_control"), []byte("+memory"), 0o644)
			if os.WriteFile(filepath.Join(gs.base, "cgroup.subtree_control"), []byte("+memory"), 0o644) != nil {
				return false
			}
		}
	}
	limit := int64(0)
	if gs.countsMemory {
		limit = 64 << 20
	}
	probe := gs.take("probe", limit, false)
	works := probe.dir != "" && probe.limited == gs.countsMemory
	if probe.dir != "" {
		works = os.Remove(probe.dir) == nil && works
	}
	return works
}

// ownGroups are the folders of the control groups that this process is in: of version 2, and of version 1 for memory.
func ownGroups() (unified, memory string) {
	own := groupsOf("self")
	eachHierarchy(func(kind, controllers, mount, root string) {
		switch {
		case kind == "cgroup2":
			unified = within(mount, root, own[""])
		case strings.Contains(controllers, ",memory,"):
			memory = within(mount, root, own["memory"])
		}
	})
	return unified, memory
}

// groupsOf are the control groups that a process is in, by controller; the name of version 2's is empty.
func groupsOf(pid string) map[string]string {
	groups := map[string]string{}
	if b, err := os.ReadFile("/proc/" + pid + "/cgroup"); err == nil {
		for line := range strings.Lines(string(b)) {
			if part := strings.SplitN(strings.TrimSpace(line), ":", 3); len(part) == 3 {
				for controller := range strings.SplitSeq(part[1], ",") {
					groups[controller] = part[2]
				}
			}
		}
	}
	return groups
}

// eachHierarchy goes through the mounts of control groups: controllers has a comma before and after each, root is the group
// that is seen at the mount.
func eachHierarchy(take func(kind, controllers, mount, root string)) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer mounts.Close()
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		// 36 35 98:0 /root /mount/point options - type source superoptions
		left, right, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if ok && len(fields) >= 5 && len(kind) >= 3 && (kind[0] == "cgroup2" || kind[0] == "cgroup") {
			take(kind[0], ","+kind[2]+",", fields[4], fields[3])
		}
	}
}

// thaw thaws processes that a task of root has frozen by control groups of version 1: there, unlike in version 2, a frozen process
// does not die of a signal. A group that holds us too, our own or one above it, is not thawed.
func thaw(pids []int) {
	own := groupsOf("self")["freezer"]
	groups := map[string]bool{}
	for _, pid := range pids {
		for group := groupsOf(strconv.Itoa(pid))["freezer"]; group != "" && group != "/"; group = filepath.Dir(group) {
			if own == group || strings.HasPrefix(own, group+"/") {
				break
			}
			groups[group] = true
		}
	}
	if len(groups) == 0 {
		return
	}
	eachHierarchy(func(_, controllers, mount, root string) {
		if !strings.Contains(controllers, ",freezer,") {
			return
		}
		for group := range groups {
			_ = os.WriteFile(filepath.Join(within(mount, root, group), "freezer.state"), []byte("THAWED"), 0)
		}
	})
}

// within is the folder of a group below a mount that shows the hierarchy from the group root on.
func within(mount, root, group string) string {
	if rel, err := filepath.Rel(root, group); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.Join(mount, rel)
	}
	return mount
}

// remember notes the folder in which we make groups: a later supervisor may be started in another control group and must find ours.
func (gs *groups) remember(f folder) {
	bases := f.groupBases()
	if slices.Contains(bases, gs.base) {
		return
	}
	if err := os.WriteFile(f.groups(), []byte(strings.Join(append(bases, gs.base), "\n")+"\n"), 0o600); err != nil {
		gs.log.Warn("where control groups are made is not recorded", "error", err)
	}
	gs.log.Debug("control groups", "version", gs.version, "folder", gs.base, "memory", gs.countsMemory)
}

// groupBases are the folders, as far as they exist, in which supervisors of this data folder have made groups.
func (f folder) groupBases() (bases []string) {
	b, _ := os.ReadFile(f.groups())
	for base := range strings.FieldsSeq(string(b)) {
		if info, err := os.Stat(base); err == nil && info.IsDir() {
			bases = append(bases, base)
		}
	}
	return bases
}

// take makes the group of an attempt. An attempt without a limit gets a control group that an earlier attempt has used: to make and
// remove a control group for each attempt would cost more than a short task, and the kernel keeps a removed one for as long as it
// caches a page of a file that was read in it.
func (gs *groups) take(m mark, limit int64, warm bool) *group {
	g := &group{mark: m, numbered: true}
	// It takes the kernel ten milliseconds to move a running process into a group of version 2, about as long as a whole warm
	// attempt. So with version 2 a warm attempt without a limit gets no control group: its processes are found by their mark.
	if gs.base == "" || gs.version == 2 && warm && (limit <= 0 || !gs.countsMemory) {
		return g
	}
	g.version, g.countsMemory = gs.version, gs.countsMemory
	if limit <= 0 || !gs.countsMemory {
		g.pooled = true
		g.dir = gs.takePooled()
	} else if dir := filepath.Join(gs.base, string(m)); os.Mkdir(dir, 0o755) == nil {
		g.dir = dir
		if err := g.limit(limit); err != nil {
			gs.log.Warn("a control group takes no limit; it is held by sampling", "error", err)
		}
	}
	if g.dir == "" {
		gs.log.Warn("no control group for an attempt; its processes are found by their mark")
		return &group{mark: m, numbered: true}
	}
	g.killsBefore = g.oomKills()
	return g
}

// takePooled is the folder of a control group that is free, or a new one; empty: none can be made.
func (gs *groups) takePooled() string {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if n := len(gs.free); n > 0 {
		dir := gs.free[n-1]
		gs.free = gs.free[:n-1]
		return dir
	}
	for {
		gs.made++
		dir := filepath.Join(gs.base, "slot-"+strconv.Itoa(gs.made))
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			// If the kernel kills one process for want of memory, it kills all of the group: a task should not go on without it.
			_ = os.WriteFile(filepath.Join(dir, "memory.oom.group"), []byte("1"), 0o644)
			return dir
		}
		if !errors.Is(err, fs.ErrExist) {
			return ""
		}
	}
}

// limit has the kernel enforce a memory limit in the control group.
func (g *group) limit(limit int64) error {
	bytes := []byte(strconv.FormatInt(limit, 10))
	write := func(file string, value []byte) error { return os.WriteFile(filepath.Join(g.dir, file), value, 0o644) }
	var err error
	if g.version == 2 {
		err = write("memory.max", bytes)
		_ = write("memory.swap.max", []byte("0"))
		_ = write("memory.oom.group", []byte("1"))
	} else {
		err = write("memory.limit_in_bytes", bytes)
		_ = write("memory.memsw.limit_in_bytes", bytes)
		_ = write("memory.swappiness", []byte("0"))
	}
	g.limited = err == nil
	return err
}

// find is the group of an attempt that an earlier supervisor started.
func (gs *groups) find(m mark, limit int64, numbered bool) *group {
	g := &group{mark: m, numbered: numbered}
	gs.mu.Lock()
	g.dir = gs.found[m]
	gs.mu.Unlock()
	if g.dir == "" {
		return g
	}
	g.version = 2
	if exists(filepath.Join(g.dir, "tasks")) {
		g.version = 1
	}
	g.countsMemory = exists(filepath.Join(g.dir, g.file("memory.oom_control", "memory.events")))
	if g.limited = g.countsMemory && filepath.Base(g.dir) == string(m) && limit > 0; !g.limited {
		g.killsBefore = g.oomKills()
	}
	return g
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// clean ends the processes in control groups that earlier supervisors made for attempts that are over, and removes these groups.
// The groups of attempts that are not over (live) are kept for find.
func (gs *groups) clean(f folder, live []mark) {
	byNumber := map[uint64]mark{}
	for _, m := range live {
		byNumber[m.number()] = m
	}
	for _, base := range f.groupBases() {
		entries, err := os.ReadDir(base)
		if err != nil {
			continue
		}
		for _, entry := range entries {
			if !entry.IsDir() {
				continue
			}
			g := &group{dir: filepath.Join(base, entry.Name())}
			m := mark(entry.Name())
			kept := slices.Contains(live, m)
			for _, pid := range g.members() {
				if n, ok := numberOf(pid); ok && !kept {
					m, kept = byNumber[n]
				}
			}
			if kept {
				gs.found[m] = g.dir
				continue
			}
			for round := range maxRounds {
				left := g.members()
				if len(left) == 0 {
					break
				}
				gs.log.Info("end what an attempt before us has left", "processes", len(left))
				g.kill(left)
				pause(round)
			}
			gs.remove(g.dir)
		}
		if base != gs.base {
			_ = os.Remove(base)
		}
	}
}

// release gives a group back when its attempt is over. A control group with processes that could not be ended is not used again.
func (gs *groups) release(g *group) {
	if g == nil || g.dir == "" {
		return
	}
	if g.pooled && len(g.members()) == 0 && len(subgroups(g.dir)) == 0 {
		gs.mu.Lock()
		gs.free = append(gs.free, g.dir)
		gs.mu.Unlock()
		return
	}
	gs.removals.Go(func() { gs.remove(g.dir) })
}

// remove removes a control group, and the groups that a task made in it.
func (gs *groups) remove(dir string) {
	for round := range maxRounds { // a group is busy for a moment after its last process was reaped
		for _, sub := range slices.Backward(subgroups(dir)) {
			_ = os.Remove(sub)
		}
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		pause(round)
	}
	gs.log.Warn("a control group stays", "folder", dir)
}

// subgroups are the groups below a group, a parent before its children.
func subgroups(dir string) (all []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, entry := range entries {
		if entry.IsDir() {
			sub := filepath.Join(dir, entry.Name())
			all = append(append(all, sub), subgroups(sub)...)
		}
	}
	return all
}

// close removes our folder of groups, unless a group is still in use.
func (gs *groups) close() {
	if gs.base == "" {
		return
	}
	gs.removals.Wait()
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, dir := range gs.free {
		_ = os.Remove(dir)
	}
	_ = os.Remove(gs.base)
}

// file is v1 or v2, by the version of the control group.
func (g *group) file(v1, v2 string) string {
	if g.version == 1 {
		return v1
	}
	return v2
}

// fork starts a process that is in the group, and has its mark, from its first instruction on: no child of the process can be
// faster and escape. A nil group is for a process that belongs to no attempt.
//
// The system call that starts a program takes neither a mark nor a control group of version 1, so the child inherits them: this
// thread joins the group, which costs nothing for a single thread, and leaves it again. A group of version 2 is an argument of
// the call. The limit that is the mark, and the score by which the kernel chooses a process to kill when the machine runs out of
// memory, are inherited as well; our whole process has them for that moment. So only one fork may be under way at a time: the
// caller holds the lock of the reaper.
func (g *group) fork(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	if g != nil && g.mounts != nil {
		onSpareThread(func() {
			if g.mountErr = g.mounts.enter(); g.mountErr == nil {
				pid, err, _ = g.forkHere(path, argv, attr)
			}
		})
		if g.mountErr == nil {
			return pid, err
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not undone if the thread could not leave the group: then the thread ends with this function
		var home bool
		if pid, err, home = g.forkHere(path, argv, attr); home {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return pid, err
}

// forkHere forks on this thread. home is false if the thread could not leave the control group that it joined.
func (g *group) forkHere(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error, home bool) {
	home = true
	restore, preferred := preferAsVictim()
	defer func() {
		restore()
		if err == nil && !preferred { // a child that it forks at once may not get the score: that is better than none
			_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(victimScore)), 0)
		}
	}()
	if g == nil {
		pid, err = syscall.ForkExec(path, argv, attr)
		return pid, err, home
	}
	unmark, marked := g.mark.putOnSelf()
	defer unmark()
	g.numbered = marked
	with := *attr
	with.Sys = new(syscall.SysProcAttr)
	*with.Sys = *attr.Sys
	switch {
	case g.dir == "":
	case g.version == 1:
		if os.WriteFile(filepath.Join(g.dir, "tasks"), []byte("0"), 0) != nil {
			g.dropControlGroup()
			break
		}
		defer func() { home = leaveGroup(filepath.Dir(filepath.Dir(g.dir))) == nil }()
	default:
		folder, err := os.Open(g.dir)
		if err != nil {
			g.dropControlGroup()
			break
		}
		defer folder.Close()
		with.Sys.UseCgroupFD, with.Sys.CgroupFD = true, int(folder.Fd())
	}
	if pid, err = syscall.ForkExec(path, argv, &with); err == nil || !with.Sys.UseCgroupFD {
		return pid, err, home
	}
	g.dropControlGroup() // the kernel (before 5.7), or a filter of its calls, does not know groups here; or the program is at fault
	pid, err = syscall.ForkExec(path, argv, attr)
	return pid, err, home
}

func leaveGroup(home string) error {
	return os.WriteFile(filepath.Join(home, "tasks"), []byte("0"), 0)
}

// dropControlGroup makes the group one whose processes are found by their mark alone.
func (g *group) dropControlGroup() {
	_ = os.Remove(g.dir)
	g.dir, g.countsMemory, g.limited, g.pooled = "", false, false, false
}

// victimScore makes the kernel kill tasks rather than us, or the rest of the machine, when memory runs out.
const victimScore = 500

// preferAsVictim gives us, and a child that we fork now, the score of tasks; restore takes it from us again. ok is false if the
// score cannot be written: an ordinary user may not do so for a process that other users must not look into, such as ours.
func preferAsVictim() (restore func(), ok bool) {
	const file = "/proc/self/oom_score_adj"
	own, err := os.ReadFile(file)
	if err != nil {
		return func() {}, false
	}
	own = bytes.TrimSpace(own)
	if score, err := strconv.Atoi(string(own)); err == nil && score >= victimScore {
		return func() {}, true
	}
	if os.WriteFile(file, []byte(strconv.Itoa(victimScore)), 0) != nil {
		return func() {}, false
	}
	return func() { _ = os.WriteFile(file, own, 0) }, true
}

// joins are the files by which a running process with a single thread moves itself into the group: it writes a zero to each.
func (g *group) joins() []string {
	if g.dir == "" {
		return nil
	}
	return []string{filepath.Join(g.dir, g.file("tasks", "cgroup.procs"))}
}

// processes are all running processes of the attempt.
func (g *group) processes() []int {
	found := g.members()
	for _, pid := range processesOf(g.mark, !g.numbered) {
		if !slices.Contains(found, pid) {
			found = append(found, pid)
		}
	}
	return found
}

// members are the processes in the control group and in the groups that a task has made in it.
func (g *group) members() (pids []int) {
	if g == nil || g.dir == "" {
		return nil
	}
	self := os.Getpid() // a thread of ours is in the group while it forks
	for _, dir := range append([]string{g.dir}, subgroups(g.dir)...) {
		b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 && pid != self {
				if s, ok := readStat(pid); ok && s.state != 'Z' && s.state != 'X' {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// orphaned says whether processes of a warm attempt run, besides its own process, whose parents have ended. They are children of our
// first thread, since we are the subreaper. A process whose parent still runs is found by the attempt's own process (childDone).
func (g *group) orphaned(own int) bool {
	var pids []int
	self := strconv.Itoa(os.Getpid())
	if b, err := os.ReadFile("/proc/self/task/" + self + "/children"); err == nil {
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && g.mark.isOn(pid, !g.numbered) {
				pids = append(pids, pid)
			}
		}
	} else { // the kernel was built without it
		pids = processesOf(g.mark, !g.numbered)
	}
	return slices.ContainsFunc(pids, func(pid int) bool {
		s, ok := readStat(pid)
		return ok && pid != own && s.state != 'Z' && s.state != 'X'
	})
}

// kill ends processes of the group. If a pid was given to another process meanwhile, that process is left alone.
func (g *group) kill(pids []int) {
	if g.dir != "" && os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) == nil { // all at once, since 5.14
		g.pooled = false // kernels since 6.13 also kill what is started in a group that once was killed
	}
	for _, pid := range pids {
		_ = killOnly(pid, g.contains)
	}
	thaw(pids)
}

// contains says whether a process belongs to the group.
func (g *group) contains(pid int) bool {
	if g.dir != "" {
		if b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup"); err == nil {
			own := filepath.Base(filepath.Dir(g.dir)) + "/" + filepath.Base(g.dir)
			for line := range strings.Lines(string(b)) {
				if line = strings.TrimSpace(line); strings.HasSuffix(line, "/"+own) || strings.Contains(line, "/"+own+"/") {
					return true
				}
			}
		}
	}
	return g.mark != "" && g.mark.isOn(pid, !g.numbered)
}

// kills is how many processes of the attempt the kernel has killed because the group's limit or the machine's memory was used up.
func (g *group) kills() int64 { return g.oomKills() - g.killsBefore }

func (g *group) oomKills() (kills int64) {
	if !g.countsMemory {
		return 0
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, g.file("memory.oom_control", "memory.events"))); err == nil {
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
				kills, _ = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			}
		}
	}
	return kills
}

// peak is the most memory that all processes of an attempt with a limit used at once; 0: unknown. Without a limit the number would
// be mostly files that the kernel caches.
func (g *group) peak() (peak int64) {
	if !g.limited {
		return 0
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, g.file("memory.max_usage_in_bytes", "memory.peak"))); err == nil {
		peak, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	return peak
}

// memory is how much memory all processes of the attempt use now. A page that several of them share is counted once.
func (g *group) memory() int64 {
	var sum int64
	for _, pid := range g.processes() {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
				sum += kib << 10
			}
		}
	}
	return sum
}

// machineKills is how many processes of the whole machine the kernel has killed for want of memory since it started.
func machineKills() (kills int64) {
	b, _ := os.ReadFile("/proc/vmstat")
	if _, rest, ok := bytes.Cut(b, []byte("\noom_kill ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		kills, _ = strconv.ParseInt(string(line), 10, 64)
	}
	return kills
}

// pause lets killed processes end: the end of a process that is not our child sends no signal.
func pause(round int) {
	time.Sleep(time.Duration(min(round+1, 20)) * time.Millisecond) //nolint:forbidigo // see above
}
