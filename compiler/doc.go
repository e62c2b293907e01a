// Package compiler turns what a client registers into what runs: a compiled task, a compiled workflow closure or a launch
// plan with its expected inputs, or the complete list of what is wrong with it.
//
// It comes after api and registry, which load what a workflow refers to (Requirements) and store the result, and before
// launch, which launches only compiled workflows. It is pure: the same request gives a closure with the same structure digest, by
// which the registry tells whether a second registration is identical.
//
// It relies on package literal for types and on nothing else. It trusts nothing about its input except that it was decoded
// by the protobuf runtime: nesting and size are bounded here (literal.MaxDepth, aloft.MaxWorkflowNodes), and each bound has its message.
//
//	Requirements ─▶ (registry loads tasks) ─▶ CompileWorkflow
//	                                              │ for the workflow and every sub-workflow it reaches, once each:
//	                                              │   nodes and their interfaces     workflow.go, node.go, one file per kind of node
//	                                              │   edges, stated and from data    graph.go
//	                                              │   bindings against interfaces    binding.go
//	                                              ▼   everything can be reached      graph.go
//	                                  CompiledWorkflowClosure, or Errors
//
// The rules are those of Flyte's compiler; docs/differences.md lists the exceptions.
package compiler
