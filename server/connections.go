package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// connections bounds how many clients are connected at once, so that the store, uploads and the start of tasks find a file
// descriptor when clients have opened more connections than the system allows this process files. It closes the connection
// that has been without a request for longest, which its client opens again when it has one.
//
// open counts connections, and quiet holds those without a request: len(quiet) ≤ open.
type connections struct {
	limit int

	mu    sync.Mutex
	open  int
	quiet *list.List // of net.Conn, the one that has been quiet for longest first
	place map[net.Conn]*list.Element
}

func newConnections(limit int) *connections {
	return &connections{limit: limit, quiet: list.New(), place: map[net.Conn]*list.Element{}}
}

// maxConnections is half of what this process may open, less what the server always has open: a request may need a file, too.
func maxConnections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 1<<20 {
		return 1 << 19
	}
	return max(16, int(files.Cur)/2-32)
}

// state is the hook http.Server.ConnState.
func (c *connections) state(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.place[conn]; at != nil {
		c.quiet.Remove(at)
		delete(c.place, conn)
	}
	switch state {
	case http.StateNew:
		c.open++
		if c.open > c.limit {
			c.makeRoom(conn)
		}
		c.place[conn] = c.quiet.PushBack(conn)
	case http.StateIdle:
		c.place[conn] = c.quiet.PushBack(conn)
	case http.StateClosed, http.StateHijacked:
		c.open--
	case http.StateActive:
	}
}

// makeRoom closes one connection; the new one where all others have requests. That it is closed comes back as a state.
func (c *connections) makeRoom(fresh net.Conn) {
	if oldest := c.quiet.Front(); oldest != nil {
		fresh = c.quiet.Remove(oldest).(net.Conn) //nolint:forcetypeassert // see quiet
		delete(c.place, fresh)
	}
	_ = fresh.Close()
}
