package cli

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

// printable makes a text safe for a terminal: characters that would move the cursor, or colour, hide or reorder the text after
// them, are written in Go's notation (\x1b, \u202e). Newlines and tabs stay.
func printable(text string) string {
	if strings.IndexFunc(text, movesCursor) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if movesCursor(r) {
			quoted := fmt.Sprintf("%+q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// movesCursor says whether a character has another effect than to be shown. The characters of unicode.Bidi_Control change the
// direction of the text around them.
func movesCursor(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r))
}

// printableAnswers is an interceptor that makes every text in answers of the server printable, because names, errors and causes
// come from tasks and other clients. Logs are bytes and stay as they are. Literals are made printable by printLiterals, after
// they were written as text. With -o json, active is false: JSON has its own escapes.
type printableAnswers struct{ active func() bool }

func (p printableAnswers) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		answer, err := next(ctx, request)
		if err == nil {
			p.clean(answer.Any())
		}
		return answer, err
	}
}

func (p printableAnswers) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return printableStream{next(ctx, spec), p}
	}
}

func (p printableAnswers) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

type printableStream struct {
	connect.StreamingClientConn
	answers printableAnswers
}

func (s printableStream) Receive(message any) error {
	err := s.StreamingClientConn.Receive(message)
	if err == nil {
		s.answers.clean(message)
	}
	return err
}

func (p printableAnswers) clean(message any) {
	if m, ok := message.(proto.Message); ok && p.active() {
		cleanMessage(m.ProtoReflect())
	}
}

var literalName = (&core.Literal{}).ProtoReflect().Descriptor().FullName()

func cleanMessage(m protoreflect.Message) {
	if m.Descriptor().FullName() == literalName {
		return // see printLiterals: it quotes texts, and would escape a backslash that is added here once more
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		text := field.Kind() == protoreflect.StringKind
		switch {
		case field.IsMap():
			cleanMap(field, value.Map())
		case field.IsList():
			list := value.List()
			for i := range list.Len() {
				if text {
					list.Set(i, protoreflect.ValueOfString(printable(list.Get(i).String())))
				} else if field.Message() != nil {
					cleanMessage(list.Get(i).Message())
				}
			}
		case text:
			if was := value.String(); printable(was) != was {
				m.Set(field, protoreflect.ValueOfString(printable(was)))
			}
		case field.Message() != nil:
			cleanMessage(value.Message())
		}
		return true
	})
}

// cleanMap also cleans keys: names of inputs and outputs are keys.
func cleanMap(field protoreflect.FieldDescriptor, m protoreflect.Map) {
	type entry struct {
		was, key protoreflect.MapKey
		renamed  bool
		value    protoreflect.Value
	}
	var changed []entry
	m.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		clean := entry{was: key, key: key, value: value}
		if field.MapKey().Kind() == protoreflect.StringKind {
			name := printable(key.String())
			clean.key, clean.renamed = protoreflect.ValueOfString(name).MapKey(), name != key.String()
		}
		switch {
		case field.MapValue().Kind() == protoreflect.StringKind:
			clean.value = protoreflect.ValueOfString(printable(value.String()))
		case field.MapValue().Message() != nil:
			cleanMessage(value.Message())
		}
		changed = append(changed, clean)
		return true
	})
	for _, e := range changed {
		if e.renamed {
			m.Clear(e.was)
		}
		m.Set(e.key, e.value)
	}
}
