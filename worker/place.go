package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// Place names a data folder itself, not its path: it stays the same when the folder is renamed, and a copy has another one.
// A place is valid until the machine starts again.
func Place(dataDir string) (string, error) {
	info, err := os.Stat(dataDir)
	if err != nil {
		return "", fmt.Errorf("look at data folder: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("look at data folder %s: the system has no numbers for files", dataDir)
	}
	return fmt.Sprintf("%s:%x:%x", machine(), stat.Dev, stat.Ino), nil
}

// leadsTo says whether a path leads to a place. A path that exists and cannot be looked at counts as leading there.
func leadsTo(dataDir, place string) bool {
	found, err := Place(dataDir)
	return found == place || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// machine names this machine, or the container that we run in.
func machine() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(strings.TrimSpace(string(id))) > 0 {
		return strings.TrimSpace(string(id))
	}
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
