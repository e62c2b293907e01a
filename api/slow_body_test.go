package api

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aloft-dev/aloft/internal/room"
)

// TestBodiesThatComeTooSlowlyAreCutOff is attack 2, too: a client that sends a little each second is never idle, and would hold
// the room of its message as long as it likes.
func TestBodiesThatComeTooSlowlyAreCutOff(t *testing.T) {
	t.Parallel()
	const none = 0
	for name, test := range map[string]struct {
		format   string
		size     int           // of the message
		eachTime int           // bytes that come each second
		cut      time.Duration // after which the request is cut off; none: the handler gets the message
		want     string        // of the answer
	}{
		"a KiB a second":                 {"application/proto", 4 << 20, 1 << 10, bodyGrace + time.Second, "deadline_exceeded"},
		"a KiB a second over gRPC":       {"application/grpc+proto", 4 << 20, 1 << 10, bodyGrace + time.Second, "Grpc-Status:[4]"},
		"nine tenths of the rate":        {"application/proto", 4 << 20, bodyRate * 9 / 10, bodyGrace + time.Second, "deadline_exceeded"},
		"as fast as it must":             {"application/proto", 4 << 20, bodyRate, none, ""},
		"all of it while there is grace": {"application/proto", 20 << 10, 1 << 10, none, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				pool := room.NewPool(64 << 20)
				handled := false
				a := newIntake(pool, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					handled = err == nil
				}))
				message := make([]byte, test.size)
				if strings.Contains(test.format, "grpc") {
					message = frame(0, message)
				}
				body, sender := io.Pipe()
				go func() {
					for left := bytes.NewBuffer(message); left.Len() > 0; <-time.After(time.Second) {
						if _, err := sender.Write(left.Next(test.eachTime)); err != nil {
							return
						}
					}
					_ = sender.Close()
				}()
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, createPath, body)
				r.ContentLength = int64(len(message))
				r.Header.Set("Content-Type", test.format)
				answer := httptest.NewRecorder()
				began := time.Now()
				a.ServeHTTP(answer, r)
				took := time.Since(began)
				_ = body.Close()
				<-time.After(time.Minute) // the sender sees it
				if handled == (test.cut != none) || test.cut != none && took != test.cut {
					t.Errorf("it is over after %s, with the handler's answer: %t", took, handled)
				}
				got := strings.ReplaceAll(fmt.Sprint(answer.Body, answer.Header(), answer.Result().Trailer), "%20", " ")
				if test.cut != none && (!strings.Contains(got, test.want) || !strings.Contains(got, "comes too slowly: ")) {
					t.Errorf("got %s, want %s and why", got, test.want)
				}
				if pool.Taken() != 0 {
					t.Errorf("%d bytes of room are still taken", pool.Taken())
				}
			})
		})
	}
}
