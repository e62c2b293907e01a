package aloft

import (
	"errors"
	"fmt"
)

// The services that all servers share. The services of one place are named after it: see WorkerOf and MachineOf.
const (
	ServiceDatabase = "the database"
	ServiceBlob     = "the blob store"
	ServiceCatalog  = "the catalog"
)

// WorkerOf is the name of the service that runs the attempts of a place: a supervisor of processes, the API of a cluster.
func WorkerOf(place string) string { return "the worker of " + place }

// MachineOf is the name of the service that is the machine of a place: its disk, its memory, its processes.
func MachineOf(place string) string { return "the machine of " + place }

// ServiceError says which service could not do its part. It always wraps ErrUnavailable.
type ServiceError struct {
	Service string
	Err     error
}

func (e *ServiceError) Error() string   { return e.Service + ": " + e.Err.Error() }
func (e *ServiceError) Unwrap() []error { return []error{e.Err, ErrUnavailable} }

// Blame marks an error that wraps ErrUnavailable as one of a service. An error that names a service already, which was nearer
// to the fault, stays as it is, and so do all other errors and nil.
func Blame(service string, err error) error {
	var known *ServiceError
	if err == nil || !errors.Is(err, ErrUnavailable) || errors.As(err, &known) {
		return err
	}
	return &ServiceError{Service: service, Err: err}
}

// ServiceOf is the service that an error names, and the reason; empty: the error names none.
func ServiceOf(err error) (service, reason string) {
	var known *ServiceError
	if !errors.As(err, &known) {
		return "", ""
	}
	return known.Service, known.Err.Error()
}

// WaitingFor is the waiting reason of an execution, node or attempt that waits for a service.
func WaitingFor(service, since, reason string) string {
	return fmt.Sprintf("waiting for %s since %s: %s", service, since, reason)
}
