package engine

// Held counts what the engine has in memory that is not a cache of bounded size.
func (e *Engine) Held() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return map[string]int{
		"runs": len(e.runs), "ready": e.ready.len(), "idle": e.idle.Len(), "nodes": e.nodes, "timers": len(e.timers),
		"known messages": len(e.known), "bytes of messages": int(e.inboxBytes), "consumed messages": len(e.consumedSinceRead),
		"finished steps": e.finished.len(), "their rows": e.rows, "unsettled steps": len(e.unsettled),
	}
}
