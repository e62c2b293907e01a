package registry

import (
	"container/list"
	"sync"

	"github.com/aloft-dev/aloft"
)

// cache keeps the values that were used last. Values never change, so none becomes old.
type cache[V any] struct {
	mu    sync.Mutex
	size  int
	order *list.List // of *entry[V], the last used first
	byKey map[aloft.Key]*list.Element
}

type entry[V any] struct {
	key   aloft.Key
	value V
}

func newCache[V any](size int) *cache[V] {
	return &cache[V]{size: size, order: list.New(), byKey: map[aloft.Key]*list.Element{}}
}

func (c *cache[V]) get(key aloft.Key) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*entry[V]).value, true //nolint:forcetypeassert // the list holds nothing else
}

func (c *cache[V]) put(key aloft.Key, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.byKey[key]; ok {
		element.Value.(*entry[V]).value = value
		c.order.MoveToFront(element)
		return
	}
	c.byKey[key] = c.order.PushFront(&entry[V]{key, value})
	if c.order.Len() > c.size {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byKey, last.Value.(*entry[V]).key)
	}
}
