package literal

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Castable says whether a value of type up may be assigned where type down is declared. The rules are Flyte's compiler's:
// no numeric widening, no wrapping of a value into a list, a union takes what exactly one of its variants takes.
//
// In two cases it accepts what Flyte refuses. NONE for a union of a dataset and NONE is the NONE variant (Flyte finds it ambiguous,
// so that an optional DataFrame could have no default). If several variants of a union accept a type, the variant of the same type
// is taken: a file for the file of Union[FlyteFile, FlyteDirectory], a dataclass for its own among several.
func Castable(up, down *core.LiteralType) bool { return castable(up, down, 0) }

func castable(up, down *core.LiteralType, depth int) bool {
	if depth > MaxDepth || up.GetType() == nil || down.GetType() == nil {
		return false
	}
	// The type of a union value is a union of the one variant it holds.
	for i := 0; i <= MaxDepth; i++ {
		u, ok := up.GetType().(*core.LiteralType_UnionType)
		if !ok || len(u.UnionType.GetVariants()) != 1 {
			break
		}
		up = u.UnionType.GetVariants()[0]
	}
	switch d := down.GetType().(type) {
	case *core.LiteralType_UnionType:
		return castableToUnion(up, d.UnionType.GetVariants(), depth)
	case *core.LiteralType_Simple:
		return castableToSimple(up, down)
	case *core.LiteralType_EnumType:
		switch u := up.GetType().(type) {
		case *core.LiteralType_Simple:
			return u.Simple == core.SimpleType_STRING
		case *core.LiteralType_EnumType:
			return sameTag(up, down) && slices.Equal(u.EnumType.GetValues(), d.EnumType.GetValues())
		}
	case *core.LiteralType_CollectionType:
		if u, ok := up.GetType().(*core.LiteralType_CollectionType); ok {
			return isNone(u.CollectionType) || castable(u.CollectionType, d.CollectionType, depth+1)
		}
	case *core.LiteralType_MapValueType:
		if u, ok := up.GetType().(*core.LiteralType_MapValueType); ok {
			return isNone(u.MapValueType) || castable(u.MapValueType, d.MapValueType, depth+1)
		}
	case *core.LiteralType_Blob:
		if u, ok := up.GetType().(*core.LiteralType_Blob); ok {
			// Flyte does not compare the dimensionality.
			return u.Blob.GetFormat() == d.Blob.GetFormat() || u.Blob.GetFormat() == "" || d.Blob.GetFormat() == ""
		}
	case *core.LiteralType_Schema:
		switch u := up.GetType().(type) {
		case *core.LiteralType_Schema:
			return castableColumns(schemaColumns(u.Schema), schemaColumns(d.Schema), depth)
		case *core.LiteralType_StructuredDatasetType:
			return parquet(u.StructuredDatasetType) && castableColumns(u.StructuredDatasetType.GetColumns(), schemaColumns(d.Schema), depth)
		}
	case *core.LiteralType_StructuredDatasetType:
		switch u := up.GetType().(type) {
		case *core.LiteralType_Simple:
			return u.Simple == core.SimpleType_NONE
		case *core.LiteralType_Schema:
			return parquet(d.StructuredDatasetType) && castableColumns(schemaColumns(u.Schema), d.StructuredDatasetType.GetColumns(), depth)
		case *core.LiteralType_StructuredDatasetType:
			uf, df := u.StructuredDatasetType.GetFormat(), d.StructuredDatasetType.GetFormat()
			if uf != "" && df != "" && !strings.EqualFold(uf, df) {
				return false
			}
			return castableColumns(u.StructuredDatasetType.GetColumns(), d.StructuredDatasetType.GetColumns(), depth)
		}
	}
	return false
}

func castableToUnion(up *core.LiteralType, variants []*core.LiteralType, depth int) bool {
	if u, ok := up.GetType().(*core.LiteralType_UnionType); ok {
		if n := len(u.UnionType.GetVariants()); n == 0 || n > maxVariants {
			return false
		}
		for _, uv := range u.UnionType.GetVariants() {
			if !slices.ContainsFunc(variants, func(dv *core.LiteralType) bool { return castable(uv, dv, depth+1) }) {
				return false
			}
		}
		return true
	}
	return Variant(up, variants) >= 0
}

// Variant is the index of the one variant of a union that accepts a type; -1 if none does, or several.
func Variant(up *core.LiteralType, variants []*core.LiteralType) int {
	if isNone(up) {
		if i := slices.IndexFunc(variants, isNone); i >= 0 {
			return i
		}
	}
	var accepting []int
	for i, v := range variants {
		if castable(up, v, 1) {
			accepting = append(accepting, i)
		}
	}
	if len(accepting) > 1 {
		accepting = slices.DeleteFunc(accepting, func(i int) bool { return !sameTag(up, variants[i]) || !sameType(up, variants[i]) })
	}
	if len(accepting) != 1 {
		return -1
	}
	return accepting[0]
}

func castableToSimple(up, down *core.LiteralType) bool {
	d := down.GetSimple()
	switch u := up.GetType().(type) {
	case *core.LiteralType_EnumType:
		return d == core.SimpleType_STRING
	case *core.LiteralType_Simple:
		if u.Simple == core.SimpleType_NONE || d == core.SimpleType_NONE {
			return u.Simple == d
		}
		if u.Simple != d || !sameTag(up, down) {
			return false
		}
		if d == core.SimpleType_STRUCT {
			return schemaWithin(up.GetMetadata(), down.GetMetadata())
		}
		return true
	}
	return false
}

// sameTag compares the tags of types, which name the Python type that wrote a value: a tagged value fits only the same tag, a value
// without a tag fits any.
func sameTag(up, down *core.LiteralType) bool { return tag(up) == "" || tag(up) == tag(down) }

// sameType compares types without the parts that only tell the client how to read a value.
func sameType(a, b *core.LiteralType) bool {
	return proto.Equal(&core.LiteralType{Type: a.GetType(), Metadata: a.GetMetadata()}, &core.LiteralType{Type: b.GetType(), Metadata: b.GetMetadata()})
}

func tag(t *core.LiteralType) string { return t.GetStructure().GetTag() }

func parquet(t *core.StructuredDatasetType) bool {
	return t.GetFormat() == "" || strings.EqualFold(t.GetFormat(), "parquet")
}

type column = core.StructuredDatasetType_DatasetColumn

var columnTypes = map[core.SchemaType_SchemaColumn_SchemaColumnType]core.SimpleType{
	core.SchemaType_SchemaColumn_INTEGER:  core.SimpleType_INTEGER,
	core.SchemaType_SchemaColumn_FLOAT:    core.SimpleType_FLOAT,
	core.SchemaType_SchemaColumn_STRING:   core.SimpleType_STRING,
	core.SchemaType_SchemaColumn_BOOLEAN:  core.SimpleType_BOOLEAN,
	core.SchemaType_SchemaColumn_DATETIME: core.SimpleType_DATETIME,
	core.SchemaType_SchemaColumn_DURATION: core.SimpleType_DURATION,
}

func schemaColumns(s *core.SchemaType) []*column {
	columns := make([]*column, 0, len(s.GetColumns()))
	for _, c := range s.GetColumns() {
		kind, ok := columnTypes[c.GetType()]
		if !ok {
			kind = core.SimpleType_NONE
		}
		columns = append(columns, &column{Name: c.GetName(), LiteralType: simpleType(kind)})
	}
	return columns
}

// castableColumns says whether up has all columns of down. Two types fit if one of them states no columns.
func castableColumns(up, down []*column, depth int) bool {
	if len(up) == 0 || len(down) == 0 {
		return true
	}
	types := make(map[string]*core.LiteralType, len(up))
	for _, c := range up {
		types[c.GetName()] = c.GetLiteralType()
	}
	for _, c := range down {
		t, ok := types[c.GetName()]
		if !ok || !castable(t, c.GetLiteralType(), depth+1) {
			return false
		}
	}
	return true
}
