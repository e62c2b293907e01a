// Package idl holds the protocol: Flyte's own definitions, generated from the flyteidl wheel that Flyte publishes, and
// the services aloft adds to them.
//
//   - idl/flyteidl/{core,admin,service,event,plugins,datacatalog,cacheservice} is generated and never edited. There are
//     no .proto files for it here: the wheel carries the compiled descriptors and those are what we generate from.
//   - idl/aloft/v1 holds our services, written by hand as .proto files next to the Go generated from them. They only
//     ever grow: a field number or a method is never reused or renumbered.
//   - idl/gen is the generator. It pins every tool and input it uses, so equal sources give equal files.
//
// It comes before everything: every station that speaks to a client or writes a record uses these messages as they are.
// Generated files are committed, so nobody needs the generator in order to build.
//
// To regenerate everything, run
//
//	go generate ./idl
//
// and after a change to one of our own .proto files, which takes seconds,
//
//	go run ./idl/gen aloft
package idl

//go:generate go run ./gen -root ..
