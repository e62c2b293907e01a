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

// claim notes that an attempt id is taken, and what a later supervisor must know to find the attempt's processes and results. It
// is durable before the attempt may run user code.
type claim struct {
	Version     int       `json:"version"`
	AttemptID   string    `json:"attempt_id"`
	Token       string    `json:"token"`
	Mark        string    `json:"mark"`               // in the environment of all processes of the attempt, as markVariable
	Numbered    bool      `json:"numbered,omitempty"` // the processes have the mark as a resource limit, too; false: an earlier release started them
	BootID      string    `json:"boot_id"`
	ClaimedAt   time.Time `json:"claimed_at"`
	OutputDir   string    `json:"output_dir,omitempty"`
	TempDir     string    `json:"temp_dir,omitempty"`
	Environment string    `json:"environment,omitempty"` // its digest
	MemoryLimit int64     `json:"memory_limit,omitempty"`
	Grace       int64     `json:"grace,omitempty"`
	DataDir     string    `json:"data_dir,omitempty"` // path of the data folder when the attempt was claimed
	Place       string    `json:"place,omitempty"`    // the data folder itself, see Place
	// The attempt's variables are not here: they may hold secrets, which should not be on disk.
}

// process identifies a process even if its number is given to another one later.
type process struct {
	BootID    string    `json:"boot_id"`
	PID       int       `json:"pid"`
	StartTime uint64    `json:"start_time"` // field 22 of /proc/<pid>/stat; 0: the system does not tell
	Mode      Mode      `json:"mode"`
	WhyCold   string    `json:"why_cold,omitempty"`
	StartedAt time.Time `json:"started_at"`
}

var fileSafe = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$`)

// done is the file in which a warm child leaves its exit code if its supervisor is gone.
func (f folder) done(attemptID string) string {
	name := attemptID
	if !fileSafe.MatchString(name) {
		name = "sha256-" + shortHash(attemptID)
	}
	return filepath.Join(f.claims(), name+".done")
}

// readDone returns the exit code that a warm child has left; nil: there is none.
func readDone(path string) *int {
	var d struct {
		Done *int `json:"done"`
	}
	readJSON(path, &d)
	return d.Done
}

// journal is the durable memory of a supervisor (not an execution's journal): a file of lines, each an entry about one attempt.
// An entry that must be durable waits for a sync; entries that wait at the same time share one. The file's blocks are written
// with zeros before they are used, so that a sync has one thing to do: that is several times cheaper than files and folders for
// each attempt. A full file is replaced by a new one with the entries of the attempts that are not forgotten.
//
// 0 ≤ synced ≤ written: the first synced of the written lines are on disk.
type journal struct {
	folder folder
	sync   func(*os.File) error

	syncing sync.Mutex // held while the disk is at work; before mu

	mu      sync.Mutex
	file    *os.File
	size    int64                    // where the next line goes
	room    int64                    // size of the file, zeros included: size ≤ room
	live    map[string]*attemptLines // by attempt id: those that are not forgotten
	written uint64                   // lines that were added
	synced  uint64                   // lines that are on disk
	syncs   int64                    // calls of sync
	broken  bool                     // a write or sync has failed: the content of the file is not known any more, and the next line makes a new file
}

// journalEntry is one line of the journal. One of its fields is set besides AttemptID.
type journalEntry struct {
	AttemptID string      `json:"attempt_id"`
	Claim     *claim      `json:"claim,omitempty"`
	Process   *process    `json:"process,omitempty"` // not synced: the entry matters only while the process lives
	Exit      *ExitRecord `json:"exit,omitempty"`    // no process of the attempt runs any more
	Forgotten bool        `json:"forgotten,omitempty"`
}

// attemptLines are the journal's lines about an attempt that is not forgotten.
type attemptLines struct {
	claim, process, exit []byte
}

// storedAttempt is an attempt as the journal of an earlier supervisor has it.
type storedAttempt struct {
	claim   claim
	process *process
	exit    *ExitRecord
}

const journalRoom = 1 << 20 // bytes of a new file, at least

func (f folder) journal() string { return filepath.Join(f.claims(), "journal") }

// openJournal returns the journal and the attempts that an earlier supervisor has left in it.
func openJournal(f folder) (*journal, []storedAttempt, error) {
	j := &journal{folder: f, sync: syncData, live: map[string]*attemptLines{}}
	var left []storedAttempt
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

// load reads the file of an earlier supervisor.
func (j *journal) load(content io.Reader) ([]storedAttempt, error) {
	j.live = map[string]*attemptLines{}
	found := map[string]*storedAttempt{}
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
		var entry journalEntry
		// Lines after the last sync may be torn. No process was started for a claim in them.
		if err != nil || json.Unmarshal(line, &entry) != nil || entry.AttemptID == "" {
			if long { // the line is not torn: only this one is left out
				continue
			}
			break
		}
		line = entry.bounded(line)
		one := found[entry.AttemptID]
		switch {
		case entry.Claim != nil:
			found[entry.AttemptID] = &storedAttempt{claim: *entry.Claim}
			order = append(order, entry.AttemptID)
		case entry.Forgotten:
			delete(found, entry.AttemptID)
		case one == nil:
		case entry.Process != nil:
			one.process = entry.Process
		case entry.Exit != nil:
			one.exit = entry.Exit
		}
		j.remember(entry, line)
	}
	var all []storedAttempt
	for _, id := range order {
		if one := found[id]; one != nil {
			all = append(all, *one)
			delete(found, id)
		}
	}
	return all, nil
}

// bounded cuts down the texts of an entry that a task may have written, and returns the entry's line for our file.
func (e *journalEntry) bounded(line []byte) []byte {
	if e.Exit != nil {
		*e.Exit = e.Exit.bounded()
	}
	if e.Process != nil {
		e.Process.WhyCold = shortened(e.Process.WhyCold)
	}
	if len(line) <= maxEntry { // the line as it is, since it may have fields of a later version
		return slices.Clone(line)
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // our own type can always be encoded
	}
	return append(b, '\n')
}

// remember takes a line into live. Called with the mutex held, or before the journal is in use.
func (j *journal) remember(entry journalEntry, line []byte) {
	k := j.live[entry.AttemptID]
	switch {
	case entry.Claim != nil:
		j.live[entry.AttemptID] = &attemptLines{claim: line}
	case entry.Forgotten:
		delete(j.live, entry.AttemptID)
	case k == nil:
	case entry.Process != nil:
		k.process = line
	case entry.Exit != nil:
		k.exit = line
	}
}

// rewrite makes a new file of the lines in live, and syncs it; called with the mutex held.
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

// add writes an entry. A durable one is on disk when add returns.
func (j *journal) add(entry journalEntry, durable bool) error {
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	j.mu.Lock()
	j.written++
	number := j.written
	j.remember(entry, line)
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
	if synced >= number { // the sync of another entry has covered this one
		return nil
	}
	err = j.sync(file)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.syncs++
	switch {
	case j.synced >= number: // rewrite has synced the entry in a new file meanwhile
		return nil
	case err != nil:
		j.broken = true // another sync would succeed, and not say what this one has lost
		return err
	}
	j.synced = max(j.synced, written)
	return nil
}

func (j *journal) claim(c claim) error {
	if err := j.add(journalEntry{AttemptID: c.AttemptID, Claim: &c}, true); err != nil {
		j.forget(c.AttemptID)
		return fmt.Errorf("claim attempt: %w", err)
	}
	return nil
}

func (j *journal) process(attemptID string, p process) error {
	if err := j.add(journalEntry{AttemptID: attemptID, Process: &p}, false); err != nil {
		return fmt.Errorf("record process: %w", err)
	}
	return nil
}

func (j *journal) exit(r ExitRecord) error {
	if err := j.add(journalEntry{AttemptID: r.AttemptID, Exit: &r}, true); err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// forget needs no sync: if the claim comes back after a power failure, the attempt is reported and forgotten once more.
func (j *journal) forget(attemptID string) {
	j.mu.Lock()
	k := j.live[attemptID]
	j.mu.Unlock()
	if k == nil {
		return
	}
	_ = os.Remove(j.folder.done(attemptID)) // rarely there: see done
	_ = j.add(journalEntry{AttemptID: attemptID, Forgotten: true}, false)
}

// readJSON decodes a file. It leaves into as it is if the file is missing or damaged. Tasks know some of these paths, and may have
// put anything there.
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
