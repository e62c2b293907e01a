// Package legible knows what keeps a client from reading a message that is well formed. One such row would take a whole
// list from everybody who may see it, so what is registered and created is looked at when it comes (Look, by package field),
// lists are when they go, and what has no form in JSON is given one (JSON, by packages api and cli).
//
//   - Python's protobuf reads messages that are nested up to 100 levels below the one that is read; protobuf-go, which reads
//     10,000, takes more.
//   - JSON has no form for a time or a duration out of its range, nor for a google.protobuf.Value that holds NaN, an infinity
//     or nothing, nor for an Any of an unknown type. Python makes JSON of the Values that a task has.
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

// MaxDepth is how many levels of messages Python reads below the message that it was sent.
const MaxDepth = 100

// Sight is what was seen of a message.
type Sight struct {
	Depth  int    // levels of messages below it, entries of maps and unknown groups among them, as Python's protobuf counts them
	Time   string // path of the first time or duration out of its range; empty: there is none
	Formed bool   // all values have a form in JSON
}

// Look walks a message in its binary form, of which it sees unknown fields, too. What is deeper than MaxDepth is not looked at.
func Look(desc protoreflect.MessageDescriptor, data []byte) Sight {
	l := look{Sight: Sight{Formed: true}}
	l.message(desc, data, 0)
	return l.Sight
}

type look struct {
	Sight
	path [MaxDepth + 1]protoreflect.FieldDescriptor // of the fields that lead to where the walk is; nil: of none that is known
}

func (l *look) message(desc protoreflect.MessageDescriptor, data []byte, depth int) {
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
		l.Formed = false // its content is not walked: the JSON writer finds out
	}
	fields := desc.Fields()
	groups := 0 // unknown ones that are open
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

func (l *look) time(err error, depth int) {
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

// formed says whether a Value holds something, and no number that JSON does not know.
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

// Known takes out of a message what is unknown in it, in place.
func Known(m proto.Message) {
	walk(m.ProtoReflect(), func(m protoreflect.Message) bool {
		if len(m.GetUnknown()) > 0 {
			m.SetUnknown(nil)
		}
		return true
	})
}

// JSON is what write makes of a message or, where it cannot, of one in which all values have a form in JSON.
func JSON(m proto.Message, write func(proto.Message) ([]byte, error)) ([]byte, error) {
	text, err := write(m)
	if err == nil {
		return text, nil
	}
	m = proto.Clone(m) // of which others may have parts
	Mend(m)
	return write(m)
}

// Mend gives all values in a message a form in JSON, in place: NaN and the infinities are texts, as which numbers outside of
// Values are written, too; nothing is null; a time or duration is the nearest one in range; an Any of an unknown type, or of
// another content, is empty.
func Mend(m proto.Message) { walk(m.ProtoReflect(), mend) }

// mend mends a message but for those in it, which it says whether there can be.
func mend(m protoreflect.Message) bool {
	switch v := m.Interface().(type) {
	case *timestamppb.Timestamp:
		const first, last = -62135596800, 253402300799 // of the years 1 and 9999
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

// walk visits a message, and those in it where visit says so.
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

// unwritten is the text of a number that JSON does not know; empty for all others.
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
