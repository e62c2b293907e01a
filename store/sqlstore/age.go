package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/internal/hang"
)

// age notes how far a database file has come, so that Open refuses one that has lost a part of its log.
//
// SQLite takes a log that was damaged or deleted for one that ends earlier, or for none, and reports no error: commits that
// were only in the log are gone. The log of a small installation would have everything in it, as it is copied back each 16 MiB.
// So a pass copies it back when nothing was written for a while, and writes the largest execution number into a small file
// beside the database:
//
//	number in the file ≤ largest execution number in the database, or the database is refused at the start
//
// This costs a sync each few seconds in which executions are created.
type age struct {
	store *Store
	log   *slog.Logger

	stop  context.CancelFunc
	done  chan struct{}
	guard hang.Guard // of passes: the next one begins when the last has returned

	known        int64     // the number in the file
	seen         int64     // writer.commits at the last pass
	copied       int64     // writer.commits when the log was copied back
	checkpointAt time.Time // when a pass last began to copy the log back
	nowFunc      func() time.Time
}

const (
	ageEvery        = 5 * time.Second
	checkpointEvery = time.Minute
)

func ageFile(path string) string { return path + ".age" }

// checkAge refuses a database whose largest execution number is smaller than the number in the file.
func (s *Store) checkAge(ctx context.Context) (known int64, err error) {
	content, err := os.ReadFile(ageFile(s.path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, unavailable(opening, s.path, s.dialect, err)
	}
	known, _ = strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64) // 0 if it is no number
	has, err := s.lastExecution(ctx)
	if err != nil {
		return 0, err
	}
	if has < known {
		return 0, fmt.Errorf("%s %s: it is older than it was: it ends with execution number %d and had come to number %d; its log %s-wal was damaged or deleted, or a "+
			"backup was restored; put back the database and its log as they were together, or, to go on with what is there: rm %s: %w",
			opening, s.path, has, known, s.path, ageFile(s.path), aloft.ErrPrecondition)
	}
	return known, nil
}

func (s *Store) lastExecution(ctx context.Context) (number int64, err error) {
	err = s.read(ctx, false, "SELECT COALESCE(MAX(number), 0) FROM executions", nil, func(scan scan) error { return scan(&number) })
	return number, err
}

func (s *Store) keepAge(known int64, log *slog.Logger) *age {
	ctx, stop := context.WithCancel(context.Background())
	a := &age{store: s, log: log, stop: stop, done: make(chan struct{}), known: known, nowFunc: time.Now}
	a.guard.Name, a.guard.Limit, a.guard.Most = s.guard.Name, 2*readFor, 1
	go func() {
		defer close(a.done)
		tick := time.NewTicker(ageEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if _, err := hang.Do(ctx, &a.guard, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.pass(ctx) }, nil); err != nil && ctx.Err() == nil {
					a.log.Warn("how far the database has come is not noted; it is tried again", "error", err)
				}
			}
		}
	}()
	return a
}

// pass notes how far the database has come, and copies the log back if nothing was written since the last pass.
func (a *age) pass(ctx context.Context) error {
	commits := a.store.writer.commits.Load()
	idle := commits == a.seen
	if !idle || a.known == 0 {
		a.seen = commits
		number, err := a.store.lastExecution(ctx)
		if err != nil {
			return err
		}
		if number > a.known {
			if err := writeSynced(ageFile(a.store.path), strconv.FormatInt(number, 10)+"\n"); err != nil {
				return err
			}
			a.known = number
		}
	}
	if now := a.nowFunc(); idle && commits != a.copied && now.Sub(a.checkpointAt) >= checkpointEvery {
		a.checkpointAt = now
		if err := checkpoint(ctx, a.store.path); err != nil {
			return err
		}
		a.copied = commits
	}
	return nil
}

func (a *age) close() {
	a.stop()
	<-a.done
}

// checkpoint copies the log into the database as far as no reader needs it. It blocks neither readers nor the writer.
func checkpoint(ctx context.Context, path string) error {
	db := openSQLite(writeDSN(path))
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	var busy, inLog, copied sql.NullInt64
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &inLog, &copied); err != nil {
		return fmt.Errorf("copy the log of %s back: %w", path, err)
	}
	return nil
}

// writeSynced replaces a small file so that after a loss of power it has the old or the new content.
func writeSynced(path, content string) error {
	temporary := path + ".new"
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
