// Package legible finds and mends messages that are well formed but that some clients cannot read. A list with one such row
// would fail as a whole for these clients. So package field refuses such messages when they are registered or created (Look),
// package api checks each row of a list, and packages api and cli write JSON with replacements for values that have no form in
// JSON (JSON).
//
//   - Python's protobuf reads messages that are nested up to 100 levels below the one that is read; protobuf-go, which reads
//     10,000, takes more.
//   - JSON has no form for a time or a duration out of its range, nor for a google.protobuf.Value that holds NaN, an infinity
//     or nothing, nor for an Any of an unknown type. flytekit turns the Values in a task's custom part into JSON.
package legible

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// MaxDepth is how many levels of messages Python reads below the outermost message.
const MaxDepth = 100

// Sight is the result of Look.
type Sight struct {
	Depth  int    // levels of messages below the message; Python counts entries of maps and unknown groups, too
	Time   string // path of the first time or duration out of its range; empty: there is none
	Formed bool   // all values have a form in JSON
}

// Look walks a message in its binary form, which has the unknown fields, too. It does not go deeper than MaxDepth.
func Look(desc protoreflect.MessageDescriptor, data []byte) Sight {
	l := sightWalk{Sight: Sight{Formed: true}}
	l.message(desc, data, 0)
	return l.Sight
}

type sightWalk struct {
	Sight
	path [MaxDepth + 1]protoreflect.FieldDescriptor // the fields that lead to the present message; nil: an unknown field
}

func (l *sightWalk) message(desc protoreflect.MessageDescriptor, data []byte, depth int) {
	l.Depth = max(l.Depth, depth)
	if depth > MaxDepth {
		return
	}
	switch desc.FullName() {
	case "google.protobuf.Timestamp":
		seconds, nanos := span(data)
		l.time((&timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}).CheckValid(), depth)
	case "google.protobuf.Duration":
		seconds, nanos := span(data)
		l.time((&durationpb.Duration{Seconds: seconds, Nanos: nanos}).CheckValid(), depth)
	case "google.protobuf.Value":
		l.Formed = l.Formed && formed(data)
	case "google.protobuf.Any":
		l.Formed = false // perhaps wrongly, because the content is not walked: the JSON writer finds out
	}
	fields := desc.Fields()
	groups := 0 // unknown groups that have begun and not ended
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return
		}
		data = data[n:]
		switch kind {
		case protowire.StartGroupType:
			groups++
			l.Depth = max(l.Depth, depth+groups)
			continue
		case protowire.EndGroupType:
			groups--
			continue
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(data)
			if n < 0 {
				return
			}
			data = data[n:]
			if groups > 0 {
				continue
			}
			if f := fields.ByNumber(number); f != nil && f.Message() != nil {
				l.path[depth] = f
				l.message(f.Message(), value, depth+1)
			}
		default:
			if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
				return
			}
			data = data[n:]
		}
	}
}

func (l *sightWalk) time(err error, depth int) {
	if err == nil {
		return
	}
	l.Formed = false
	if l.Time != "" {
		return
	}
	var names []string
	for _, f := range l.path[:depth] {
		if !f.ContainingMessage().IsMapEntry() {
			names = append(names, string(f.Name()))
		}
	}
	l.Time = strings.Join(names, ".")
}

// span is the content of a Timestamp or a Duration.
func span(data []byte) (seconds int64, nanos int32) {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return seconds, nanos
		}
		data = data[n:]
		if kind == protowire.VarintType && number <= 2 {
			value, _ := protowire.ConsumeVarint(data)
			if number == 1 {
				seconds = int64(value)
			} else {
				nanos = int32(value)
			}
		}
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return seconds, nanos
		}
		data = data[n:]
	}
	return seconds, nanos
}

// formed says whether a Value has a form in JSON: it is not empty, and it is no number such as NaN.
func formed(data []byte) bool {
	kinds := [...]protowire.Type{ // by number, from null_value to list_value
		1: protowire.VarintType, 2: protowire.Fixed64Type, 3: protowire.BytesType, 4: protowire.VarintType, 5: protowire.BytesType, 6: protowire.BytesType,
	}
	held := false
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		if int(number) < len(kinds) && kind == kinds[number] {
			held = true
			if kind == protowire.Fixed64Type {
				bits, _ := protowire.ConsumeFixed64(data)
				if unwritten(math.Float64frombits(bits)) != "" {
					return false
				}
			}
		}
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return false
		}
		data = data[n:]
	}
	return held
}

// Known removes all unknown fields from a message, in place.
func Known(m proto.Message) {
	walk(m.ProtoReflect(), func(m protoreflect.Message) bool {
		if len(m.GetUnknown()) > 0 {
			m.SetUnknown(nil)
		}
		return true
	})
}

// JSON is the result of write for a message, or, if write fails, for a copy that was mended.
func JSON(m proto.Message, write func(proto.Message) ([]byte, error)) ([]byte, error) {
	text, err := write(m)
	if err == nil {
		return text, nil
	}
	m = proto.Clone(m) // parts of m may belong to a record in a cache
	Mend(m)
	return write(m)
}

// Mend gives all values in a message a form in JSON, in place: NaN and the infinities become texts, as they are in JSON outside of
// Values; an empty Value becomes null; a time or duration becomes the nearest one in range; an Any of an unknown type, or whose
// content does not fit its type, becomes empty.
func Mend(m proto.Message) { walk(m.ProtoReflect(), mend) }

// mend mends one message without the messages in it, and says whether there can be any.
func mend(m protoreflect.Message) bool {
	switch v := m.Interface().(type) {
	case *timestamppb.Timestamp:
		const first, last = -62135596800, 253402300799 // seconds of the years 1 and 9999
		v.Seconds, v.Nanos = min(max(v.GetSeconds(), first), last), min(max(v.GetNanos(), 0), 999_999_999)
	case *durationpb.Duration:
		const most = 315_576_000_000 // seconds of 10,000 years
		v.Seconds, v.Nanos = min(max(v.GetSeconds(), -most), most), min(max(v.GetNanos(), -999_999_999), 999_999_999)
		if v.CheckValid() != nil { // the signs differ
			v.Nanos = 0
		}
	case *structpb.Value:
		switch kind := v.GetKind().(type) {
		case nil:
			v.Kind = &structpb.Value_NullValue{}
		case *structpb.Value_NumberValue:
			if text := unwritten(kind.NumberValue); text != "" {
				v.Kind = &structpb.Value_StringValue{StringValue: text}
			}
		}
	case *anypb.Any:
		content, err := v.UnmarshalNew()
		if err != nil {
			v.Reset()
			return false
		}
		Mend(content)
		if v.Value, err = proto.Marshal(content); err != nil {
			v.Reset()
		}
		return false
	}
	return true
}

// walk visits a message, and, if visit returns true, the messages in it.
func walk(m protoreflect.Message, visit func(protoreflect.Message) bool) {
	if !visit(m) {
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				walk(v.Message(), visit)
				return true
			})
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), visit)
			}
		case !f.IsMap() && f.Message() != nil:
			walk(v.Message(), visit)
		}
		return true
	})
}

// unwritten is the text of a number that has no form in JSON; empty for all other numbers.
func unwritten(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	return ""
}
