package server

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// connections bounds how many connections clients have at once. Otherwise clients could take all file descriptors of the
// process, and the store, uploads and the start of tasks would find none. If there are too many, the connection that has been
// without a request for longest is closed: its client opens a new one for its next request. If all connections have requests,
// the new one is closed.
type connections struct {
	limit int

	mu    sync.Mutex
	open  int                        // connections; open ≤ limit, but for those that are just being closed
	quiet *list.List                 // net.Conn of connections without a request, the longest quiet first; len(quiet) ≤ open
	place map[net.Conn]*list.Element // element of quiet, by connection
}

func newConnections(limit int) *connections {
	return &connections{limit: limit, quiet: list.New(), place: map[net.Conn]*list.Element{}}
}

// maxConnections is half of the file descriptors that this process may have, because a request may need a file, too, less those
// that the server always has open.
func maxConnections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil || files.Cur > 1<<20 {
		return 1 << 19
	}
	return max(16, int(files.Cur)/2-32)
}

// state implements the hook http.Server.ConnState.
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

// makeRoom closes the quietest connection, or the new one if all others have requests. open is counted down in state.
func (c *connections) makeRoom(fresh net.Conn) {
	if oldest := c.quiet.Front(); oldest != nil {
		fresh = c.quiet.Remove(oldest).(net.Conn) //nolint:forcetypeassert // see quiet
		delete(c.place, fresh)
	}
	_ = fresh.Close()
}
