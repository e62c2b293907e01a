package worker

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// mounts is what the processes of an attempt see otherwise than we do: folders of ours that are read-only for them, but for
// the attempt's own below them. It is a matter of a mount namespace, which a process inherits from the one that starts it: no
// name leads to those folders that could be written to in spite of the rights on files. Mounts of the machine that come and
// go later are seen as ever.
//
// root makes such a namespace with one call. An ordinary user may only in a user namespace, in which all files of others
// belong to nobody: sudo, ssh and containers do not work in there, so that is not done.
type mounts struct {
	ReadOnly []string `json:"read_only"`
	Writable []string `json:"writable,omitempty"` // each below one of ReadOnly; they are there
}

// enter gives the view to this thread, which ends soon, and to what it starts.
func (m *mounts) enter() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	for _, dir := range m.ReadOnly {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("mount %s read-only: %w", dir, err) // before 5.12
		}
	}
	for _, dir := range m.Writable {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	return nil
}

// mountable says why this system does not let us make such a view; nil: it does.
func mountable(f folder) (err error) {
	onSpareThread(func() {
		if err = (&mounts{ReadOnly: []string{f.dir}, Writable: []string{f.claims()}}).enter(); err != nil {
			return
		}
		if unix.Access(f.dir, unix.W_OK) == nil || unix.Access(f.claims(), unix.W_OK) != nil {
			err = fmt.Errorf("mount %s read-only: it has no effect", f.dir)
		}
	})
	return err
}

// onSpareThread runs a function on a thread that ends with it, and so may be left in a strange state. The main thread cannot
// end, and what /proc says of a process is what it says of that one.
func onSpareThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			do()
			return
		}
		onSpareThread(do) // on another one, since this goroutine keeps the main thread meanwhile
		runtime.UnlockOSThread()
	}()
	<-done
}
