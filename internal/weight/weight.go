// Package weight estimates how much memory a message will take when it is decoded, from its encoding: 28 MiB of empty literals are
// 4 GB of Go structs. Messages from clients and files from tasks are weighed before they are decoded.
//
//	weight ≈ Σ over values (Go struct or header + content),  refused above aloft.MaxDecodedBytes
package weight

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/aloft-dev/aloft"
)

// Protobuf walks the fields of a message at all depths, as far as the schema goes, and adds up the sizes of their Go values. It
// looks at each byte at most once and stops above the limit: ErrExhausted. Of bytes that are no message, the part before the
// mistake is weighed: the decoder will refuse them.
func Protobuf(desc protoreflect.MessageDescriptor, data []byte) (int64, error) {
	s := scale{limit: aloft.MaxDecodedBytes}
	s.message(desc, data, 0)
	return s.result("messages and fields")
}

// After so much work, about a third of a millisecond, other goroutines may run: small requests must not wait for the end of a
// time slice.
const (
	yieldEvery      = 16 << 10  // elements
	yieldEveryBytes = 128 << 10 // bytes of a text
)

// scale adds up the weight of a message.
type scale struct {
	weight, elements, limit int64
}

func (s *scale) add(bytes int64) { s.weight += bytes }

// element counts a field or a value, also one that weighs nothing, and lets other goroutines run now and then.
func (s *scale) element() {
	if s.elements++; s.elements%yieldEvery == 0 {
		runtime.Gosched()
	}
}

func (s *scale) full() bool { return s.weight > s.limit }

func (s *scale) result(of string) (int64, error) {
	if s.full() {
		return s.weight, fmt.Errorf("%w: it would take more than %d MiB of memory once it is decoded, the limit of one message, "+
			"and it does so after %d of its %s: give less at once, or refer to large values by URI", aloft.ErrExhausted, s.limit>>20, s.elements, of)
	}
	return s.weight, nil
}

// Bytes that Go values take besides their content.
const (
	textHeader  = 24 // a string or bytes, allocated by itself
	listPlace   = 16 // a pointer in a slice that doubles as it grows
	mapPlace    = 72 // a key and a value in a map that doubles as it grows
	oneofBox    = 16
	mostNesting = 10_000 // levels, after which the decoder refuses a message
)

func (s *scale) message(desc protoreflect.MessageDescriptor, data []byte, depth int) {
	if depth > mostNesting {
		return
	}
	fields := desc.Fields()
	for len(data) > 0 && !s.full() {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return
		}
		data = data[n:]
		var value []byte
		if kind == protowire.BytesType {
			if value, n = protowire.ConsumeBytes(data); n < 0 {
				return
			}
		} else if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return
		}
		data = data[n:]
		s.element()
		f := fields.ByNumber(number)
		switch {
		case f == nil || kind != protowire.BytesType && !numeric(f): // an unknown field, which is kept as it came
			s.add(int64(2 * n))
		case kind != protowire.BytesType:
			s.scalar(f)
		case f.IsMap():
			s.add(mapPlace)
			s.message(f.Message(), value, depth+1)
		case f.Kind() == protoreflect.MessageKind:
			s.add(structSize(f.Message()))
			if f.IsList() {
				s.add(listPlace)
			} else if f.ContainingOneof() != nil {
				s.add(oneofBox)
			}
			s.message(f.Message(), value, depth+1)
		case f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind:
			s.add(int64(len(value)) + textHeader)
			if f.IsList() {
				s.add(2 * listPlace)
			}
		default: // packed numbers: each byte may become a number of 8 bytes, in a slice that doubles
			s.add(int64(len(value)) * listPlace)
		}
	}
}

// numeric says whether the values of a field are numbers. A value of another wire type than the field's is an unknown field.
func numeric(f protoreflect.FieldDescriptor) bool {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind, protoreflect.StringKind, protoreflect.BytesKind:
		return false
	}
	return true
}

// Deeper says whether a message is nested deeper than limit levels. As in the decoder, the message itself and entries of maps
// count. If the deepest part is in a map, key is its key there; if several maps are in each other, that of the outermost.
func Deeper(desc protoreflect.MessageDescriptor, data []byte, limit int) (key string, deeper bool) {
	if limit == 0 {
		return "", true
	}
	fields := desc.Fields()
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			break
		}
		data = data[n:]
		var value []byte
		if kind == protowire.BytesType {
			value, n = protowire.ConsumeBytes(data)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			break
		}
		data = data[n:]
		f := fields.ByNumber(number)
		if f == nil || kind != protowire.BytesType || f.Message() == nil {
			if desc.IsMapEntry() && number == 1 {
				key = string(value)
			}
			continue
		}
		if inner, deeper := Deeper(f.Message(), value, limit-1); deeper {
			if !desc.IsMapEntry() {
				key = inner
			}
			return key, true
		}
	}
	return key, false
}

func (s *scale) scalar(f protoreflect.FieldDescriptor) {
	switch {
	case f.IsList():
		s.add(listPlace)
	case f.ContainingOneof() != nil:
		s.add(oneofBox)
	}
}

var structSizes sync.Map // results of structSize, by full name

// structSize is the size of an empty message.
func structSize(desc protoreflect.MessageDescriptor) int64 {
	if size, ok := structSizes.Load(desc.FullName()); ok {
		return size.(int64) //nolint:forcetypeassert // nothing else is put there
	}
	size := int64(128)
	if found, err := protoregistry.GlobalTypes.FindMessageByName(desc.FullName()); err == nil {
		if t := reflect.TypeOf(found.Zero().Interface()); t.Kind() == reflect.Pointer {
			size = int64(t.Elem().Size()) + 16 // rounded up by the allocator
		}
	}
	structSizes.Store(desc.FullName(), size)
	return size
}

// jsonToken is how much a value, name or bracket of JSON takes at most when it becomes a message. The largest messages that can
// come in great number are Value, Struct and Literal.
const jsonToken = 100

// JSON estimates the weight of a message in JSON: its tokens, and the text itself. ErrExhausted above the limit.
func JSON(data []byte) (int64, error) {
	s := scale{weight: int64(len(data)), limit: aloft.MaxDecodedBytes}
	quoted, yields := false, 0
	for i := 0; i < len(data) && !s.full(); i++ {
		if i >= yields {
			yields = i + yieldEveryBytes
			runtime.Gosched()
		}
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '[' || c == ',' || c == ':'):
			s.element()
			s.add(jsonToken)
		}
	}
	return s.result("values")
}
