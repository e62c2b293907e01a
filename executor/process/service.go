package process

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/worker"
)

// answerTime is how long the supervisor may take to answer before it counts as away.
const answerTime = 30 * time.Second

// Services are the supervisor, the disk and processes of this machine, and the blob store. See executor.Backend.
func (b *Backend) Services() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		b.workerService():  b.probeWorker,
		b.machineService(): b.probeMachine,
		aloft.ServiceBlob:  b.probeBlob,
	}
}

func (b *Backend) workerService() string  { return aloft.WorkerOf(b.config.DataDir) }
func (b *Backend) machineService() string { return aloft.MachineOf(b.config.DataDir) }

// probeBytes is how much a probe writes: enough that the write fails on a disk that has only a few free blocks.
const probeBytes = 1 << 20

// probeBlob writes, reads and deletes an object.
func (b *Backend) probeBlob(ctx context.Context) error {
	if err := worker.DiskFull(b.config.Blob.Path("")); err != nil {
		return blob.Unavailable(err)
	}
	key := blob.Key("health/" + rand.Text())
	_, err := b.config.Blob.Put(ctx, key, bytes.NewReader(make([]byte, probeBytes)), blob.PutOptions{})
	if err == nil {
		var content []byte
		if content, err = blob.ReadAll(ctx, b.config.Blob, key, probeBytes); err == nil && len(content) != probeBytes {
			err = fmt.Errorf("an object of %d bytes was read back with %d", probeBytes, len(content))
		}
	}
	return errors.Join(err, b.config.Blob.Delete(ctx, key))
}

// probeMachine writes, reads and removes a file, and starts a process.
func (b *Backend) probeMachine(ctx context.Context) error {
	dir := filepath.Join(b.config.DataDir, "attempts")
	if err := makeFolder(dir); err != nil {
		return blob.Unavailable(err)
	}
	if err := worker.DiskFull(dir); err != nil {
		return blob.Unavailable(err)
	}
	path := filepath.Join(dir, ".health-"+rand.Text())
	err := os.WriteFile(path, make([]byte, probeBytes), 0o600)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(path, os.O_RDWR, 0); err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
	}
	if removed := os.Remove(path); err == nil {
		err = removed
	}
	if err != nil {
		return blob.Unavailable(err)
	}
	program, err := exec.LookPath("true")
	if err != nil {
		return nil //nolint:nilerr // a machine without this program is rare, and may be well
	}
	probe := exec.CommandContext(ctx, program)
	probe.Env = []string{} // the program needs no variables
	if err := probe.Run(); err != nil {
		return fmt.Errorf("start a process: %w", err)
	}
	return nil
}

// probeWorker asks the supervisor what it runs.
func (b *Backend) probeWorker(ctx context.Context) error {
	client, err := b.supervisor(ctx)
	if err == nil {
		_, err = client.List(ctx)
	}
	return err
}

// blame names the service at fault for an error that came while an attempt was prepared or its results were kept: the blob
// store for a path in its folder, else this machine.
func (b *Backend) blame(err error) error {
	service := b.machineService()
	var path *fs.PathError
	var link *os.LinkError
	root := b.config.Blob.Path("")
	within := func(name string) bool {
		relative, err := filepath.Rel(root, name)
		return err == nil && filepath.IsLocal(relative)
	}
	if errors.As(err, &path) && within(path.Path) || errors.As(err, &link) && within(link.New) {
		service = aloft.ServiceBlob
	}
	return aloft.Blame(service, err)
}

// blameWorker says that the supervisor is at fault: it failed, or did not answer within answerTime. An error stays as it is if
// it names a service already, if it says ErrInvalid or ErrNotFound, or if our own end (ctx) is its cause.
func (b *Backend) blameWorker(ctx context.Context, err error) error {
	var known *aloft.ServiceError
	if err == nil || ctx.Err() != nil || errors.As(err, &known) || errors.Is(err, aloft.ErrInvalid) || errors.Is(err, aloft.ErrNotFound) {
		return err
	}
	return &aloft.ServiceError{Service: b.workerService(), Err: err}
}

// notStarted marks an error that came before the supervisor had heard of the attempt.
func notStarted(err error) error {
	if err == nil {
		return nil
	}
	return notStartedError{err}
}

// notStartedError reads like the error that it marks.
type notStartedError struct{ error }

func (e notStartedError) Unwrap() []error { return []error{e.error, executor.ErrNotStarted} }
