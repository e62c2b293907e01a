package literal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// Digest identifies the content of a literal map: "sha256:" and the hex digest of its deterministic encoding.
func Digest(m *core.LiteralMap) (string, error) {
	if m == nil {
		m = &core.LiteralMap{}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode literals: %w", err)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// Hash is a structure hash.
type Hash [sha256.Size]byte

// String is the form in which Flyte shows structure digests of registered entities.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// Key is the form in which Flyte writes a hash into cache tags and signatures.
func (h Hash) Key() string { return base64.RawURLEncoding.EncodeToString(h[:]) }

// StructureDigest is Flyte's digest of a message: the digest of its JSON form, which does not depend on the order of maps and on
// fields with default values. Two registrations with equal digests are identical, and cache keys contain such digests.
//
// It walks the message instead of printing JSON, which is some ten times faster.
func StructureDigest(m proto.Message) Hash {
	if m == nil {
		return hashNull
	}
	return hashMessage(m.ProtoReflect())
}

// InputHash is what one input contributes to the hash of a task's inputs.
type InputHash struct {
	Name   string
	Hash   Hash // structure hash of the literal
	ByHash bool // the literal, or one in its lists and maps, carries a hash of its own (flytekit's HashMethod)
}

// HashInputs is the hash of a task's inputs in a cache tag. A literal that carries a hash of its own (flytekit's
// HashMethod) counts with that alone, at any level of lists and maps; ignored inputs do not count. No inputs and nil are equal.
func HashInputs(m *core.LiteralMap, ignored []string) Hash {
	_, h := HashEachInput(m, ignored)
	return h
}

// HashEachInput is HashInputs together with the hashes of the inputs that count, sorted by name.
func HashEachInput(m *core.LiteralMap, ignored []string) ([]InputHash, Hash) {
	inputs := make([]InputHash, 0, len(m.GetLiterals()))
	for name, l := range m.GetLiterals() {
		if slices.Contains(ignored, name) {
			continue
		}
		counts := replaceHashed(l, 0)
		inputs = append(inputs, InputHash{Name: name, Hash: hashMessage(counts.ProtoReflect()), ByHash: counts != l})
	}
	slices.SortFunc(inputs, func(a, b InputHash) int { return strings.Compare(a.Name, b.Name) })
	if len(inputs) == 0 {
		return nil, hashObject(nil)
	}
	// As StructureDigest hashes a LiteralMap: an object with one field, which is an object of the literals.
	var short [8]hashPair
	pairs := short[:0]
	for _, in := range inputs {
		pairs = append(pairs, hashPair{key: hashString(in.Name), value: in.Hash})
	}
	return inputs, hashOne(hashPair{key: literalsKey, value: hashObject(pairs)})
}

var literalsKey = hashString("literals")

// replaceHashed replaces the literals that carry a hash, in lists and maps, too, by ones that have the hash alone. A literal
// without any hash in it is returned as it is.
func replaceHashed(l *core.Literal, depth int) *core.Literal {
	if l.GetHash() != "" {
		return &core.Literal{Hash: l.GetHash()}
	}
	if depth > MaxDepth {
		return l
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Collection:
		var changed []*core.Literal
		for i, e := range v.Collection.GetLiterals() {
			h := replaceHashed(e, depth+1)
			if h != e && changed == nil {
				changed = slices.Clone(v.Collection.GetLiterals())
			}
			if changed != nil {
				changed[i] = h
			}
		}
		if changed != nil {
			return &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: changed}}, Metadata: l.GetMetadata()}
		}
	case *core.Literal_Map:
		entries := make(map[string]*core.Literal, len(v.Map.GetLiterals()))
		changed := false
		for key, e := range v.Map.GetLiterals() {
			entries[key] = replaceHashed(e, depth+1)
			changed = changed || entries[key] != e
		}
		if changed {
			return &core.Literal{Value: &core.Literal_Map{Map: &core.LiteralMap{Literals: entries}}, Metadata: l.GetMetadata()}
		}
	}
	return l
}

// HashVariableMap is the hash of a task's inputs or outputs in a cache signature: descriptions do not count, nor do the
// metadata and annotations of types other than what the client says about cache keys.
func HashVariableMap(m *core.VariableMap) Hash {
	variables := make(map[string]*core.Variable, len(m.GetVariables()))
	for name, v := range m.GetVariables() {
		variables[name] = &core.Variable{
			Type: withoutMetadata(v.GetType(), 0), ArtifactPartialId: v.GetArtifactPartialId(), ArtifactTag: v.GetArtifactTag(),
		}
	}
	return StructureDigest(&core.VariableMap{Variables: variables})
}

const cacheKeyMetadata = "cache-key-metadata"

func withoutMetadata(t *core.LiteralType, depth int) *core.LiteralType {
	if t == nil || depth > MaxDepth {
		return t
	}
	out := &core.LiteralType{Type: t.GetType()}
	if _, ok := t.GetAnnotation().GetAnnotations().GetFields()[cacheKeyMetadata]; ok {
		out.Annotation = t.GetAnnotation()
	}
	if s := t.GetStructure(); s != nil {
		out.Structure = &core.TypeStructure{Tag: s.GetTag()}
		for field, f := range s.GetDataclassType() {
			if out.Structure.DataclassType == nil {
				out.Structure.DataclassType = make(map[string]*core.LiteralType)
			}
			out.Structure.DataclassType[field] = withoutMetadata(f, depth+1)
		}
	}
	switch v := t.GetType().(type) {
	case *core.LiteralType_CollectionType:
		out.Type = &core.LiteralType_CollectionType{CollectionType: withoutMetadata(v.CollectionType, depth+1)}
	case *core.LiteralType_MapValueType:
		out.Type = &core.LiteralType_MapValueType{MapValueType: withoutMetadata(v.MapValueType, depth+1)}
	case *core.LiteralType_UnionType:
		union := &core.UnionType{}
		for _, variant := range v.UnionType.GetVariants() {
			union.Variants = append(union.Variants, withoutMetadata(variant, depth+1))
		}
		out.Type = &core.LiteralType_UnionType{UnionType: union}
	case *core.LiteralType_StructuredDatasetType:
		dataset := &core.StructuredDatasetType{
			Format:             v.StructuredDatasetType.GetFormat(),
			ExternalSchemaType: v.StructuredDatasetType.GetExternalSchemaType(), ExternalSchemaBytes: v.StructuredDatasetType.GetExternalSchemaBytes(),
		}
		for _, c := range v.StructuredDatasetType.GetColumns() {
			dataset.Columns = append(dataset.Columns, &column{Name: c.GetName(), LiteralType: withoutMetadata(c.GetLiteralType(), depth+1)})
		}
		out.Type = &core.LiteralType_StructuredDatasetType{StructuredDatasetType: dataset}
	}
	return out
}

// Hashes of JSON values: one tag byte, then the content. Objects are the sorted hashes of their keys, each with its value's.
func hashTagged(tag byte, content []byte) Hash {
	var short [128]byte
	buf := append(append(short[:0], tag), content...)
	return sha256.Sum256(buf)
}

func hashString(s string) Hash {
	var short [128]byte
	buf := append(append(short[:0], 'u'), s...)
	return sha256.Sum256(buf)
}

var (
	hashNull  = hashTagged('n', nil)
	hashTrue  = hashTagged('b', []byte("1"))
	hashFalse = hashTagged('b', []byte("0"))
)

func hashBool(b bool) Hash {
	if b {
		return hashTrue
	}
	return hashFalse
}

// hashNumber hashes a JSON number as a float: its sign, its exponent, and the bits of its mantissa, which is above ½ and up to 1.
func hashNumber(f float64) Hash {
	switch {
	case math.IsNaN(f):
		return hashString("NaN")
	case math.IsInf(f, 1):
		return hashString("Infinity")
	case math.IsInf(f, -1):
		return hashString("-Infinity")
	case f == 0:
		return hashTagged('f', []byte("+0:"))
	}
	sign := byte('+')
	if f < 0 {
		sign, f = '-', -f
	}
	mantissa, exponent := math.Frexp(f) // in [½, 1)
	if mantissa == 0.5 {
		mantissa, exponent = 1, exponent-1
	}
	var short [96]byte
	buf := append(short[:0], 'f', sign)
	buf = strconv.AppendInt(buf, int64(exponent), 10)
	buf = append(buf, ':')
	for mantissa != 0 {
		if mantissa >= 1 {
			buf = append(buf, '1')
			mantissa--
		} else {
			buf = append(buf, '0')
		}
		mantissa *= 2
	}
	return sha256.Sum256(buf)
}

func hashList(elements []byte) Hash { return hashTagged('l', elements) }

type hashPair struct{ key, value Hash }

func hashObject(pairs []hashPair) Hash {
	slices.SortFunc(pairs, func(a, b hashPair) int { return bytes.Compare(a.key[:], b.key[:]) })
	var short [512]byte
	buf := append(short[:0], 'd')
	for i := range pairs {
		buf = append(append(buf, pairs[i].key[:]...), pairs[i].value[:]...)
	}
	return sha256.Sum256(buf)
}

// fieldKeys caches the hash of the JSON name of each field, since names repeat in every message.
var fieldKeys sync.Map // protoreflect.FullName → Hash

func fieldKey(fd protoreflect.FieldDescriptor) Hash {
	if h, ok := fieldKeys.Load(fd.FullName()); ok {
		return h.(Hash)
	}
	h := hashString(fd.JSONName())
	fieldKeys.Store(fd.FullName(), h)
	return h
}

func hashMessage(m protoreflect.Message) Hash {
	// Special cases for literals, which are nearly all that is hashed: reflection costs more than SHA-256.
	switch v := m.Interface().(type) {
	case *core.Literal:
		if h, ok := hashSimpleLiteral(v); ok {
			return h
		}
	case *structpb.Struct:
		return hashStruct(v)
	case *structpb.Value:
		return hashValue(v)
	case *structpb.ListValue:
		return hashListValue(v)
	case *timestamppb.Timestamp:
		return hashString(timestampJSON(v))
	case *durationpb.Duration:
		return hashString(durationJSON(v))
	}
	switch name := m.Descriptor().FullName(); {
	case name == "google.protobuf.Any":
		return hashAny(m)
	case name.Parent() == "google.protobuf" && strings.HasSuffix(string(name.Name()), "Value"):
		// In JSON a wrapper is its value.
		fd := m.Descriptor().Fields().ByName("value")
		return hashField(fd, m.Get(fd))
	}
	var short [8]hashPair
	pairs := short[:0]
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		pair := hashPair{key: fieldKey(fd)}
		switch {
		case fd.IsList():
			list := v.List()
			buf := make([]byte, 0, list.Len()*sha256.Size)
			for i := range list.Len() {
				h := hashField(fd, list.Get(i))
				buf = append(buf, h[:]...)
			}
			pair.value = hashList(buf)
		case fd.IsMap():
			entries := make([]hashPair, 0, v.Map().Len())
			v.Map().Range(func(k protoreflect.MapKey, e protoreflect.Value) bool {
				entries = append(entries, hashPair{key: hashString(k.String()), value: hashField(fd.MapValue(), e)})
				return true
			})
			pair.value = hashObject(entries)
		default:
			pair.value = hashField(fd, v)
		}
		pairs = append(pairs, pair)
		return true
	})
	return hashObject(pairs)
}

func hashField(fd protoreflect.FieldDescriptor, v protoreflect.Value) Hash {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return hashMessage(v.Message())
	case protoreflect.BoolKind:
		return hashBool(v.Bool())
	case protoreflect.StringKind:
		return hashString(v.String())
	case protoreflect.BytesKind:
		return hashString(base64.StdEncoding.EncodeToString(v.Bytes()))
	case protoreflect.EnumKind:
		if fd.Enum().FullName() == "google.protobuf.NullValue" {
			return hashNull
		}
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return hashString(string(ev.Name()))
		}
		return hashNumber(float64(v.Enum()))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return hashString(strconv.FormatInt(v.Int(), 10))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return hashString(strconv.FormatUint(v.Uint(), 10))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return hashNumber(float64(v.Int()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return hashNumber(float64(v.Uint()))
	case protoreflect.FloatKind:
		// JSON has the shortest text for the 32 bits; read as a float of 64 bits, that text is another number than the
		// converted one.
		f, err := strconv.ParseFloat(strconv.FormatFloat(v.Float(), 'g', -1, 32), 64)
		if err != nil {
			f = v.Float()
		}
		return hashNumber(f)
	default:
		return hashNumber(v.Float())
	}
}

var literalKeys = struct{ scalar, primitive, integer, floatValue, stringValue, boolean Hash }{
	hashString("scalar"), hashString("primitive"), hashString("integer"), hashString("floatValue"), hashString("stringValue"), hashString("boolean"),
}

// hashSimpleLiteral hashes a literal that is only a number, a text or a boolean; false for any other literal.
func hashSimpleLiteral(l *core.Literal) (Hash, bool) {
	if l.GetHash() != "" || len(l.GetMetadata()) > 0 || len(l.ProtoReflect().GetUnknown()) > 0 {
		return Hash{}, false
	}
	scalar, ok := l.GetValue().(*core.Literal_Scalar)
	if !ok {
		return Hash{}, false
	}
	var pair hashPair
	switch v := scalar.Scalar.GetPrimitive().GetValue().(type) {
	case *core.Primitive_Integer:
		var short [24]byte
		pair = hashPair{literalKeys.integer, hashTagged('u', strconv.AppendInt(short[:0], v.Integer, 10))}
	case *core.Primitive_FloatValue:
		pair = hashPair{literalKeys.floatValue, hashNumber(v.FloatValue)}
	case *core.Primitive_StringValue:
		pair = hashPair{literalKeys.stringValue, hashString(v.StringValue)}
	case *core.Primitive_Boolean:
		pair = hashPair{literalKeys.boolean, hashBool(v.Boolean)}
	default:
		return Hash{}, false
	}
	h := hashOne(pair)
	h = hashOne(hashPair{literalKeys.primitive, h})
	return hashOne(hashPair{literalKeys.scalar, h}), true
}

func hashOne(p hashPair) Hash {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = 'd'
	copy(buf[1:], p.key[:])
	copy(buf[1+sha256.Size:], p.value[:])
	return sha256.Sum256(buf[:])
}

func hashStruct(s *structpb.Struct) Hash {
	pairs := make([]hashPair, 0, len(s.GetFields()))
	for key, v := range s.GetFields() {
		pairs = append(pairs, hashPair{hashString(key), hashValue(v)})
	}
	return hashObject(pairs)
}

func hashListValue(l *structpb.ListValue) Hash {
	buf := make([]byte, 0, len(l.GetValues())*sha256.Size)
	for _, v := range l.GetValues() {
		h := hashValue(v)
		buf = append(buf, h[:]...)
	}
	return hashList(buf)
}

func hashValue(v *structpb.Value) Hash {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return hashNumber(k.NumberValue)
	case *structpb.Value_StringValue:
		return hashString(k.StringValue)
	case *structpb.Value_BoolValue:
		return hashBool(k.BoolValue)
	case *structpb.Value_StructValue:
		return hashStruct(k.StructValue)
	case *structpb.Value_ListValue:
		return hashListValue(k.ListValue)
	}
	return hashNull
}

// hashAny hashes the JSON form of an Any, which is that of the message in it. An Any of an unknown type is hashed by its bytes.
func hashAny(m protoreflect.Message) Hash {
	if b, err := protojson.Marshal(m.Interface()); err == nil {
		var v any
		if json.Unmarshal(b, &v) == nil {
			if s, err := structpb.NewValue(v); err == nil {
				return hashValue(s)
			}
		}
	}
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	return hashTagged('u', b)
}

// timestampJSON and durationJSON are the protocol's JSON forms: no decimals, or three, six or nine. A value out of the protocol's
// range has no JSON form; its text is unique all the same.
func timestampJSON(t *timestamppb.Timestamp) string {
	if t.CheckValid() != nil {
		return fmt.Sprintf("%d.%d", t.GetSeconds(), t.GetNanos())
	}
	return t.AsTime().Format("2006-01-02T15:04:05") + decimals(t.GetNanos()) + "Z"
}

func durationJSON(d *durationpb.Duration) string {
	if d.CheckValid() != nil {
		return fmt.Sprintf("%d.%ds", d.GetSeconds(), d.GetNanos())
	}
	sign, s, n := "", d.GetSeconds(), d.GetNanos()
	if s < 0 || n < 0 {
		sign, s, n = "-", -s, -n
	}
	return sign + strconv.FormatInt(s, 10) + decimals(n) + "s"
}

func decimals(nanos int32) string {
	if nanos == 0 {
		return ""
	}
	s := fmt.Sprintf(".%09d", nanos)
	s = strings.TrimSuffix(s, "000")
	return strings.TrimSuffix(s, "000")
}
