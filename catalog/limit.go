package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aloft-dev/aloft/store"
)

// Limits say which results of a project are removed. They apply to each project by itself.
type Limits struct {
	MaxAge  time.Duration // since a result was computed, be it used or not: so Flyte counts, too. 0: no limit
	MaxSize int64         // bytes of a project's results with the objects that they refer to. 0: no limit
}

// Removal is a result that is to be removed.
type Removal struct {
	ID     string
	Reason string
}

// Excess are the removals among a project's results: first the results that are too old, then, while the rest is too large
// together, those whose last use is longest ago. Pinned results stay and count. An object that two results refer to counts twice.
func (l Limits) Excess(results []*store.Result, now time.Time) []Removal {
	var gone []Removal
	var left []*store.Result
	size := int64(0)
	for _, e := range results {
		switch {
		case !e.GoneAt.IsZero():
			continue
		case !e.Pinned && l.MaxAge > 0 && now.Sub(e.CreatedAt) > l.MaxAge:
			gone = append(gone, Removal{e.ID, fmt.Sprintf("too old: computed more than %v ago (cache-max-age)", l.MaxAge)})
			continue
		}
		size += e.Size
		left = append(left, e)
	}
	if l.MaxSize <= 0 || size <= l.MaxSize {
		return gone
	}
	slices.SortStableFunc(left, func(a, b *store.Result) int {
		if c := a.UsedAt.Compare(b.UsedAt); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID) // so that two servers choose the same results
	})
	for _, e := range left {
		if size <= l.MaxSize {
			break
		}
		if e.Pinned || e.Size == 0 { // removing a result without a size makes no room
			continue
		}
		size -= e.Size
		gone = append(gone, Removal{e.ID, fmt.Sprintf("no room: the project's results had more than %d bytes and this one's last use was longest ago (cache-max-size)", l.MaxSize)})
	}
	return gone
}

// pageSize is how many results Tidy lists at once.
const pageSize = 1000

// Tidy removes the results beyond the limits. Several servers may do it at once: a result that is gone keeps its first reason.
func (c *Catalog) Tidy(ctx context.Context, now time.Time) error {
	if c.Limits == (Limits{}) {
		return nil
	}
	if err := c.NoteUses(ctx); err != nil {
		return err // without these uses, results that are in use would be removed
	}
	byProject := map[string][]*store.Result{}
	// Earliest first, so that results which are added meanwhile do not move others to another page. A result that is removed
	// meanwhile makes this pass overlook another one, until the next pass.
	for offset := 0; ; offset += pageSize {
		results, err := c.Store.ListResults(ctx, store.ResultQuery{Ascending: true, Limit: pageSize, Offset: offset})
		if err != nil {
			return fmt.Errorf("tidy cached results: %w", err)
		}
		for _, e := range results {
			// Keys and objects of all results would take much memory.
			byProject[e.Project] = append(byProject[e.Project], &store.Result{
				ID: e.ID, Size: e.Size, CreatedAt: e.CreatedAt, UsedAt: e.UsedAt, Pinned: e.Pinned, GoneAt: e.GoneAt,
			})
		}
		if len(results) < pageSize {
			break
		}
	}
	byReason := map[string][]string{}
	for project, results := range byProject {
		gone := c.Limits.Excess(results, now)
		for _, g := range gone {
			byReason[g.Reason] = append(byReason[g.Reason], g.ID)
		}
		if len(gone) > 0 {
			c.log().Info("let go of cached results beyond the limits", "project", project, "results", len(gone))
		}
	}
	for reason, ids := range byReason {
		for batch := range slices.Chunk(ids, maxBatch) {
			if _, err := c.Store.RemoveResults(ctx, batch, reason, now); err != nil {
				return fmt.Errorf("tidy cached results: %w", err)
			}
		}
	}
	return nil
}

// How often Run does its work.
const (
	notePause = 10 * time.Second
	tidyPause = 10 * time.Minute
)

// Run notes uses and tidies now and then until ctx ends, and then notes the last uses. A pass that fails is logged, and the next
// one does its work.
func (c *Catalog) Run(ctx context.Context) {
	note, tidy := time.NewTicker(notePause), time.NewTicker(tidyPause)
	defer note.Stop()
	defer tidy.Stop()
	pass := func(ctx context.Context, what string, do func(context.Context) error) {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			c.log().Warn("a part of the catalog's care has to wait", "part", what, "error", err)
		}
	}
	tidyNow := func(ctx context.Context) error { return c.Tidy(ctx, c.now()) }
	pass(ctx, "tidy cached results", tidyNow)
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			pass(last, "note uses of cached results", c.NoteUses)
			return
		case <-note.C:
			pass(ctx, "note uses of cached results", c.NoteUses)
		case <-tidy.C:
			pass(ctx, "tidy cached results", tidyNow)
		}
	}
}
