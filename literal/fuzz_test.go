package literal_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

// FuzzLiteral: no function of the package panics for a literal and a type that can be decoded, and their answers are consistent.
func FuzzLiteral(f *testing.F) {
	for _, form := range flytekitForms(f) {
		l, _ := proto.Marshal(form.lit)
		t, _ := proto.Marshal(form.typ)
		f.Add(l, t)
	}
	deep := noneLit()
	for range 3 * literal.MaxDepth {
		deep = listLit(deep)
	}
	b, _ := proto.Marshal(deep)
	t, _ := proto.Marshal(withSchema(object, recursive))
	f.Add(b, t)
	f.Add([]byte("\x0a\x00"), []byte("\x52\x00"))
	f.Fuzz(func(t *testing.T, l, ty []byte) {
		var lit core.Literal
		var declared core.LiteralType
		if proto.Unmarshal(l, &lit) != nil || proto.Unmarshal(ty, &declared) != nil {
			t.Skip()
		}
		inputs := literals("x", &lit)
		inferred, err := literal.TypeOf(&lit)
		if err == nil {
			literal.Castable(&declared, inferred)
			if literal.Castable(inferred, &declared) != literal.Castable(proto.CloneOf(inferred), proto.CloneOf(&declared)) {
				t.Error("a copy of a type casts differently")
			}
		}
		if literal.Validate(inputs) == nil && err != nil && inferredDepthOK(&lit) {
			t.Errorf("valid but without a type: %v", err)
		}
		_ = literal.CheckType(&declared)
		_ = literal.CheckValue(&lit, &declared)
		literal.Print(&lit)
		literal.PrintMax(&lit, 10)
		literal.PrintType(&declared)
		_, _ = literal.Text(&lit, 1<<10)
		for _, p := range [][]*core.PromiseAttribute{path("a"), path(0), path(0, "a"), path("k", 0, "z")} {
			_, _ = literal.Attribute(&lit, p, &declared)
		}
		if literal.HashInputs(inputs, nil) != literal.HashInputs(proto.CloneOf(inputs), nil) {
			t.Error("a copy hashes differently")
		}
		if literal.StructureDigest(&declared) != literal.StructureDigest(proto.CloneOf(&declared)) {
			t.Error("a copy of a type hashes differently")
		}
		literal.HashVariableMap(&core.VariableMap{Variables: map[string]*core.Variable{"x": {Type: &declared}}})
		before, err := literal.Digest(inputs)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		_ = literal.RewriteURIs(inputs, func(uri string) (string, error) {
			seen[uri] = true
			return uri, nil
		})
		if after, err := literal.Digest(inputs); err != nil || after != before {
			t.Errorf("rewriting every location to itself changed the literal: %v", err)
		}
		if references := literal.References(inputs, func(text string) (string, bool) { return text, true }); len(references) != len(seen) {
			t.Errorf("%d references, and %d texts that are rewritten", len(references), len(seen))
		}
	})
}

// inferredDepthOK says whether the inferred type is not too deep. It may be: an offloaded literal states any type, which
// Validate does not check.
func inferredDepthOK(l *core.Literal) bool {
	ok := true
	literal.Walk(l, func(*string) {})
	var walk func(*core.Literal)
	walk = func(l *core.Literal) {
		if l.GetOffloadedMetadata() != nil {
			ok = false
		}
		walkChildren(l, walk)
	}
	walk(l)
	return ok
}

func walkChildren(l *core.Literal, f func(*core.Literal)) {
	for _, e := range l.GetCollection().GetLiterals() {
		f(e)
	}
	for _, e := range l.GetMap().GetLiterals() {
		f(e)
	}
	if u := l.GetScalar().GetUnion(); u != nil && u.GetValue() != nil {
		f(u.GetValue())
	}
}
