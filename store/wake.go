package store

import "sync"

// Hub is the Wakes of one process: what both implementations embed. The zero value is ready.
//
// Each subscription is one channel with room for one wake-up: a burst becomes one wake-up, a wake-up that comes while the
// subscriber works stays in the channel until the subscriber receives again, and Wake never blocks. There is no goroutine for
// a subscription.
type Hub struct {
	mu     sync.Mutex
	topics map[Topic]map[chan struct{}]struct{}
}

// Subscribe returns a channel that receives after every Wake of the topic, until cancel is called. Look at the store after
// Subscribe and before the first wait: what was committed before is not announced.
func (h *Hub) Subscribe(topic Topic) (wake <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics == nil {
		h.topics = make(map[Topic]map[chan struct{}]struct{})
	}
	if h.topics[topic] == nil {
		h.topics[topic] = make(map[chan struct{}]struct{})
	}
	h.topics[topic][c] = struct{}{}
	return c, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.topics[topic], c)
		if len(h.topics[topic]) == 0 {
			delete(h.topics, topic) // one topic per execution: they must not pile up
		}
	}
}

// Wake announces that something under these topics was committed. Call it after the commit, never before.
func (h *Hub) Wake(topics ...Topic) {
	if len(topics) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, topic := range topics {
		for c := range h.topics[topic] {
			select {
			case c <- struct{}{}:
			default: // a wake-up is in the channel already, and stands for this one too
			}
		}
	}
}

// WakeAll announces that something may have been committed under any topic.
func (h *Hub) WakeAll() {
	h.mu.Lock()
	topics := make([]Topic, 0, len(h.topics))
	for topic := range h.topics {
		topics = append(topics, topic)
	}
	h.mu.Unlock()
	h.Wake(topics...)
}
