package simulation

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/health"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

const (
	serviceAway   = "a service is away for hours"
	outageCharged = "a failure by a service is charged"
	outageSpared  = "a failure by a service that is known to be away is not charged"
)

// codeServiceAway is the failure of attempts in an outage.
const codeServiceAway = "ServiceAway"

// longestLook is after how long at most an engine tries a parked execution again that health has not woken.
const longestLook = 5 * time.Minute

// serviceOf is the service that a call of the world is made to; empty: the database.
func serviceOf(op string) string {
	switch op {
	case "Put", "Get", "Check", "List", "Adopt objects":
		return aloft.ServiceBlob
	case "FindResult", "FindResults", "Reserve", "RemoveResults":
		return aloft.ServiceCatalog
	}
	return ""
}

// probes are those of the services that can be away.
func (w *world) probes() map[string]health.Probe {
	probe := func(op string) health.Probe {
		return func(context.Context) error {
			if w.drawMishap(op) != goesWell {
				return unavailable(op)
			}
			return nil
		}
	}
	return map[string]health.Probe{aloft.ServiceBlob: probe("List"), aloft.ServiceCatalog: probe("FindResult")}
}

// outage lets the world live for one to three hours without one of its services, at most once, and without other faults.
func (w *world) outage(r *rand.Rand) {
	if w.outages > 0 || r.IntN(2) == 0 {
		return
	}
	w.outages = 1
	w.away = []string{aloft.ServiceBlob, aloft.ServiceBlob, aloft.ServiceCatalog}[r.IntN(3)]
	until := w.elapsed + time.Hour + time.Duration(r.IntN(120))*time.Minute
	w.tell("%s is away until %s", w.away, until)
	for i := 0; w.elapsed < until && w.broken == nil; i++ {
		w.pass(w.engines[i%len(w.engines)])
		w.executors[i%len(w.executors)].pass()
		if i%2 == 0 {
			w.elapsed += 7 * time.Second
		}
		if i%16 == 0 {
			w.create(r.IntN(len(w.plan.executions)))
			w.checkStuck()
		}
	}
	w.tell("%s is back", w.away)
	w.away = ""
}

// serviceFailure is the outcome of a task that could not read or write an object, as an executor reports it: with what package
// health knows of the service.
func (x *fakeExecutor) serviceFailure(j *job) *aloftv1.Outcome {
	o := x.outcome(j)
	f := &aloftv1.Failure{Recoverable: true, Error: &core.ExecutionError{
		Code: codeServiceAway, Kind: core.ExecutionError_SYSTEM, Message: "its outputs could not be written",
	}}
	s, first := x.host.health.Failed(x.world.ctx, x.world.away, "it does not answer")
	if s.Away() {
		f.Service = s.Name
		if !first {
			f.ServiceAwaySince = s.AwaySince.UnixNano()
		}
		if !s.WellAt.IsZero() {
			f.ServiceWellAt = s.WellAt.UnixNano()
		}
	}
	o.Result = &aloftv1.Outcome_Failure{Failure: f}
	return o
}

// checkCharge is P4 for outages: one failure is charged for an outage, in all executions together.
func (w *world) checkCharge(ended *aloftv1.AttemptEnded) {
	switch f := ended.GetFailure(); {
	case f.GetService() == "":
	case ended.GetBudget() == aloftv1.AttemptEnded_SYSTEM:
		w.count(outageCharged)
		if w.chargedFailures++; w.chargedFailures > w.outages {
			w.fail("P4: %d failures were charged in one outage", w.chargedFailures)
		}
	case ended.GetBudget() == aloftv1.AttemptEnded_USER:
		w.fail("P4: an outage was charged to the user: %v", ended)
	default:
		w.count(outageSpared)
	}
}
