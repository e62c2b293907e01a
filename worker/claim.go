package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/aloft-dev/aloft/internal/leftover"
)

// claim says that an attempt is ours. It is durable before the attempt may run user code.
type claim struct {
	Version     int       `json:"version"`
	AttemptID   string    `json:"attempt_id"`
	Token       string    `json:"token"`
	Mark        string    `json:"mark"`               // in the environment of all its processes, as markVariable
	Numbered    bool      `json:"numbered,omitempty"` // and as a limit; false: by a supervisor that could not
	BootID      string    `json:"boot_id"`
	ClaimedAt   time.Time `json:"claimed_at"`
	OutputDir   string    `json:"output_dir,omitempty"`
	TempDir     string    `json:"temp_dir,omitempty"`
	Environment string    `json:"environment,omitempty"` // its digest
	MemoryLimit int64     `json:"memory_limit,omitempty"`
	Grace       int64     `json:"grace,omitempty"`
	DataDir     string    `json:"data_dir,omitempty"` // its path then
	Place       string    `json:"place,omitempty"`    // and the folder itself, see Place
	// The environment's variables are not here: they may hold what should not be on disk.
}

// process identifies a process beyond the reuse of its number.
type process struct {
	BootID    string    `json:"boot_id"`
	PID       int       `json:"pid"`
	StartTime uint64    `json:"start_time"` // field 22 of /proc/<pid>/stat; 0: the system does not tell
	Mode      Mode      `json:"mode"`
	WhyCold   string    `json:"why_cold,omitempty"`
	StartedAt time.Time `json:"started_at"`
}

var fileSafe = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// done is where a warm child that cannot tell its end to its supervisor leaves its exit code.
func (f folder) done(attemptID string) string {
	name := attemptID
	if !fileSafe.MatchString(name) {
		name = "sha256-" + shortHash(attemptID)
	}
	return filepath.Join(f.claims(), name+".done")
}

func readDone(path string) *int {
	var d struct {
		Done *int `json:"done"`
	}
	readJSON(path, &d)
	return d.Done
}

// journal is the durable memory of a supervisor, which is alone with it: a file of lines, each one fact about one attempt.
// What must be durable waits for a sync, which those who wait at the same time share. The file's blocks are written with
// zeros before they are used, so that a sync has one thing to do: that is several times cheaper than files and folders for
// each attempt. A file that is full is replaced by one that holds what is not forgotten.
type journal struct {
	folder folder
	sync   func(*os.File) error

	syncing sync.Mutex // held while the disk is at work; before mu

	mu      sync.Mutex
	file    *os.File
	size    int64 // where the next line goes
	room    int64 // up to where blocks are there
	live    map[string]*kept
	written uint64 // lines so far
	synced  uint64 // of these
	syncs   int64  // how often the disk was asked
	broken  bool   // the disk has refused something: what it holds is no longer known
}

// fact is a line. One of its fields is set besides AttemptID.
type fact struct {
	AttemptID string      `json:"attempt_id"`
	Claim     *claim      `json:"claim,omitempty"`
	Process   *process    `json:"process,omitempty"` // not synced: it matters only while the process lives
	Exit      *ExitRecord `json:"exit,omitempty"`    // nothing of the attempt runs any more
	Forgotten bool        `json:"forgotten,omitempty"`
}

// kept is the lines of an attempt that is not forgotten.
type kept struct {
	claim, process, exit []byte
}

// stored is what the journal says about one attempt.
type stored struct {
	claim   claim
	process *process
	exit    *ExitRecord
}

const journalRoom = 1 << 20 // bytes of a new file, at least

func (f folder) journal() string { return filepath.Join(f.claims(), "journal") }

// openJournal returns the journal and what a supervisor before us has left in it.
func openJournal(f folder) (*journal, []stored, error) {
	j := &journal{folder: f, sync: syncData, live: map[string]*kept{}}
	var left []stored
	content, err := os.Open(f.journal())
	if err == nil {
		left, err = j.load(content)
		_ = content.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("read claims: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j, left, j.rewrite()
}

// load takes what is in the file of a supervisor before us.
func (j *journal) load(content io.Reader) ([]stored, error) {
	j.live = map[string]*kept{}
	found := map[string]*stored{}
	var order []string
	for lines := newLineReader(content); ; {
		line, err := lines.next()
		long := errors.Is(err, errLongLine)
		if long {
			line, err = withoutModules(line, 2), nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		var entry fact
		// What follows the last sync may be torn. Nothing was started for a claim in it.
		if err != nil || json.Unmarshal(line, &entry) != nil || entry.AttemptID == "" {
			if long { // it is whole: it costs itself alone
				continue
			}
			break
		}
		line = entry.kept(line)
		one := found[entry.AttemptID]
		switch {
		case entry.Claim != nil:
			found[entry.AttemptID] = &stored{claim: *entry.Claim}
			order = append(order, entry.AttemptID)
		case entry.Forgotten:
			delete(found, entry.AttemptID)
		case one == nil:
		case entry.Process != nil:
			one.process = entry.Process
		case entry.Exit != nil:
			one.exit = entry.Exit
		}
		j.keep(entry, line)
	}
	var all []stored
	for _, id := range order {
		if one := found[id]; one != nil {
			all = append(all, *one)
			delete(found, id)
		}
	}
	return all, nil
}

// kept cuts a fact down to what is kept of it, and returns its line for a file of ours.
func (f *fact) kept(line []byte) []byte {
	if f.Exit != nil {
		*f.Exit = f.Exit.kept()
	}
	if f.Process != nil {
		f.Process.WhyCold = shortened(f.Process.WhyCold)
	}
	if len(line) <= maxFact { // as it is: it may have fields of a later version
		return slices.Clone(line)
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // our own type
	}
	return append(b, '\n')
}

// keep notes a line; called with the mutex held, or before anybody else knows the journal.
func (j *journal) keep(entry fact, line []byte) {
	k := j.live[entry.AttemptID]
	switch {
	case entry.Claim != nil:
		j.live[entry.AttemptID] = &kept{claim: line}
	case entry.Forgotten:
		delete(j.live, entry.AttemptID)
	case k == nil:
	case entry.Process != nil:
		k.process = line
	case entry.Exit != nil:
		k.exit = line
	}
}

// rewrite puts what is not forgotten into a new file, synced; called with the mutex held.
func (j *journal) rewrite() error {
	j.broken = true
	var b bytes.Buffer
	for _, k := range j.live {
		b.Write(slices.Concat(k.claim, k.process, k.exit))
	}
	size := int64(b.Len())
	b.Write(make([]byte, max(journalRoom, 2*size)-size))
	temp := j.folder.journal() + ".new"
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write claims: %w", err)
	}
	_, err = file.Write(b.Bytes())
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = os.Rename(temp, j.folder.journal())
	}
	if err == nil {
		err = syncDir(j.folder.claims())
	}
	if err != nil {
		_ = file.Close()
		return fmt.Errorf("write claims: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file, j.size, j.room, j.synced, j.broken = file, size, int64(b.Len()), j.written, false
	return nil
}

// add writes a line; a durable one is on disk when it returns.
func (j *journal) add(entry fact, durable bool) error {
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	j.mu.Lock()
	j.written++
	number := j.written
	j.keep(entry, line)
	if j.broken || j.size+int64(len(line)) > j.room {
		err = j.rewrite() // with this line
	} else if _, err = j.file.WriteAt(line, j.size); err != nil {
		j.broken = true
	} else {
		j.size += int64(len(line))
	}
	j.mu.Unlock()
	if err != nil || !durable {
		return err
	}
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	file, written, synced := j.file, j.written, j.synced
	j.mu.Unlock()
	if synced >= number { // somebody else's sync was ours too
		return nil
	}
	err = j.sync(file)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.syncs++
	switch {
	case j.synced >= number: // it was written anew meanwhile
		return nil
	case err != nil:
		j.broken = true // another sync would not say what this one has lost
		return err
	}
	j.synced = max(j.synced, written)
	return nil
}

func (j *journal) claim(c claim) error {
	if err := j.add(fact{AttemptID: c.AttemptID, Claim: &c}, true); err != nil {
		j.forget(c.AttemptID)
		return fmt.Errorf("claim attempt: %w", err)
	}
	return nil
}

func (j *journal) process(attemptID string, p process) error {
	if err := j.add(fact{AttemptID: attemptID, Process: &p}, false); err != nil {
		return fmt.Errorf("record process: %w", err)
	}
	return nil
}

func (j *journal) exit(r ExitRecord) error {
	if err := j.add(fact{AttemptID: r.AttemptID, Exit: &r}, true); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// forget needs no sync: a claim that comes back after a power failure is reported, and forgotten, once more.
func (j *journal) forget(attemptID string) {
	j.mu.Lock()
	k := j.live[attemptID]
	j.mu.Unlock()
	if k == nil {
		return
	}
	_ = os.Remove(j.folder.done(attemptID)) // rarely there: a child writes it that cannot speak to us
	_ = j.add(fact{AttemptID: attemptID, Forgotten: true}, false)
}

// readJSON leaves what it is to fill as it is where there is nothing, or nothing whole. Tasks know some of these paths.
func readJSON(path string, into any) {
	if b, err := leftover.Read(path, maxMessage); err == nil {
		_ = json.Unmarshal(b, into)
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
