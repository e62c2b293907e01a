package compiler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Code is Flyte's name for a kind of mistake. The names are Flyte's, because programs and users look for them.
type Code string

const (
	CycleDetected                 Code = "CycleDetected"
	ValueRequired                 Code = "ValueRequired"
	InvalidValue                  Code = "InvalidValue"
	UnrecognizedValue             Code = "UnrecognizedValue"
	NodeReferenceNotFound         Code = "NodeReferenceNotFound"
	TaskReferenceNotFound         Code = "TaskReferenceNotFound"
	WorkflowReferenceNotFound     Code = "WorkflowReferenceNotFound"
	VariableNameNotFound          Code = "VariableNameNotFound"
	DuplicateAlias                Code = "DuplicateAlias"
	DuplicateID                   Code = "DuplicateId"
	MismatchingTypes              Code = "MismatchingTypes"
	MismatchingBindings           Code = "MismatchingBindings"
	ParameterBoundMoreThanOnce    Code = "ParameterBoundMoreThanOnce"
	ParameterNotBound             Code = "ParameterNotBound"
	UnreachableNodes              Code = "UnreachableNodes"
	WorkflowBuildError            Code = "WorkflowBuildError"
	NoNodesFound                  Code = "NoNodesFound"
	BranchNodeHasNoDefault        Code = "BranchNodeHasNoDefault"
	BranchNodeHasNoCondition      Code = "BranchNodeHasNoCondition"
	BranchNodeIDNotFound          Code = "BranchNodeIdNotFound"
	IllegalEnumValue              Code = "IllegalEnumValue"
	AmbiguousBindingUnionValue    Code = "AmbiguousBindingUnionValue"
	IncompatibleBindingUnionValue Code = "IncompatibleBindingUnionValue"
	FieldNotFound                 Code = "FieldNotFound"
	InvalidLiteralType            Code = "InvalidLiteralType"
	Unsupported                   Code = "Unsupported" // not a code of Flyte: a part of the protocol that this release does not have yet
)

// Error is one mistake.
type Error struct {
	Code        Code
	NodeID      string // the node with the mistake; the id of the task or the workflow if the mistake concerns no node
	Workflow    string // the name of the sub-workflow with the mistake; empty: the workflow itself
	Description string
}

func (e Error) String() string {
	s := fmt.Sprintf("Code: %s, Node Id: %s, Description: %s", e.Code, e.NodeID, e.Description)
	if e.Workflow != "" {
		s += fmt.Sprintf(" (in sub-workflow %s)", e.Workflow)
	}
	return s
}

// Errors are all mistakes of a request, each once, sorted by code and then text. They wrap aloft.ErrInvalid.
type Errors []Error

// maxErrorsShown is how many mistakes a message lists: one wrong interface can cause a mistake at each of 50,000 nodes.
const maxErrorsShown = 200

func (e Errors) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Collected Errors: %d\n", len(e))
	for i, one := range e[:min(len(e), maxErrorsShown)] {
		fmt.Fprintf(&b, "\tError %d: %s\n", i, one)
	}
	if more := len(e) - maxErrorsShown; more > 0 {
		fmt.Fprintf(&b, "\tand %d more\n", more)
	}
	return b.String()
}

func (e Errors) Unwrap() error { return aloft.ErrInvalid }

func (e *Errors) add(code Code, node, format string, args ...any) {
	*e = append(*e, Error{Code: code, NodeID: aloft.Excerpt(node), Description: aloft.Messagef(format, args...)})
}

// err is the collected mistakes, sorted and each once, or nil.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	type keyed struct {
		Error
		text string
	}
	all := make([]keyed, len(e))
	for i, one := range e {
		all[i] = keyed{one, one.String()}
	}
	slices.SortFunc(all, func(a, b keyed) int {
		if a.Code != b.Code {
			return strings.Compare(string(a.Code), string(b.Code))
		}
		return strings.Compare(a.text, b.text)
	})
	all = slices.CompactFunc(all, func(a, b keyed) bool { return a.Error == b.Error })
	out := make(Errors, len(all))
	for i, one := range all {
		out[i] = one.Error
	}
	return out
}

// describe writes an id as Flyte's messages do.
func describe(id *core.Identifier) string {
	return fmt.Sprintf("resource_type:%s project:%q domain:%q name:%q version:%q",
		id.GetResourceType(), aloft.Excerpt(id.GetProject()), aloft.Excerpt(id.GetDomain()), aloft.Excerpt(id.GetName()), aloft.Excerpt(id.GetVersion()))
}
