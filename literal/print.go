package literal

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// printer collects a text up to its limit and drops the rest, so that a message about a huge value costs little.
type printer struct {
	strings.Builder
	limit int // in bytes, 0 for no limit
}

func (p *printer) full() bool { return p.limit > 0 && p.Len() > p.limit }

func (p *printer) write(s string) {
	if p.limit > 0 {
		s = s[:min(len(s), p.limit+1-p.Len())] // one byte above the limit marks the printer as full
	}
	p.WriteString(s)
}

func (p *printer) text() string {
	s := p.String()
	if !p.full() {
		return s
	}
	return strings.ToValidUTF8(s[:p.limit], "") + "…"
}

// maxMessageText is how many bytes of a value or a type an error message has.
const maxMessageText = 240

// PrintType renders a type for messages, in Flyte's words: "integer", "collection<string>", "union<integer | none>".
func PrintType(t *core.LiteralType) string {
	p := &printer{limit: 4 << 10}
	p.typ(t, 0)
	return p.text()
}

func (p *printer) typ(t *core.LiteralType, depth int) {
	if p.full() || depth > MaxDepth {
		p.write("…")
		return
	}
	switch v := t.GetType().(type) {
	case *core.LiteralType_Simple:
		p.write(strings.ToLower(v.Simple.String()))
		if title := t.GetMetadata().GetFields()["title"].GetStringValue(); title != "" {
			p.write("<" + title + ">")
		}
	case *core.LiteralType_CollectionType:
		p.write("collection<")
		p.typ(v.CollectionType, depth+1)
		p.write(">")
	case *core.LiteralType_MapValueType:
		p.write("map<")
		p.typ(v.MapValueType, depth+1)
		p.write(">")
	case *core.LiteralType_UnionType:
		p.write("union<")
		for i, variant := range v.UnionType.GetVariants() {
			if i > 0 {
				p.write(" | ")
			}
			p.typ(variant, depth+1)
		}
		p.write(">")
	case *core.LiteralType_EnumType:
		p.write("enum<")
		for i, value := range v.EnumType.GetValues() {
			if i > 0 {
				p.write(" | ")
			}
			p.write(value)
		}
		p.write(">")
	case *core.LiteralType_Blob:
		var what []string
		if f := v.Blob.GetFormat(); f != "" {
			what = append(what, f)
		}
		if v.Blob.GetDimensionality() == core.BlobType_MULTIPART {
			what = append(what, "multipart")
		}
		p.write("blob")
		p.list(what)
	case *core.LiteralType_Schema:
		p.columns("schema", "", schemaColumns(v.Schema), depth)
	case *core.LiteralType_StructuredDatasetType:
		p.columns("structured dataset", v.StructuredDatasetType.GetFormat(), v.StructuredDatasetType.GetColumns(), depth)
	default:
		p.write("unset")
	}
}

func (p *printer) list(parts []string) {
	if len(parts) > 0 {
		p.write("<" + strings.Join(parts, ", ") + ">")
	}
}

func (p *printer) columns(kind, format string, columns []*column, depth int) {
	p.write(kind)
	if format == "" && len(columns) == 0 {
		return
	}
	p.write("<" + format)
	for i, c := range columns {
		if i > 0 || format != "" {
			p.write(", ")
		}
		p.write(c.GetName() + " ")
		p.typ(c.GetLiteralType(), depth+1)
	}
	p.write(">")
}

// Print renders a literal for messages, on one line: 5, "text", [1, 2], {k: 1}; a file or a dataset is its URI.
func Print(l *core.Literal) string { return PrintMax(l, 0) }

// PrintMax is Print cut after about limit bytes; 0 is no limit.
func PrintMax(l *core.Literal, limit int) string {
	p := &printer{limit: limit}
	p.literal(l, 0)
	return p.text()
}

func (p *printer) literal(l *core.Literal, depth int) {
	if p.full() || depth > MaxDepth {
		p.write("…")
		return
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		p.scalar(v.Scalar, depth)
	case *core.Literal_Collection:
		p.write("[")
		for i, e := range v.Collection.GetLiterals() {
			if p.full() {
				break
			}
			if i > 0 {
				p.write(", ")
			}
			p.literal(e, depth+1)
		}
		p.write("]")
	case *core.Literal_Map:
		p.write("{")
		for i, key := range slices.Sorted(maps.Keys(v.Map.GetLiterals())) {
			if p.full() {
				break
			}
			if i > 0 {
				p.write(", ")
			}
			p.write(key + ": ")
			p.literal(v.Map.GetLiterals()[key], depth+1)
		}
		p.write("}")
	case *core.Literal_OffloadedMetadata:
		p.write(v.OffloadedMetadata.GetUri())
	default:
		p.write("unset")
	}
}

func (p *printer) scalar(s *core.Scalar, depth int) {
	switch v := s.GetValue().(type) {
	case *core.Scalar_Primitive:
		if str, ok := v.Primitive.GetValue().(*core.Primitive_StringValue); ok {
			text := str.StringValue
			if p.limit > 0 && len(text) > p.limit {
				text = text[:p.limit] + "…"
			}
			p.write(strconv.Quote(text))
			return
		}
		text, err := primitiveText(v.Primitive)
		if err != nil {
			text = "unset"
		}
		if _, float := v.Primitive.GetValue().(*core.Primitive_FloatValue); float && strings.Trim(text, "-0123456789") == "" {
			text += ".0" // as in Python, because a float is another value than the integer
		}
		p.write(text)
	case *core.Scalar_NoneType:
		p.write("none")
	case *core.Scalar_Error:
		p.write("error: " + v.Error.GetMessage())
	case *core.Scalar_Union:
		p.literal(v.Union.GetValue(), depth+1)
	case *core.Scalar_Generic:
		p.structure(structpb.NewStructValue(v.Generic), 0)
	case *core.Scalar_Binary:
		if v.Binary.GetTag() == MsgPackTag {
			packed := &printer{limit: p.limit}
			if newPackedReader(v.Binary.GetValue()).print(packed, false, 0) == nil {
				p.write(packed.String())
				return
			}
		}
		p.write(fmt.Sprintf("%d bytes", len(v.Binary.GetValue())))
	case *core.Scalar_Blob:
		p.write(v.Blob.GetUri())
	case *core.Scalar_Schema:
		p.write(v.Schema.GetUri())
	case *core.Scalar_StructuredDataset:
		p.write(v.StructuredDataset.GetUri())
	default:
		p.write("unset")
	}
}

// Text renders a literal for the command line of a task ("{{ .inputs.x }}"). Strings, numbers and lists have Flyte's form,
// except that floats below 1e21 have no exponent and durations are seconds ("90.5s"). Structs and maps are JSON, where Flyte
// refuses them or writes Go's notation. A value without a text, such as none, is an error.
//
// A text of more than limit bytes is not made, and the error is ErrExhausted: each level of maps in lists in maps about doubles the
// text. The limit does not apply to a literal that is a string; 0 means no limit.
func Text(l *core.Literal, limit int) (string, error) {
	if s, ok := l.GetScalar().GetPrimitive().GetValue().(*core.Primitive_StringValue); ok {
		return s.StringValue, nil
	}
	p := &printer{limit: limit}
	if err := p.argument(l, 0); err != nil {
		return "", err
	}
	if p.full() {
		return "", fmt.Errorf("its text would have more than %d bytes: %w", limit, aloft.ErrExhausted)
	}
	return p.String(), nil
}

// argument writes the text of a literal for Text. Parts behind the limit may be left out, and mistakes in them not be reported.
func (p *printer) argument(l *core.Literal, depth int) error {
	if p.full() {
		return nil
	}
	if depth > MaxDepth {
		return errDepth
	}
	switch v := l.GetValue().(type) {
	case *core.Literal_Scalar:
		switch s := v.Scalar.GetValue().(type) {
		case *core.Scalar_Primitive:
			t, err := primitiveText(s.Primitive)
			p.write(t)
			return err
		case *core.Scalar_Blob:
			p.write(s.Blob.GetUri())
			return nil
		case *core.Scalar_Schema:
			p.write(s.Schema.GetUri())
			return nil
		case *core.Scalar_StructuredDataset:
			p.write(s.StructuredDataset.GetUri())
			return nil
		case *core.Scalar_Union:
			return p.argument(s.Union.GetValue(), depth+1)
		case *core.Scalar_Generic:
			p.structure(structpb.NewStructValue(s.Generic), 0)
			return nil
		case *core.Scalar_Binary:
			if s.Binary.GetTag() == MsgPackTag {
				return newPackedReader(s.Binary.GetValue()).print(p, false, 0)
			}
			return errors.New("a binary value has no text")
		case *core.Scalar_NoneType:
			return errors.New("none has no text")
		case *core.Scalar_Error:
			return errors.New("an error has no text")
		}
	case *core.Literal_Collection:
		p.write("[")
		for i, e := range v.Collection.GetLiterals() {
			if i > 0 {
				p.write(",")
			}
			if err := p.argument(e, depth+1); err != nil {
				return fmt.Errorf("element %d: %w", i, err)
			}
			if p.full() {
				break
			}
		}
		p.write("]")
		return nil
	case *core.Literal_Map:
		p.write("{")
		for i, key := range slices.Sorted(maps.Keys(v.Map.GetLiterals())) {
			e := v.Map.GetLiterals()[key]
			if i > 0 {
				p.write(",")
			}
			p.quote(key)
			p.write(":")
			value := &printer{limit: p.limit}
			if isJSON(e) {
				value = p
			}
			if err := value.argument(e, depth+1); err != nil {
				return fmt.Errorf("key %q: %w", aloft.Excerpt(key), err)
			}
			if value != p {
				p.quote(value.String())
			}
			if p.full() {
				break
			}
		}
		p.write("}")
		return nil
	case *core.Literal_OffloadedMetadata:
		return errors.New("an offloaded value has no text")
	}
	return errors.New("the literal has no value")
}

// isJSON says whether the text of a literal is JSON by itself.
func isJSON(l *core.Literal) bool {
	for u := l.GetScalar().GetUnion(); u != nil; u = l.GetScalar().GetUnion() {
		l = u.GetValue()
	}
	switch l.GetScalar().GetPrimitive().GetValue().(type) {
	case *core.Primitive_Integer, *core.Primitive_Boolean:
		return true
	case *core.Primitive_FloatValue:
		f := l.GetScalar().GetPrimitive().GetFloatValue()
		return !math.IsNaN(f) && !math.IsInf(f, 0)
	}
	return l.GetMap() != nil || l.GetScalar().GetGeneric() != nil || l.GetScalar().GetBinary() != nil
}

func primitiveText(p *core.Primitive) (string, error) {
	switch v := p.GetValue().(type) {
	case *core.Primitive_Integer:
		return strconv.FormatInt(v.Integer, 10), nil
	case *core.Primitive_FloatValue:
		return floatText(v.FloatValue), nil
	case *core.Primitive_StringValue:
		return v.StringValue, nil
	case *core.Primitive_Boolean:
		return strconv.FormatBool(v.Boolean), nil
	case *core.Primitive_Datetime:
		return timeText(v.Datetime), nil
	case *core.Primitive_Duration:
		return durationText(v.Duration), nil
	}
	return "", errors.New("the primitive has no value")
}

// floatText is the shortest text that reads back as the same number, without an exponent from 1e-6 to 1e21.
func floatText(f float64) string {
	if abs := math.Abs(f); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

func timeText(t *timestamppb.Timestamp) string { return t.AsTime().Format(time.RFC3339Nano) }

// durationText is the protocol's JSON form: seconds with as many decimals as needed.
func durationText(d *durationpb.Duration) string {
	s, n := d.GetSeconds(), d.GetNanos()
	sign := ""
	if s < 0 || n < 0 {
		sign = "-"
	}
	// Negated as unsigned numbers, because the smallest integer has no positive counterpart.
	us, un := uint64(s), uint64(int64(n))
	if s < 0 {
		us = -us
	}
	if n < 0 {
		un = -un
	}
	text := sign + strconv.FormatUint(us, 10)
	if un != 0 {
		text += strings.TrimRight(fmt.Sprintf(".%09d", un), "0")
	}
	return text + "s"
}

// structure writes a value of a generic struct as JSON.
func (p *printer) structure(v *structpb.Value, depth int) {
	if p.full() {
		return
	}
	if depth > MaxDepth {
		p.write(`"…"`)
		return
	}
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		p.write(floatText(k.NumberValue))
	case *structpb.Value_StringValue:
		p.quote(k.StringValue)
	case *structpb.Value_BoolValue:
		p.write(strconv.FormatBool(k.BoolValue))
	case *structpb.Value_ListValue:
		p.write("[")
		for i, e := range k.ListValue.GetValues() {
			if i > 0 {
				p.write(",")
			}
			p.structure(e, depth+1)
		}
		p.write("]")
	case *structpb.Value_StructValue:
		p.write("{")
		for i, key := range slices.Sorted(maps.Keys(k.StructValue.GetFields())) {
			if i > 0 {
				p.write(",")
			}
			p.quote(key)
			p.write(":")
			p.structure(k.StructValue.GetFields()[key], depth+1)
		}
		p.write("}")
	default:
		p.write("null")
	}
}

// quote writes a text as JSON. Quoting never shortens a text, so a text above the limit is cut before it is quoted.
func (p *printer) quote(s string) {
	if p.limit > 0 && len(s) > p.limit {
		p.write(s[:p.limit+1])
		return
	}
	p.write(quoteJSON(s))
}

// quoteJSON leaves <, > and & readable, unlike json.Marshal.
func quoteJSON(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return strconv.Quote(s)
	}
	return strings.TrimSuffix(b.String(), "\n")
}
