package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
)

// changes tells of files that were changed, made or removed in folders: the kernel queues that before the call that did it
// returns, so an attempt that begins after a change is never given what was before.
type changes struct {
	mu      sync.Mutex
	fd      int
	folders map[int32]string
	first   string // the first change that was seen; empty: none was
}

func watchFolders(folders []string) (*changes, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the environment's files: %w: raise fs.inotify.max_user_instances", err)
	}
	c := &changes{fd: fd, folders: map[int32]string{}}
	const events = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO |
		syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR
	for _, folder := range folders {
		n, err := syscall.InotifyAddWatch(fd, folder, events)
		switch err {
		case nil:
			c.folders[int32(n)] = folder
		case syscall.ENOENT, syscall.ENOTDIR: // it may come: that changes the folder that it is in
		default:
			c.close()
			return nil, fmt.Errorf("watch %s: %w: raise fs.inotify.max_user_watches", folder, err)
		}
	}
	return c, nil
}

func (c *changes) note(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = path
}

// seen is a path that has changed; empty: nothing has.
func (c *changes) seen() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	buffer := make([]byte, 8192)
	for c.first == "" && c.fd >= 0 {
		n, err := syscall.Read(c.fd, buffer)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n < syscall.SizeofInotifyEvent {
			break
		}
		for b := buffer[:n]; len(b) >= syscall.SizeofInotifyEvent && c.first == ""; {
			folder, mask := c.folders[int32(binary.NativeEndian.Uint32(b))], binary.NativeEndian.Uint32(b[4:])
			size := int(binary.NativeEndian.Uint32(b[12:]))
			name := string(bytes.TrimRight(b[syscall.SizeofInotifyEvent:syscall.SizeofInotifyEvent+size], "\x00"))
			b = b[syscall.SizeofInotifyEvent+size:]
			switch {
			case mask&syscall.IN_Q_OVERFLOW != 0:
				c.first = "more files than the kernel tells of at once (fs.inotify.max_queued_events)"
			case name != "__pycache__" && filepath.Base(folder) != "__pycache__": // in it stands what can be made again
				c.first = filepath.Join(folder, name)
			}
		}
	}
	return c.first
}

func (c *changes) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		_ = syscall.Close(c.fd)
		c.fd = -1
	}
}
