package server

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestQuietConnectionsMakeRoomForNewOnes is attack 18: idle connections took all descriptors and kept new clients out.
func TestQuietConnectionsMakeRoomForNewOnes(t *testing.T) {
	t.Parallel()
	busy, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			close(busy)
			<-release
		}
		_, _ = io.WriteString(w, "served")
	}))
	s.Config.ConnState = newConnections(3).state
	s.Start()
	defer s.Close()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ask := func(conn net.Conn, path string) { fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path) }
	answered := func(conn net.Conn) error {
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Read(make([]byte, 1))
		return err
	}
	working := dial()
	ask(working, "/busy")
	<-busy
	quiet := []net.Conn{dial(), dial()}
	for range 5 {
		fresh := dial()
		if err := answered(quiet[0]); err == nil {
			t.Fatal("the connection that was quiet for longest is still open")
		}
		quiet = append(quiet[1:], fresh)
	}
	ask(quiet[1], "/")
	if err := answered(quiet[1]); err != nil {
		t.Errorf("the newest connection: %v, want an answer", err)
	}
	close(release)
	if err := answered(working); err != nil {
		t.Errorf("the connection with a request: %v, want its answer", err)
	}
}
