package worker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
)

// folderWatch finds out whether files in folders were changed, made or removed. The kernel queues the event before the system call
// that makes the change returns, so an attempt that begins after a change never gets a zygote from before it.
type folderWatch struct {
	mu      sync.Mutex
	fd      int
	folders map[int32]string
	first   string // path of the first change that was seen; empty: none
}

func watchFolders(folders []string) (*folderWatch, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch the environment's files: %w: raise fs.inotify.max_user_instances", err)
	}
	c := &folderWatch{fd: fd, folders: map[int32]string{}}
	const events = syscall.IN_MODIFY | syscall.IN_CREATE | syscall.IN_DELETE | syscall.IN_MOVED_FROM | syscall.IN_MOVED_TO |
		syscall.IN_DELETE_SELF | syscall.IN_MOVE_SELF | syscall.IN_ONLYDIR
	for _, folder := range folders {
		n, err := syscall.InotifyAddWatch(fd, folder, events)
		switch err {
		case nil:
			c.folders[int32(n)] = folder
		case syscall.ENOENT, syscall.ENOTDIR: // if the folder is made later, that changes the folder above it
		default:
			c.close()
			return nil, fmt.Errorf("watch %s: %w: raise fs.inotify.max_user_watches", folder, err)
		}
	}
	return c, nil
}

func (c *folderWatch) note(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = path
}

// firstChange is the path of the first change; empty: there was none.
func (c *folderWatch) firstChange() string {
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
			case name != "__pycache__" && filepath.Base(folder) != "__pycache__": // bytecode in it comes and goes without a change of the modules
				c.first = filepath.Join(folder, name)
			}
		}
	}
	return c.first
}

func (c *folderWatch) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		_ = syscall.Close(c.fd)
		c.fd = -1
	}
}
