package engine

// Held counts what the engine has in memory that is not a cache of bounded size.
func (e *Engine) Held() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return map[string]int{
		"runs": len(e.runs), "ready": e.ready.len(), "idle": e.memory.idle.Len(), "bytes of runs": int(e.memory.bytes), "timers": e.timers.len(),
		"known messages": len(e.inboxes.known), "bytes of messages": int(e.inboxes.bytes), "consumed messages": len(e.inboxes.consumed),
		"finished steps": e.uncommitted.len(), "their rows": e.uncommittedRows, "their bytes": int(e.uncommittedBytes), "unsettled steps": len(e.unsettled),
	}
}
