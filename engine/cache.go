package engine

import (
	"container/list"
	"sync"
)

// cache keeps what never changes, the most recently used of it, up to a total weight.
type cache[K comparable, V any] struct {
	limit int64

	mu     sync.Mutex
	weight int64
	byKey  map[K]*list.Element
	recent *list.List // front: used last
}

type cached[K comparable, V any] struct {
	key    K
	value  V
	weight int64
}

func newCache[K comparable, V any](limit int64) *cache[K, V] {
	return &cache[K, V]{limit: limit, byKey: make(map[K]*list.Element), recent: list.New()}
}

func (c *cache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byKey[key]
	if !ok {
		return value, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(cached[K, V]).value, true //nolint:forcetypeassert // the list holds nothing else
}

// put keeps the value unless it alone is heavier than all there may be.
func (c *cache[K, V]) put(key K, value V, weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok || weight > c.limit {
		return
	}
	c.byKey[key] = c.recent.PushFront(cached[K, V]{key, value, weight})
	c.weight += weight
	for c.weight > c.limit {
		last := c.recent.Back()
		old := c.recent.Remove(last).(cached[K, V]) //nolint:forcetypeassert // the list holds nothing else
		delete(c.byKey, old.key)
		c.weight -= old.weight
	}
}
