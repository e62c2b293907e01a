package aloft

import (
	"errors"
	"fmt"
)

// The services that are the same for everybody. Those of one place are named by it: see WorkerOf and MachineOf.
const (
	ServiceDatabase = "the database"
	ServiceBlob     = "the blob store"
	ServiceCatalog  = "the catalog"
)

// WorkerOf names what runs the attempts of a place: a supervisor of processes, the API of a cluster.
func WorkerOf(place string) string { return "the worker of " + place }

// MachineOf names what a place has of a machine: its disk, its memory, its processes.
func MachineOf(place string) string { return "the machine of " + place }

// ServiceError says which service could not do its part. It is always an ErrUnavailable.
type ServiceError struct {
	Service string
	Err     error
}

func (e *ServiceError) Error() string   { return e.Service + ": " + e.Err.Error() }
func (e *ServiceError) Unwrap() []error { return []error{e.Err, ErrUnavailable} }

// Blame says that a service could not do its part, if that is what the error means (ErrUnavailable), nobody has said more
// exactly who it was, and nil otherwise stays nil.
func Blame(service string, err error) error {
	var known *ServiceError
	if err == nil || !errors.Is(err, ErrUnavailable) || errors.As(err, &known) {
		return err
	}
	return &ServiceError{Service: service, Err: err}
}

// ServiceOf is who could not do its part and why; empty: nobody is blamed.
func ServiceOf(err error) (service, reason string) {
	var known *ServiceError
	if !errors.As(err, &known) {
		return "", ""
	}
	return known.Service, known.Err.Error()
}

// WaitingFor is what people read of something that waits for a service.
func WaitingFor(service, since, reason string) string {
	return fmt.Sprintf("waiting for %s since %s: %s", service, since, reason)
}
