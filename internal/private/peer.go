package private

import (
	"fmt"
	"net"
	"os"
)

// Peer checks that the process at the other end of a Unix socket has the user id of this process. That holds for root, too: a
// server of root that trusted the supervisor of another user would do what that user wants.
func Peer(conn net.Conn) error {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("ask who is at the other end of the socket: %w", err)
	}
	user := os.Geteuid()
	if cerr := raw.Control(func(fd uintptr) { user, err = peerUser(int(fd)) }); cerr != nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("ask who is at the other end of the socket: %w", err)
	}
	if user != os.Geteuid() {
		return fmt.Errorf("the process at the other end of the socket is of user %d, we are user %d", user, os.Geteuid())
	}
	return nil
}
