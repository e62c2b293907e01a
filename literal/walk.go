package literal

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Walk calls visit for every URI that a literal declares: of blobs, structured datasets, schemas and offloaded values, also in
// collections, maps and unions. visit may change *uri, which changes the literal. Literals below MaxDepth are not visited; Validate
// refuses them.
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

// Deep says whether collections, maps and unions are nested in a literal deeper than MaxDepth.
func Deep(l *core.Literal) bool { return deep(l, 0) }

func deep(l *core.Literal, depth int) bool {
	if depth > MaxDepth {
		return true
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		if u := v.Scalar.GetUnion(); u != nil {
			return deep(u.GetValue(), depth+1)
		}
	case *core.Literal_Collection:
		for _, e := range v.Collection.GetLiterals() {
			if deep(e, depth+1) {
				return true
			}
		}
	case *core.Literal_Map:
		for _, e := range v.Map.GetLiterals() {
			if deep(e, depth+1) {
				return true
			}
		}
	}
	return false
}

// ReferenceKind is the way in which a value refers to a location. A larger kind is stronger.
type ReferenceKind int

const (
	InText   ReferenceKind = iota + 1 // a string that is a value of its own, and perhaps no location at all
	InStruct                          // a text in a struct, such as the location of a file in a dataclass
	Declared                          // a URI that Walk visits
)

// References are the locations to which the map refers, each with the strongest kind of its references. nameOf gives the name of a
// location, under which it is returned; false: the text is none that matters. The map is not changed. If a struct cannot be read to
// its end, the locations before that place count.
func References[Name comparable](m *core.LiteralMap, nameOf func(text string) (Name, bool)) map[Name]ReferenceKind {
	found := map[Name]ReferenceKind{}
	note := func(text string, kind ReferenceKind) {
		if name, ok := nameOf(text); ok {
			found[name] = max(found[name], kind)
		}
	}
	WalkMap(m, func(uri *string) { note(*uri, Declared) })
	for _, l := range m.GetLiterals() {
		_ = rewriteTexts(l, func(text string, kind ReferenceKind) string {
			note(text, kind)
			return text
		}, 0)
	}
	return found
}

// WalkFolders is WalkMap for the URIs of folders (FlyteDirectory) alone.
func WalkFolders(m *core.LiteralMap, visit func(uri *string)) {
	scalars(m, func(s *core.Scalar) {
		if s.GetBlob().GetMetadata().GetType().GetDimensionality() == core.BlobType_MULTIPART {
			visit(&s.GetBlob().Uri)
		}
	})
}

// scalars calls visit for all scalars of the map, also in collections, maps and unions.
func scalars(m *core.LiteralMap, visit func(*core.Scalar)) {
	for _, l := range m.GetLiterals() {
		scalarsOf(l, visit, 0)
	}
}

func scalarsOf(l *core.Literal, visit func(*core.Scalar), depth int) {
	if depth > MaxDepth {
		return
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		visit(v.Scalar)
		if u := v.Scalar.GetUnion(); u != nil {
			scalarsOf(u.GetValue(), visit, depth+1)
		}
	case *core.Literal_Collection:
		for _, e := range v.Collection.GetLiterals() {
			scalarsOf(e, visit, depth+1)
		}
	case *core.Literal_Map:
		for _, e := range v.Map.GetLiterals() {
			scalarsOf(e, visit, depth+1)
		}
	}
}

// RewriteURIs replaces every URI of the map, in place, by the result of render. It does the same with texts, because a
// dataclass has the location of its file as a text, and a program may pass the location of an upload on as a string. So render
// must return a text that is no known location as it is. A text for which render returns an error stays as it is.
//
// The error names all URIs that render refused and all structs that cannot be read. These stay as they are, all others are
// rewritten.
func RewriteURIs(m *core.LiteralMap, render func(uri string) (string, error)) error {
	var problems []error
	WalkMap(m, func(uri *string) {
		rendered, err := render(*uri)
		if err != nil {
			problems = append(problems, err)
			return
		}
		*uri = rendered
	})
	text := func(s string, _ ReferenceKind) string {
		if rendered, err := render(s); err == nil {
			return rendered
		}
		return s
	}
	for name, l := range m.GetLiterals() {
		if err := rewriteTexts(l, text, 0); err != nil {
			problems = append(problems, fmt.Errorf("rewrite locations in %s: %w", name, err))
		}
	}
	return errors.Join(problems...)
}

// rewriteTexts replaces every text by the result of render. It writes only texts that differ.
func rewriteTexts(l *core.Literal, render func(text string, kind ReferenceKind) string, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	inStruct := func(text string) string { return render(text, InStruct) }
	var failure error
	note := func(err error) {
		if failure == nil {
			failure = err
		}
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		switch s := v.Scalar.GetValue().(type) {
		case *core.Scalar_Primitive:
			if text, ok := s.Primitive.GetValue().(*core.Primitive_StringValue); ok {
				if rendered := render(text.StringValue, InText); rendered != text.StringValue {
					text.StringValue = rendered
				}
			}
		case *core.Scalar_Union:
			return rewriteTexts(s.Union.GetValue(), render, depth+1)
		case *core.Scalar_Generic:
			rewriteStruct(structpb.NewStructValue(s.Generic), inStruct, 0)
		case *core.Scalar_Binary:
			if s.Binary.GetTag() != MsgPackTag {
				return nil
			}
			var out bytes.Buffer
			p := newPackedReader(s.Binary.GetValue())
			if err := p.rewriteText(&out, inStruct, 0); err != nil {
				return err
			}
			out.Write(p.data[p.offset():])
			if !bytes.Equal(out.Bytes(), s.Binary.GetValue()) {
				s.Binary.Value = out.Bytes()
			}
		}
	case *core.Literal_Collection:
		for _, e := range v.Collection.GetLiterals() {
			note(rewriteTexts(e, render, depth+1))
		}
	case *core.Literal_Map:
		for _, e := range v.Map.GetLiterals() {
			note(rewriteTexts(e, render, depth+1))
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
		if rendered := render(k.StringValue); rendered != k.StringValue {
			k.StringValue = rendered
		}
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
