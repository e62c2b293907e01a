// Package lru is a cache for values that never change: compiled workflows, literals, templates of tasks, records. When it is
// full it drops the value that was not used for longest. It stands beside the flow: the registry, the engine and executors use
// it.
//
// A cache is bounded by the sum of the weights of its values, which are estimates of bytes (weight.Decoded):
//
//	weight of all but the heavy value ≤ limit
//
// A value that alone is heavier than the limit is kept, too, because otherwise each use would read it again: the last of these
// values is kept beside all others, until another one comes.
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
	recent *list.List   // of entry, without heavy; the one that was used last in front
	heavy  *entry[K, V] // the last entry that is heavier than the limit; nil: none
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

// Get returns the value of a key. The value counts as used.
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

// Put stores the value of a key, in place of an older one, and drops the values that were not used for longest until the limit
// holds.
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
