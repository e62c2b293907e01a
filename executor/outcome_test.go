package executor

import (
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/literal"
)

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{}, b...)
}

func TestWhatAnAttemptLeftDecidesAboutItsOutcome(t *testing.T) {
	t.Parallel()
	one := map[string]*core.Variable{"o0": {}}
	outputs := encoded(t, &core.LiteralMap{Literals: map[string]*core.Literal{"o0": {}}})
	said := func(kind core.ContainerError_Kind, origin core.ExecutionError_ErrorKind) []byte {
		return encoded(t, &core.ErrorDocument{Error: &core.ContainerError{Code: "USER:RuntimeError", Message: "boom", Kind: kind, Origin: origin}})
	}
	userSaid := said(core.ContainerError_NON_RECOVERABLE, core.ExecutionError_USER)
	undecoded := &core.ContainerError{Code: "SYSTEM", Kind: core.ContainerError_RECOVERABLE, Origin: core.ExecutionError_SYSTEM, // as flytekit 1.16 says it
		Message: "Trace:\n\n    google.protobuf.message.DecodeError: Error parsing message with type 'flyteidl.core.LiteralMap': Exceeded upb_DecodeOptions_MaxDepth\n\nMessage:\n\n    DecodeError: Error parsing message with type 'flyteidl.core.LiteralMap': Exceeded upb_DecodeOptions_MaxDepth"}
	garbage := []byte{0xff, 0xff, 0xff}
	for name, test := range map[string]struct {
		left Left
		want string // outputs, stopped, lost, or kind/recoverable/code
		says string
	}{
		"outputs":                                {Left{Outputs: outputs, Declared: one}, "outputs", ""},
		"more outputs than declared":             {Left{Outputs: encoded(t, &core.LiteralMap{Literals: map[string]*core.Literal{"o0": {}, "x": {}}}), Declared: one}, "outputs", ""},
		"none declared and none written":         {Left{}, "outputs", ""},
		"none declared and an empty map":         {Left{Outputs: []byte{}}, "outputs", ""},
		"none declared and garbage":              {Left{Outputs: garbage}, "outputs", ""},
		"none written":                           {Left{Declared: one, Tail: "last words"}, "USER/true/OutputsNotFound", "last words"},
		"an empty map although one is declared":  {Left{Outputs: []byte{}, Declared: one}, "USER/true/OutputsNotFound", "o0"},
		"two of three are missing":               {Left{Outputs: outputs, Declared: map[string]*core.Variable{"o0": {}, "b": {}, "a": {}}}, "USER/true/OutputsNotFound", "a, b"},
		"outputs that cannot be read":            {Left{Outputs: garbage, Declared: one}, "USER/true/OutputsUnreadable", "outputs.pb"},
		"outputs above the limit":                {Left{Outputs: []byte{}, TooLarge: true, Declared: one}, "USER/false/OutputSizeExceeded", "FlyteFile"},
		"a dynamic task":                         {Left{Futures: true, Declared: one}, "USER/false/DynamicWorkflowBuildFailed", "dynamic"},
		"an exception of the user":               {Left{Error: userSaid, Declared: one}, "USER/false/USER:RuntimeError", "boom"},
		"a recoverable exception":                {Left{Error: said(core.ContainerError_RECOVERABLE, core.ExecutionError_USER)}, "USER/true/USER:RuntimeError", "boom"},
		"an error of the SDK":                    {Left{Error: said(core.ContainerError_RECOVERABLE, core.ExecutionError_SYSTEM)}, "SYSTEM/true/USER:RuntimeError", "boom"},
		"values that Python cannot decode":       {Left{Error: encoded(t, &core.ErrorDocument{Error: undecoded})}, "USER/false/SYSTEM", "MaxDepth"},
		"an error of unknown origin":             {Left{Error: said(core.ContainerError_NON_RECOVERABLE, core.ExecutionError_UNKNOWN)}, "USER/false/USER:RuntimeError", "boom"},
		"an error counts more than outputs":      {Left{Error: userSaid, Outputs: outputs, Declared: one}, "USER/false/USER:RuntimeError", "boom"},
		"an error counts after a non-zero exit":  {Left{Error: userSaid, Code: 1}, "USER/false/USER:RuntimeError", "boom"},
		"an error counts though the end is lost": {Left{Error: userSaid, Lost: "the supervisor was killed"}, "USER/false/USER:RuntimeError", "boom"},
		"an error file that cannot be read":      {Left{Error: garbage, Outputs: outputs, Declared: one}, "SYSTEM/true/ErrorFileBadFormat", "error.pb"},
		"an error file without an error":         {Left{Error: []byte{}, Outputs: outputs, Declared: one}, "outputs", ""},
		"an exit code":                           {Left{Code: 3, Tail: "last words"}, "USER/true/Error", "exit code 3"},
		"an exit code in spite of outputs":       {Left{Code: 3, Outputs: outputs, Declared: one}, "USER/true/Error", "exit code 3"},
		"an exit code's last words":              {Left{Code: 3, Tail: "last words"}, "USER/true/Error", "last words"},
		"a program that is not there":            {Left{Code: 127, Reason: "no such program"}, "USER/true/Error", "no such program"},
		"a signal":                               {Left{Signal: 11}, "USER/true/Error", "task t was terminated by signal 11 (SIGSEGV, segmentation fault)."},
		"a signal and a reason":                  {Left{Signal: 11, Reason: "The disk is full."}, "USER/true/Error", "task t was terminated by signal 11 (SIGSEGV, segmentation fault). The disk is full."},
		"a signal without a name":                {Left{Signal: 127}, "USER/true/Error", "task t was terminated by signal 127."},
		"SIGKILL":                                {Left{Signal: 9, Tail: "last words"}, "SYSTEM/true/Interrupted", "task t was killed (SIGKILL)\nIts last output was:\nlast words"},
		"SIGKILL and a reason":                   {Left{Signal: 9, Reason: "no memory"}, "SYSTEM/true/Interrupted", "task t was killed (SIGKILL): no memory"},
		"SIGKILL of what its shell ran":          {Left{Code: 137}, "SYSTEM/true/Interrupted", "task t terminated with exit code 137, as when what it ran is killed (SIGKILL)"},
		"SIGKILL of what its Python ran":         {Left{Code: 247}, "SYSTEM/true/Interrupted", "task t terminated with exit code 247, as when what it ran is killed (SIGKILL)"},
		"out of memory":                          {Left{Signal: 9, OutOfMemory: true, Limit: 512 << 20}, "USER/true/OOMKilled", "512 MiB"},
		"out of memory after an error":           {Left{Signal: 9, OutOfMemory: true, Error: userSaid}, "USER/true/OOMKilled", "memory"},
		"stopped":                                {Left{Signal: 15, Stopped: "asked to"}, "stopped", ""},
		"stopped though it had an error":         {Left{Signal: 15, Stopped: "asked to", Error: userSaid}, "stopped", ""},
		"lost":                                   {Left{Lost: "the machine restarted"}, "lost", ""},
		"lost with outputs of unknown age":       {Left{Lost: "the machine restarted", Outputs: outputs, Declared: one}, "lost", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.left.Name = "task t"
			outcome := &aloftv1.Outcome{}
			literals := test.left.Read(outcome)
			var got, message string
			switch r := outcome.Result.(type) {
			case nil:
				got = "nothing"
				if literals != nil {
					got = "outputs"
				}
			case *aloftv1.Outcome_Stopped:
				got = "stopped"
			case *aloftv1.Outcome_Lost:
				got = "lost"
			case *aloftv1.Outcome_Failure:
				e := r.Failure.GetError()
				got, message = e.GetKind().String()+"/false/"+e.GetCode(), e.GetMessage()
				if r.Failure.GetRecoverable() {
					got = e.GetKind().String() + "/true/" + e.GetCode()
				}
			}
			if got != test.want || !strings.Contains(message, test.says) {
				t.Errorf("got %s, %q; want %s with %q", got, message, test.want, test.says)
			}
			if outcome.Result != nil && literals != nil {
				t.Error("outputs beside another result")
			}
		})
	}
}

func TestWhatTheTaskSaysOfItsErrorIsKept(t *testing.T) {
	t.Parallel()
	now := timestamppb.Now()
	for _, c := range []struct{ said, want *timestamppb.Timestamp }{
		{now, now}, {nil, nil}, {&timestamppb.Timestamp{Seconds: math.MaxInt64}, nil}, {&timestamppb.Timestamp{Nanos: -1}, nil},
	} {
		outcome := &aloftv1.Outcome{}
		Left{Error: encoded(t, &core.ErrorDocument{Error: &core.ContainerError{Code: "c", Message: "m", Timestamp: c.said, Worker: "w"}})}.Read(outcome)
		if e := outcome.GetFailure().GetError(); !proto.Equal(e.GetTimestamp(), c.want) || e.GetWorker() != "w" {
			t.Errorf("%v: got %v", c.said, e)
		}
	}
}

// listsIn is a literal in so many lists.
func listsIn(l *core.Literal, levels int) *core.Literal {
	for range levels {
		l = &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{l}}}}
	}
	return l
}

// What can be decoded alone and not where it is wrapped would stop its run for ever: it fails the task, by the output's name.
func TestOutputsThatAreNestedTooDeepFailTheTask(t *testing.T) {
	t.Parallel()
	nested := structpb.NewNullValue()
	for range 2 * maxNesting {
		nested = structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{nested}})
	}
	for name, test := range map[string]struct {
		deep *core.Literal
		ok   bool
	}{
		"as deep as may be":                    {listsIn(&core.Literal{}, literal.MaxDepth), true},
		"a level more":                         {listsIn(&core.Literal{}, literal.MaxDepth+1), false},
		"readable alone, and not in a message": {listsIn(&core.Literal{}, 4997), false},
		"readable by nothing":                  {listsIn(&core.Literal{}, 50_000), false},
		"a deep struct": {&core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Generic{
			Generic: &structpb.Struct{Fields: map[string]*structpb.Value{"k": nested}}}}}}, false},
	} {
		outputs := &core.LiteralMap{Literals: map[string]*core.Literal{"flat": {}, "deep": test.deep}}
		outcome := &aloftv1.Outcome{}
		left := Left{Name: "task t", Outputs: encoded(t, outputs), Declared: map[string]*core.Variable{"flat": {}, "deep": {}}}
		if got := left.Read(outcome); test.ok {
			if got == nil {
				t.Errorf("%s: it failed with %v", name, outcome.GetFailure())
			}
			continue
		}
		f := outcome.GetFailure()
		if f.GetError().GetKind() != core.ExecutionError_USER || f.GetRecoverable() || !strings.Contains(f.GetError().GetMessage(), "nested too deep: deep.") {
			t.Errorf("%s: the failure is %v, want one of the user that names the output", name, f)
		}
	}
}

func TestALongMessageLosesItsMiddleAndStaysText(t *testing.T) {
	t.Parallel()
	got := NewFailure(core.ExecutionError_USER, false, "c", "first"+strings.Repeat("é\xff", MaxMessage)+"last").GetError().GetMessage()
	if len(got) > MaxMessage || !utf8.ValidString(got) || !strings.HasPrefix(got, "first") || !strings.HasSuffix(got, "last") || !strings.Contains(got, "Truncated") {
		t.Errorf("%d bytes, valid %v, %.20q … %q", len(got), utf8.ValidString(got), got, got[len(got)-20:])
	}
}
