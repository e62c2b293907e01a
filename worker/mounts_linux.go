package worker

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// mounts are folders of ours that are read-only for the processes of an attempt, except for the attempt's own folders below them.
// The processes live in a mount namespace of their own, which a process inherits from the process that starts it: there the folders
// are read-only under every name, also where the rights on files would allow a write, as for root. Mounts of the machine that come and go later are seen as ever.
//
// root makes such a namespace with one call. An ordinary user can make one only inside a user namespace, where the files of other
// users seem to be owned by the user "nobody": sudo, ssh and containers do not work there, so we do not make one.
type mounts struct {
	ReadOnly []string `json:"read_only"`
	Writable []string `json:"writable,omitempty"` // each below one of ReadOnly; they exist
}

// enter makes the mounts for this thread, which ends soon, and for the processes that it starts.
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
			return fmt.Errorf("mount %s read-only: %w", dir, err) // Linux before 5.12
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

// mountable says why this system does not let us make mounts; nil: it does.
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

// onSpareThread runs a function on a thread that ends with it: the function may leave the thread in any state. It is never the main
// thread, which cannot end, and which /proc shows as the process.
func onSpareThread(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			do()
			return
		}
		onSpareThread(do) // on another thread, since this goroutine keeps the main thread meanwhile
		runtime.UnlockOSThread()
	}()
	<-done
}
