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

// newGroups finds out which control groups this system lets us make. only is empty, or the one way that tests want: "v1",
// "v2" or "none".
func newGroups(log *slog.Logger, f folder, only string) *groups {
	gs := &groups{log: log, found: map[mark]string{}}
	name := "aloft-" + shortHash(f.dir)[:12]
	unified, memory := ownGroups()
	for _, try := range []struct {
		home    string
		version int
		counts  bool
	}{{unified, 2, true}, {memory, 1, true}, {unified, 2, false}} {
		if try.home == "" || only != "" && only != fmt.Sprintf("v%d", try.version) {
			continue
		}
		gs.home, gs.base, gs.version, gs.counts = try.home, filepath.Join(try.home, name), try.version, try.counts
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
		// Who moves a process must be allowed to do so in the group that both have in common: ours.
		if unix.Access(filepath.Join(gs.home, "cgroup.procs"), unix.W_OK) != nil {
			return false
		}
		if gs.counts {
			// The controller must be handed down; that fails where processes (we) live in the parent and it is not the root.
			_ = os.WriteFile(filepath.Join(gs.home, "cgroup.subtree_control"), []byte("+memory"), 0o644)
			if os.WriteFile(filepath.Join(gs.base, "cgroup.subtree_control"), []byte("+memory"), 0o644) != nil {
				return false
			}
		}
	}
	limit := int64(0)
	if gs.counts {
		limit = 64 << 20
	}
	probe := gs.take("probe", limit, false)
	works := probe.dir != "" && probe.limited == gs.counts
	if probe.dir != "" {
		works = os.Remove(probe.dir) == nil && works
	}
	return works
}

// ownGroups is the folders of the groups that this process is in: version 2, and version 1's for memory.
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

// groupsOf is the control groups that a process is in, by controller; version 2's has none.
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

// thaw lets processes go on that a task of root has frozen by control groups of version 1: there a frozen process does not die
// of a signal, unlike in version 2. Only groups below our own are thawed, or apart from it: not one that holds us too.
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

// within is where a group is seen below a mount that shows the part of the hierarchy from root on.
func within(mount, root, group string) string {
	if rel, err := filepath.Rel(root, group); err == nil && !strings.HasPrefix(rel, "..") {
		return filepath.Join(mount, rel)
	}
	return mount
}

// remember notes where we make groups: a supervisor after us may be started from another group and must find ours.
func (gs *groups) remember(f folder) {
	bases := f.groupBases()
	if slices.Contains(bases, gs.base) {
		return
	}
	if err := os.WriteFile(f.groups(), []byte(strings.Join(append(bases, gs.base), "\n")+"\n"), 0o600); err != nil {
		gs.log.Warn("where control groups are made is not recorded", "error", err)
	}
	gs.log.Debug("control groups", "version", gs.version, "folder", gs.base, "memory", gs.counts)
}

// groupBases is the folders in which supervisors of this data folder have made groups and that are still there.
func (f folder) groupBases() (bases []string) {
	b, _ := os.ReadFile(f.groups())
	for base := range strings.FieldsSeq(string(b)) {
		if info, err := os.Stat(base); err == nil && info.IsDir() {
			bases = append(bases, base)
		}
	}
	return bases
}

// take makes the group of an attempt. One without a limit gets a control group that others have used and left: making
// and removing one for each would cost more than a short task, and the kernel keeps a removed one for as long as a page
// of a file that was read in it is cached.
func (gs *groups) take(m mark, limit int64, warm bool) *group {
	g := &group{mark: m, numbered: true}
	// To move a process of its own accord into a group of version 2 takes the kernel ten milliseconds, about what a warm
	// attempt takes in all. So a warm one without a limit is known by its mark there.
	if gs.base == "" || gs.version == 2 && warm && (limit <= 0 || !gs.counts) {
		return g
	}
	g.version, g.counts = gs.version, gs.counts
	if limit <= 0 || !gs.counts {
		g.pooled = true
		g.dir = gs.pooled()
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
	g.before = g.oomKills()
	return g
}

func (gs *groups) pooled() string {
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
			// A task that has lost one of its processes should not go on without it.
			_ = os.WriteFile(filepath.Join(dir, "memory.oom.group"), []byte("1"), 0o644)
			return dir
		}
		if !errors.Is(err, fs.ErrExist) {
			return ""
		}
	}
}

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

// find is the group of an attempt that a supervisor before us started.
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
	g.counts = exists(filepath.Join(g.dir, g.file("memory.oom_control", "memory.events")))
	if g.limited = g.counts && filepath.Base(g.dir) == string(m) && limit > 0; !g.limited {
		g.before = g.oomKills()
	}
	return g
}

func exists(path string) bool { _, err := os.Lstat(path); return err == nil }

// clean ends what runs in control groups that supervisors before us made for attempts that are over, and removes these. The
// groups of attempts that are not over are kept for find.
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

// release gives a group back when its attempt is over. What could not be ended keeps the control group for itself.
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
	gs.going.Go(func() { gs.remove(g.dir) })
}

// remove removes a control group with those that a task made in it.
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

// subgroups is the groups below a group, those above others first.
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

// close removes our folder of groups, unless one is still in use.
func (gs *groups) close() {
	if gs.base == "" {
		return
	}
	gs.going.Wait()
	gs.mu.Lock()
	defer gs.mu.Unlock()
	for _, dir := range gs.free {
		_ = os.Remove(dir)
	}
	_ = os.Remove(gs.base)
}

// file is the name that this version of control groups has for something.
func (g *group) file(v1, v2 string) string {
	if g.version == 1 {
		return v1
	}
	return v2
}

// fork starts a process that is in the group, and has its mark, from its first instruction on: what it forks itself cannot
// be faster. nil is a process that belongs to no attempt.
//
// Nothing in the call of the system that starts a program takes a mark or a group of version 1, so the child inherits them
// from this thread: it joins the group, which costs nothing for a single thread, and leaves it again. A group of version 2
// is given to the call. Both also hold for the limit that is the mark and for the higher score by which the kernel chooses
// what to kill when the machine runs out of memory: these are our whole process's for that moment. Callers take turns.
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
		runtime.LockOSThread() // kept where the thread cannot go home: then it ends with this function
		var home bool
		if pid, err, home = g.forkHere(path, argv, attr); home {
			runtime.UnlockOSThread()
		}
	}()
	<-done
	return pid, err
}

// forkHere forks on this thread. home is false where the thread could not leave the control group that it joined.
func (g *group) forkHere(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error, home bool) {
	home = true
	restore, preferred := preferAsVictim()
	defer func() {
		restore()
		if err == nil && !preferred { // what it forks at once may not have the score: better than none
			_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(victimScore)), 0)
		}
	}()
	if g == nil {
		pid, err = syscall.ForkExec(path, argv, attr)
		return pid, err, home
	}
	unmark, marked := g.mark.putOn()
	defer unmark()
	g.numbered = marked
	with := *attr
	with.Sys = new(syscall.SysProcAttr)
	*with.Sys = *attr.Sys
	switch {
	case g.dir == "":
	case g.version == 1:
		if os.WriteFile(filepath.Join(g.dir, "tasks"), []byte("0"), 0) != nil {
			g.lose()
			break
		}
		defer func() { home = leaveGroup(filepath.Dir(filepath.Dir(g.dir))) == nil }()
	default:
		folder, err := os.Open(g.dir)
		if err != nil {
			g.lose()
			break
		}
		defer folder.Close()
		with.Sys.UseCgroupFD, with.Sys.CgroupFD = true, int(folder.Fd())
	}
	if pid, err = syscall.ForkExec(path, argv, &with); err == nil || !with.Sys.UseCgroupFD {
		return pid, err, home
	}
	g.lose() // the kernel (before 5.7), or a filter of its calls, does not know groups here; or the program is at fault
	pid, err = syscall.ForkExec(path, argv, attr)
	return pid, err, home
}

func leaveGroup(home string) error {
	return os.WriteFile(filepath.Join(home, "tasks"), []byte("0"), 0)
}

// lose makes it a group that is known by its mark alone.
func (g *group) lose() {
	_ = os.Remove(g.dir)
	g.dir, g.counts, g.limited, g.pooled = "", false, false, false
}

// victimScore makes the kernel prefer tasks to us, and to the rest of the machine, when it runs out of memory.
const victimScore = 500

// preferAsVictim gives us, and what we fork now, the score of tasks; the returned function takes it from us again. ok is
// false where an ordinary user may not write about a process that others must not look into, as we are.
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

// joins is the files by which a process that exists already, and has no thread but one, moves itself into the group: it
// writes a zero to each.
func (g *group) joins() []string {
	if g.dir == "" {
		return nil
	}
	return []string{filepath.Join(g.dir, g.file("tasks", "cgroup.procs"))}
}

// processes is all processes of the attempt that run.
func (g *group) processes() []int {
	found := g.members()
	for _, pid := range processesOf(g.mark, !g.numbered) {
		if !slices.Contains(found, pid) {
			found = append(found, pid)
		}
	}
	return found
}

// members is the processes in the control group and in those that a task has made in it.
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

// orphaned says whether processes of a warm attempt run whose parents have ended, besides its own: these are our children,
// since we are the subreaper, of our first thread. What has a parent in the attempt is found by the attempt's own process.
func (g *group) orphaned(own int) bool {
	var pids []int
	self := strconv.Itoa(os.Getpid())
	if b, err := os.ReadFile("/proc/self/task/" + self + "/children"); err == nil {
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && g.mark.on(pid, !g.numbered) {
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

// kill ends processes of the group. A process that only has the number of one, because it was given to another meanwhile,
// is left alone.
func (g *group) kill(pids []int) {
	if g.dir != "" && os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) == nil { // all at once, since 5.14
		g.pooled = false // kernels since 6.13 also kill what is started in a group that once was killed
	}
	for _, pid := range pids {
		_ = killOnly(pid, g.has)
	}
	thaw(pids)
}

// has says whether a process belongs to the group.
func (g *group) has(pid int) bool {
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
	return g.mark != "" && g.mark.on(pid, !g.numbered)
}

// kills is how many processes of the attempt the kernel has killed for want of memory, the group's own or the machine's.
func (g *group) kills() int64 { return g.oomKills() - g.before }

func (g *group) oomKills() (kills int64) {
	if !g.counts {
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

// peak is the most memory that all processes of an attempt with a limit used at once; 0: unknown. Without a limit it would
// be mostly what the kernel keeps of files.
func (g *group) peak() (peak int64) {
	if !g.limited {
		return 0
	}
	if b, err := os.ReadFile(filepath.Join(g.dir, g.file("memory.max_usage_in_bytes", "memory.peak"))); err == nil {
		peak, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	return peak
}

// memory is what all processes of the attempt use now, pages that several share counted once in all.
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

// machineKills is how many processes the kernel has killed for want of memory since it started, anywhere.
func machineKills() (kills int64) {
	b, _ := os.ReadFile("/proc/vmstat")
	if _, rest, ok := bytes.Cut(b, []byte("\noom_kill ")); ok {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		kills, _ = strconv.ParseInt(string(line), 10, 64)
	}
	return kills
}

// pause lets killed processes end; nobody tells when those are gone that are not our children.
func pause(round int) {
	time.Sleep(time.Duration(min(round+1, 20)) * time.Millisecond) //nolint:forbidigo // see above
}
