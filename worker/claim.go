package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// A claim is a folder with up to three files. claim.json and exit.json are synced, with their folder; process.json is not,
// since it matters only while the process lives, and then the page cache does too.
//
//	claim.json    before the attempt may run user code
//	process.json  when its process is known
//	exit.json     when nothing of it runs any more
//	done.json     written by a warm child that could not tell its end to its supervisor
type claim struct {
	Version     int       `json:"version"`
	AttemptID   string    `json:"attempt_id"`
	Token       string    `json:"token"`
	Mark        string    `json:"mark"` // in the environment of all its processes, as markVariable
	BootID      string    `json:"boot_id"`
	ClaimedAt   time.Time `json:"claimed_at"`
	OutputDir   string    `json:"output_dir,omitempty"`
	TempDir     string    `json:"temp_dir,omitempty"`
	MemoryLimit int64     `json:"memory_limit,omitempty"`
	Grace       int64     `json:"grace,omitempty"`
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

func (f folder) claim(attemptID string) string {
	name := attemptID
	if !fileSafe.MatchString(name) {
		name = "sha256-" + shortHash(attemptID)
	}
	return filepath.Join(f.claims(), name)
}

func (f folder) writeClaim(c claim) error {
	dir := f.claim(c.AttemptID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("claim attempt: %w", err)
	}
	err := writeSynced(filepath.Join(dir, "claim.json"), c)
	if err == nil {
		err = syncDir(dir)
	}
	if err == nil {
		err = syncDir(f.claims())
	}
	if err != nil {
		f.removeClaim(c.AttemptID)
		return fmt.Errorf("claim attempt: %w", err)
	}
	return nil
}

func (f folder) writeProcess(attemptID string, p process) error {
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("record process: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.claim(attemptID), "process.json"), b, 0o600); err != nil {
		return fmt.Errorf("record process: %w", err)
	}
	return nil
}

func (f folder) writeExit(r ExitRecord) error {
	dir := f.claim(r.AttemptID)
	temp := filepath.Join(dir, "exit.json.new")
	err := writeSynced(temp, r)
	if err == nil {
		err = os.Rename(temp, filepath.Join(dir, "exit.json"))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write exit record: %w", err)
	}
	return nil
}

// removeClaim needs no sync: a claim that comes back after a power failure is reported, and forgotten, once more.
func (f folder) removeClaim(attemptID string) { _ = os.RemoveAll(f.claim(attemptID)) }

// stored is what the disk says about one attempt.
type stored struct {
	claim   claim
	process *process
	exit    *ExitRecord
	done    *int // code that a warm child left
}

// readClaims is all attempts that were claimed and not forgotten. A folder without a readable claim.json was cut off
// before its sync: nothing was started for it, so it is removed.
func (f folder) readClaims() ([]stored, error) {
	entries, err := os.ReadDir(f.claims())
	if err != nil {
		return nil, fmt.Errorf("read claims: %w", err)
	}
	var all []stored
	for _, entry := range entries {
		dir := filepath.Join(f.claims(), entry.Name())
		var s stored
		if !readJSON(filepath.Join(dir, "claim.json"), &s.claim) || s.claim.AttemptID == "" {
			_ = os.RemoveAll(dir)
			continue
		}
		var p process
		if readJSON(filepath.Join(dir, "process.json"), &p) && p.PID > 0 {
			s.process = &p
		}
		var r ExitRecord
		if readJSON(filepath.Join(dir, "exit.json"), &r) && r.AttemptID == s.claim.AttemptID {
			s.exit = &r
		}
		s.done = readDone(dir)
		all = append(all, s)
	}
	return all, nil
}

func readDone(dir string) *int {
	var d struct {
		Done *int `json:"done"`
	}
	readJSON(filepath.Join(dir, "done.json"), &d)
	return d.Done
}

func readJSON(path string, into any) bool {
	b, err := os.ReadFile(path)
	return err == nil && json.Unmarshal(b, into) == nil
}

func writeSynced(path string, value any) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(value); err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(b.Bytes())
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
