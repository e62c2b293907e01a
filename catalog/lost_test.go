package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/blob/folder"
	"github.com/aloft-dev/aloft/catalog"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func TestOutputsAreLostIfAnObjectThatTheyReferToIsNotAsItWasStored(t *testing.T) {
	t.Parallel()
	scalar := func(s *core.Scalar) *core.Literal {
		return &core.Literal{Value: &core.Literal_Scalar{Scalar: s}}
	}
	file := func(uri string) *core.Literal {
		return scalar(&core.Scalar{Value: &core.Scalar_Blob{Blob: &core.Blob{Uri: uri}}})
	}
	text := func(s string) *core.Literal {
		return scalar(&core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}}}})
	}
	dataclass := func(uri string) *core.Literal {
		return scalar(&core.Scalar{Value: &core.Scalar_Generic{Generic: &structpb.Struct{Fields: map[string]*structpb.Value{"path": structpb.NewStringValue(uri)}}}})
	}
	both := func(a, b *core.Literal) *core.Literal {
		return &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{a, b}}}}
	}
	const one, dir = blob.Key("raw/one"), blob.Key("raw/dir")
	type damage = func(t *testing.T, s *folder.Store)
	remove := func(keys ...blob.Key) damage {
		return func(t *testing.T, s *folder.Store) {
			for _, key := range keys {
				if err := os.RemoveAll(s.Path(key)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write := func(key blob.Key) damage {
		return func(t *testing.T, s *folder.Store) {
			_ = os.Chmod(s.Path(key), 0o644)
			if err := os.WriteFile(s.Path(key), []byte("written"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		output *core.Literal
		damage damage
		want   string // empty: nothing is lost
	}{
		"a file":                          {file(one.URI()), nil, ""},
		"a folder":                        {file(dir.URI() + "/"), nil, ""},
		"an empty folder":                 {file("aloft://blob/raw/empty"), nil, ""},
		"a place of others":               {file("s3://bucket/x"), nil, ""},
		"a removed file":                  {file(one.URI()), remove(one), one.URI() + " is missing"},
		"a removed folder":                {file(dir.URI()), remove(dir), dir.URI() + " is missing"},
		"a removed empty folder":          {file("aloft://blob/raw/empty"), remove("raw/empty"), "aloft://blob/raw/empty is missing"},
		"a changed file":                  {file(one.URI()), write(one), one.URI() + " is not what was written"},
		"a file changed in a folder":      {file(dir.URI()), write(dir + "/b"), "raw/dir/b: it was changed after it was stored"},
		"a file removed from a folder":    {file(dir.URI()), remove(dir + "/a"), dir.URI() + " is not what was written"},
		"all files removed from a folder": {file(dir.URI()), remove(dir+"/a", dir+"/b"), dir.URI() + " is not what was written"},
		"a file added to a folder":        {file(dir.URI()), write(dir + "/c"), dir.URI() + " is not what was written"},
		"a file put into an empty folder": {file("aloft://blob/raw/empty"), write("raw/empty/x"), "aloft://blob/raw/empty is not what was written"},
		"a dataclass with a file":         {dataclass(one.URI()), remove(one), one.URI() + " is missing"},
		"a text that names an object":     {text(one.URI()), remove(one), ""},
		"a file and its text":             {both(file(one.URI()), text(one.URI())), remove(one), one.URI() + " is missing"},
		"a dataclass's file and its text": {both(dataclass(one.URI()), text(one.URI())), remove(one), one.URI() + " is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := folder.Open(filepath.Join(t.TempDir(), "blob"))
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range []blob.Key{one, dir + "/a", dir + "/b"} {
				if _, err := s.Put(t.Context(), key, strings.NewReader("stored"), blob.PutOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(s.Path("raw/empty"), 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Adopt(t.Context(), "raw"); err != nil {
				t.Fatal(err)
			}
			if c.damage != nil {
				c.damage(t, s)
			}
			catalogue := &catalog.Catalog{Blob: s}
			got, err := catalogue.Lost(t.Context(), &aloftv1.Literals{Value: &core.LiteralMap{Literals: map[string]*core.Literal{"o0": c.output}}})
			if err != nil || c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("lost is %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestOutputsThatAreAnObjectAreLostWithIt(t *testing.T) {
	t.Parallel()
	s, err := folder.Open(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	large := &core.LiteralMap{Literals: map[string]*core.Literal{"o0": {Hash: strings.Repeat("x", aloft.MaxInlineLiterals+1)}}}
	outputs, err := blob.Literals{Store: s}.WriteLiterals(t.Context(), large)
	if err != nil {
		t.Fatal(err)
	}
	c := &catalog.Catalog{Blob: s}
	if got, err := c.Lost(t.Context(), outputs); got != "" || err != nil {
		t.Errorf("lost is %q, %v; want nothing", got, err)
	}
	key, err := blob.ParseURI(outputs.GetRef().GetUri())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path(key)); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Lost(t.Context(), outputs); !strings.Contains(got, "is missing") || err != nil {
		t.Errorf("lost is %q, %v; want that the object is missing", got, err)
	}
}

// A result whose record cannot be understood is no hit and no error: it is removed, with the reason.
func TestAResultWhoseRecordIsDamagedIsNotUsed(t *testing.T) {
	t.Parallel()
	s := &results{}
	c := &catalog.Catalog{Store: s}
	reason, err := c.Use(t.Context(), &store.Result{ID: "r", Unreadable: aloft.ErrUnreadable})
	if err != nil || !strings.Contains(reason, "its record cannot be understood") {
		t.Errorf("Use gives reason %q, error %v", reason, err)
	}
}
