package literal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"
)

// packedReader reads one MessagePack value in place, so that a part of it can be cut out as it was written: integers keep their
// width and maps their order, both of which would be lost by decoding and encoding.
type packedReader struct {
	data []byte
	r    *bytes.Reader
	d    *msgpack.Decoder
}

func newPackedReader(data []byte) *packedReader {
	r := bytes.NewReader(data)
	return &packedReader{data: data, r: r, d: msgpack.NewDecoder(r)}
}

func (p *packedReader) offset() int { return len(p.data) - p.r.Len() }

type packedKind int

const (
	packedScalar packedKind = iota
	packedList
	packedMap
)

func (p *packedReader) kind() (packedKind, error) {
	code, err := p.d.PeekCode()
	if err != nil {
		return 0, errTruncated
	}
	switch {
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		return packedList, nil
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		return packedMap, nil
	}
	return packedScalar, nil
}

var errTruncated = errors.New("the msgpack value is cut off")

// skip moves behind the next value.
func (p *packedReader) skip(depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	kind, err := p.kind()
	if err != nil {
		return err
	}
	n := 0
	switch kind {
	case packedScalar:
		return p.skipScalar()
	case packedList:
		n, err = p.d.DecodeArrayLen()
	case packedMap:
		n, err = p.d.DecodeMapLen()
		n *= 2
	}
	if err != nil {
		return fmt.Errorf("read msgpack: %w", err)
	}
	for range n {
		if err := p.skip(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

// skipScalar moves behind a scalar by its stated length, without reading it: a wrong length must not cause an allocation.
func (p *packedReader) skipScalar() error {
	at := p.offset()
	n, err := scalarLen(p.data[at:])
	if err != nil {
		return err
	}
	_, err = p.r.Seek(int64(at+n), 0)
	return err
}

// scalarLen is the length of the scalar that b starts with.
func scalarLen(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, errTruncated
	}
	header, width, extra := 1, 0, 0 // bytes before the payload's length, of the length, of an extension's type
	fixed := 0
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0, c == msgpcode.Nil, c == msgpcode.False, c == msgpcode.True:
	case msgpcode.IsFixedString(c):
		fixed = int(c & msgpcode.FixedStrMask)
	case c == msgpcode.Uint8, c == msgpcode.Int8:
		fixed = 1
	case c == msgpcode.Uint16, c == msgpcode.Int16:
		fixed = 2
	case c == msgpcode.Uint32, c == msgpcode.Int32, c == msgpcode.Float:
		fixed = 4
	case c == msgpcode.Uint64, c == msgpcode.Int64, c == msgpcode.Double:
		fixed = 8
	case c == msgpcode.Str8, c == msgpcode.Bin8:
		width = 1
	case c == msgpcode.Str16, c == msgpcode.Bin16:
		width = 2
	case c == msgpcode.Str32, c == msgpcode.Bin32:
		width = 4
	case c >= msgpcode.FixExt1 && c <= msgpcode.FixExt16:
		fixed = 1 + 1<<(c-msgpcode.FixExt1)
	case c == msgpcode.Ext8:
		width, extra = 1, 1
	case c == msgpcode.Ext16:
		width, extra = 2, 1
	case c == msgpcode.Ext32:
		width, extra = 4, 1
	default:
		return 0, fmt.Errorf("msgpack has no code %#x", c)
	}
	if len(b) < header+width {
		return 0, errTruncated
	}
	length := 0
	for _, c := range b[header : header+width] {
		length = length<<8 | int(c)
	}
	n := header + width + extra + fixed + length
	if n > len(b) || n < 0 {
		return 0, errTruncated
	}
	return n, nil
}

// isText says whether a value that begins with code is a MessagePack string.
func isText(code byte) bool {
	return msgpcode.IsFixedString(code) || code == msgpcode.Str8 || code == msgpcode.Str16 || code == msgpcode.Str32
}

// scalar reads a scalar: nil, bool, int64, uint64, float64, string, []byte. An extension (a timestamp) is read as its raw bytes.
func (p *packedReader) scalar() (any, error) {
	at := p.offset()
	if err := p.skipScalar(); err != nil {
		return nil, err
	}
	raw := p.data[at:p.offset()]
	if c := raw[0]; msgpcode.IsExt(c) {
		return raw, nil
	}
	v, err := msgpack.NewDecoder(bytes.NewReader(raw)).DecodeInterfaceLoose()
	if err != nil {
		return nil, fmt.Errorf("read msgpack: %w", err)
	}
	return v, nil
}

// key reads the key of a map entry as text; only string keys can be looked up.
func (p *packedReader) key(depth int) (string, bool, error) {
	kind, err := p.kind()
	if err != nil {
		return "", false, err
	}
	if kind != packedScalar {
		return "", false, p.skip(depth)
	}
	v, err := p.scalar()
	s, ok := v.(string)
	return s, ok, err
}

// rewriteText copies the next value to out, with f applied to every string that is not a key.
func (p *packedReader) rewriteText(out *bytes.Buffer, f func(string) string, depth int) error {
	if depth > MaxDepth {
		return errDepth
	}
	kind, err := p.kind()
	if err != nil {
		return err
	}
	at := p.offset()
	if kind == packedScalar {
		v, err := p.scalar()
		if err != nil {
			return err
		}
		if s, ok := v.(string); ok && isText(p.data[at]) {
			if changed := f(s); changed != s {
				return msgpack.NewEncoder(out).EncodeString(changed)
			}
		}
		out.Write(p.data[at:p.offset()])
		return nil
	}
	var n int
	if kind == packedList {
		n, err = p.d.DecodeArrayLen()
	} else {
		n, err = p.d.DecodeMapLen()
	}
	if err != nil {
		return fmt.Errorf("read msgpack: %w", err)
	}
	out.Write(p.data[at:p.offset()])
	for range n {
		if kind == packedMap {
			from := p.offset()
			if err := p.skip(depth + 1); err != nil {
				return err
			}
			out.Write(p.data[from:p.offset()])
		}
		if err := p.rewriteText(out, f, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// print writes the next value as JSON. A key that is no text is written as a quoted text. A key that contains a map is an error,
// because each level of maps in keys would about double the text.
func (p *packedReader) print(to *printer, key bool, depth int) error {
	if to.full() {
		return nil
	}
	if depth > MaxDepth {
		return errDepth
	}
	kind, err := p.kind()
	if err != nil {
		return err
	}
	switch kind {
	case packedList:
		n, err := p.d.DecodeArrayLen()
		if err != nil {
			return fmt.Errorf("read msgpack: %w", err)
		}
		to.write("[")
		for i := range n {
			if i > 0 {
				to.write(",")
			}
			if err := p.print(to, key, depth+1); err != nil || to.full() {
				return err
			}
		}
		to.write("]")
	case packedMap:
		if key {
			return errors.New("a map in the key of a map has no text")
		}
		n, err := p.d.DecodeMapLen()
		if err != nil {
			return fmt.Errorf("read msgpack: %w", err)
		}
		to.write("{")
		for i := range n {
			if i > 0 {
				to.write(",")
			}
			name := &printer{limit: to.limit}
			if err := p.print(name, true, depth+1); err != nil {
				return err
			}
			if strings.HasPrefix(name.String(), `"`) {
				to.write(name.String())
			} else {
				to.quote(name.String())
			}
			to.write(":")
			if err := p.print(to, key, depth+1); err != nil || to.full() {
				return err
			}
		}
		to.write("}")
	default:
		v, err := p.scalar()
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case nil:
			to.write("null")
		case string:
			to.quote(v)
		case []byte:
			to.write(quoteJSON(base64.StdEncoding.EncodeToString(v)))
		case int64:
			to.write(strconv.FormatInt(v, 10))
		case uint64:
			to.write(strconv.FormatUint(v, 10))
		case float64:
			to.write(floatText(v))
		case bool:
			to.write(strconv.FormatBool(v))
		default:
			to.write(quoteJSON(fmt.Sprint(v)))
		}
	}
	return nil
}
