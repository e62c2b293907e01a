// Package aloft is the vocabulary of the whole program: typed ids, phase rules, limits and sentinel errors.
//
// Every package imports it and it imports only idl, so it holds no logic that needs a clock, a disk or a network.
// Phases and messages are Flyte's own (package idl/flyteidl); only what Flyte's protocol has no word for is defined here.
package aloft
