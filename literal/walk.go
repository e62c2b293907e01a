package literal

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Walk shows visit every URI that the literal declares: of blobs, structured datasets, schemas and offloaded values, in
// collections, maps and unions. What visit stores in *uri is the literal's new URI. Nesting deeper than MaxDepth is not
// entered; Validate refuses such literals.
func Walk(l *core.Literal, visit func(uri *string)) { walk(l, visit, 0) }

// WalkMap is Walk over every literal of the map.
func WalkMap(m *core.LiteralMap, visit func(uri *string)) {
	for _, l := range m.GetLiterals() {
		walk(l, visit, 0)
	}
}

func walk(l *core.Literal, visit func(uri *string), depth int) {
	if depth > MaxDepth {
		return
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		switch s := v.Scalar.GetValue().(type) {
		case *core.Scalar_Blob:
			if s.Blob != nil {
				visit(&s.Blob.Uri)
			}
		case *core.Scalar_Schema:
			if s.Schema != nil {
				visit(&s.Schema.Uri)
			}
		case *core.Scalar_StructuredDataset:
			if s.StructuredDataset != nil {
				visit(&s.StructuredDataset.Uri)
			}
		case *core.Scalar_Union:
			walk(s.Union.GetValue(), visit, depth+1)
		}
	case *core.Literal_Collection:
		for _, e := range v.Collection.GetLiterals() {
			walk(e, visit, depth+1)
		}
	case *core.Literal_Map:
		for _, e := range v.Map.GetLiterals() {
			walk(e, visit, depth+1)
		}
	case *core.Literal_OffloadedMetadata:
		if v.OffloadedMetadata != nil {
			visit(&v.OffloadedMetadata.Uri)
		}
	}
}

// RewriteURIs replaces every URI of the map, in place, by what render gives for it, and also the strings inside structs (a
// dataclass with a file in it holds the file's location as plain text). So render must give back what is not a location it
// knows. Strings that are values by themselves are left alone.
//
// A struct that cannot be read stays as it was and is reported: everything else is rewritten nevertheless.
func RewriteURIs(m *core.LiteralMap, render func(uri string) string) error {
	WalkMap(m, func(uri *string) { *uri = render(*uri) })
	var failure error
	for name, l := range m.GetLiterals() {
		if err := rewriteStructs(l, render, 0); err != nil && failure == nil {
			failure = fmt.Errorf("rewrite locations in %s: %w", name, err)
		}
	}
	return failure
}

func rewriteStructs(l *core.Literal, render func(string) string, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	var failure error
	note := func(err error) {
		if failure == nil {
			failure = err
		}
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		switch s := v.Scalar.GetValue().(type) {
		case *core.Scalar_Union:
			return rewriteStructs(s.Union.GetValue(), render, depth+1)
		case *core.Scalar_Generic:
			rewriteStruct(structpb.NewStructValue(s.Generic), render, 0)
		case *core.Scalar_Binary:
			if s.Binary.GetTag() != MsgPackTag {
				return nil
			}
			var out bytes.Buffer
			p := newPacked(s.Binary.GetValue())
			if err := p.rewriteText(&out, render, 0); err != nil {
				return err
			}
			out.Write(p.data[p.offset():])
			s.Binary.Value = out.Bytes()
		}
	case *core.Literal_Collection:
		for _, e := range v.Collection.GetLiterals() {
			note(rewriteStructs(e, render, depth+1))
		}
	case *core.Literal_Map:
		for _, e := range v.Map.GetLiterals() {
			note(rewriteStructs(e, render, depth+1))
		}
	}
	return failure
}

func rewriteStruct(v *structpb.Value, render func(string) string, depth int) {
	if depth > MaxDepth {
		return
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		k.StringValue = render(k.StringValue)
	case *structpb.Value_ListValue:
		for _, e := range k.ListValue.GetValues() {
			rewriteStruct(e, render, depth+1)
		}
	case *structpb.Value_StructValue:
		for _, e := range k.StructValue.GetFields() {
			rewriteStruct(e, render, depth+1)
		}
	}
}
