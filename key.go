package aloft

import "github.com/aloft-dev/aloft/idl/flyteidl/core"

// Key is the identifier of one version of a task, workflow or launch plan in a form that can be compared: the key of
// every map and cache of versions. Names and versions may have any characters, so a text that joins them is ambiguous
// (workflow "etl/load" version "v1" and workflow "etl" version "load/v1") and only for messages.
//
// Kind is zero in a map that holds versions of one kind only, because references do not always state their kind. The
// organisation is never compared.
type Key struct {
	Kind                           core.ResourceType
	Project, Domain, Name, Version string
}

// KeyOf is the key of an identifier without its kind; a nil identifier gives the zero key.
func KeyOf(id *core.Identifier) Key {
	return Key{Project: id.GetProject(), Domain: id.GetDomain(), Name: id.GetName(), Version: id.GetVersion()}
}

// Of is the key with a kind, for maps that hold versions of several kinds.
func (k Key) Of(kind core.ResourceType) Key {
	k.Kind = kind
	return k
}

// String is "task project/domain/name version v" for messages: never a key itself.
func (k Key) String() string {
	text := k.Project + "/" + k.Domain + "/" + k.Name
	if k.Kind != core.ResourceType_UNSPECIFIED {
		text = Kind(k.Kind) + " " + text
	}
	if k.Version != "" {
		text += " version " + k.Version
	}
	return text
}
