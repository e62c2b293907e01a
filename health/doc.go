// Package health knows which of the services that attempts and executions need are away, since when and why, and notices
// when they are back.
//
// Between store (which keeps one row for each service, shared by all servers) and the packages that need services: an executor
// starts no attempt that needs a service which is away, an engine parks executions that need it, and both report when a service
// has failed (Failed).
//
//	        a failure, and its probe fails, too
//	well ───────────────────────────────────────▶ away ──┐ its probe is due: one server asks, and fails
//	 ▲                                             │  ▲  │
//	 └─────────────────────────────────────────────┘  └──┘ the next probe is twice as far away, up to a limit
//	        its probe is due: one server asks, and it works
//
// The failure of an attempt proves nothing: it may use a folder of its own that is broken. So before a service counts as away it
// is asked by a [Probe], a cheap operation of the server itself. The failure after which the probe failed is the only one that is
// charged for the outage. No attempt has to be tried to learn that the outage is over: the probe notices that.
//
// It relies on the store. While the store is away nothing new is learnt, and each server goes by what it knew.
package health
