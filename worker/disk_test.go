package worker

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

func TestADiskIsFullWhenItTakesNoBytesOrNoFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		fields syscall.Statfs_t
		err    error
		want   string // empty: there is room
	}{
		{name: "room", fields: syscall.Statfs_t{Bsize: 4096, Bavail: 1 << 20, Files: 1000, Ffree: 500}},
		{name: "no bytes", fields: syscall.Statfs_t{Bsize: 4096, Bavail: 3, Files: 1000, Ffree: 500}, want: "12288 bytes"},
		{name: "no inodes", fields: syscall.Statfs_t{Bsize: 4096, Bavail: 1 << 20, Files: 400, Ffree: 7}, want: "7 of 400"},
		{name: "inodes as they are needed", fields: syscall.Statfs_t{Bsize: 4096, Bavail: 1 << 20}},
		{name: "it cannot be asked", err: syscall.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := diskFullBy("/data", func(_ string, s *syscall.Statfs_t) error { *s = c.fields; return c.err })
			if c.want == "" {
				if err != nil {
					t.Errorf("it is full: %v", err)
				}
			} else if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/data") {
				t.Errorf("got %v, want an ENOSPC that names %s", err, c.want)
			}
		})
	}
}
