// Package health knows which of the services that attempts and executions need are away, since when and why, and notices
// when they are back.
//
// Between store (which keeps one row for each service, shared by all servers) and those who need services: an executor
// starts nothing that needs a service which is away, an engine lets executions wait for it, and both tell when one has
// failed them.
//
//	        a failure, and its probe fails, too
//	well ───────────────────────────────────────▶ away ──┐ its probe is due: one server asks, and fails
//	 ▲                                             │  ▲  │
//	 └─────────────────────────────────────────────┘  └──┘ the next probe is twice as far away, up to a limit
//	        its probe is due: one server asks, and it works
//
// A failure alone proves nothing: an attempt may have a folder of its own that nobody can use. So the service is asked by
// a [Probe], a cheap operation of our own, before it counts as away; the one failure that made it so is the one that is
// charged for the outage. No attempt is sacrificed to learn that it is over: the probe notices that.
//
// It relies on the store. While that is away nothing new is known: what is known holds.
package health
