package machine

// room says whether one more task node may run.
func (s *State) room() bool {
	limit := s.create.GetMaxParallelism()
	return limit == 0 || s.tasks < limit
}

// begin gives a queued task node its first attempt.
func (t *step) begin(i uint32) error {
	if t.spec(i).byEngine != "" {
		if err := t.decide(nodeRunning(t.at, i, t.at)); err != nil {
			return err
		}
		return t.schedule(i, attemptPlan{})
	}
	checkpoint, err := t.checkpoint(i)
	if err != nil {
		return err
	}
	return t.schedule(i, attemptPlan{checkpoint: checkpoint})
}
