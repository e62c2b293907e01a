// Package lru keeps what was used last of what never changes: compiled workflows, literals, templates of tasks, records.
// It is beside the flow: the registry, the engine and executors each keep what they would read again.
//
// A cache is bounded by the sum of the weights of what it keeps, in bytes as far as these can be told (weight.Decoded):
//
//	weight of all but the heavy value ≤ limit
//
// A value that alone is heavier than the limit is not refused, or each of its uses would read it again: the one of these
// that was used last is kept beside the others, until another such value comes.
package lru

import (
	"container/list"
	"sync"
)

// Cache keeps values by key. New makes one. It may be used by several goroutines.
type Cache[K comparable, V any] struct {
	limit int64

	mu     sync.Mutex
	weight int64 // of recent
	byKey  map[K]*list.Element
	recent *list.List   // of entry, the one that was used last in front, without heavy
	heavy  *entry[K, V] // heavier than the limit; nil: none
}

type entry[K comparable, V any] struct {
	key    K
	value  V
	weight int64
}

// New makes a cache for a total weight.
func New[K comparable, V any](limit int64) *Cache[K, V] {
	return &Cache[K, V]{limit: limit, byKey: make(map[K]*list.Element), recent: list.New()}
}

// Get returns the value of a key, which counts as its use.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heavy != nil && c.heavy.key == key {
		return c.heavy.value, true
	}
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true //nolint:forcetypeassert // the list holds nothing else
}

// Put keeps the value of a key, in place of the one that was there, and gives up what was not used for longest.
func (c *Cache[K, V]) Put(key K, value V, weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heavy != nil && c.heavy.key == key {
		c.heavy = nil
	}
	if e, ok := c.byKey[key]; ok {
		c.remove(e)
	}
	if weight > c.limit {
		c.heavy = &entry[K, V]{key, value, weight}
		return
	}
	c.byKey[key] = c.recent.PushFront(entry[K, V]{key, value, weight})
	c.weight += weight
	for c.weight > c.limit {
		c.remove(c.recent.Back())
	}
}

func (c *Cache[K, V]) remove(e *list.Element) {
	old := c.recent.Remove(e).(entry[K, V]) //nolint:forcetypeassert // the list holds nothing else
	delete(c.byKey, old.key)
	c.weight -= old.weight
}
