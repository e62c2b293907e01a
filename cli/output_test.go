package cli

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestTheLineThatSaysWhatHappenedIsShown(t *testing.T) {
	t.Parallel()
	for message, want := range map[string]string{
		"Trace:\n\n    Traceback (most recent call last):\n    x\n\nMessage:\n\n    ValidationError: 1 validation error for M\n    a\n      For further information visit x\n\nThe task asks": "ValidationError: 1 validation error for M",
		"": "",
		"[1/1] currentAttempt done. Last Error: USER::task execution timeout [1s] expired":                                           "task execution timeout [1s] expired",
		"task t was terminated by signal 11 (SIGSEGV, segmentation fault).\nIts last output was:\na warning\nanother":                "task t was terminated by signal 11 (SIGSEGV, segmentation fault).",
		"Trace:\n\n    Traceback (most recent call last):\n      File \"a.py\"\n\nMessage:\n\n    ValueError: bad\n":                 "ValueError: bad",
		"[3/3] currentAttempt done. Last Error: USER::Trace:\n\n Traceback (most recent call last):\n x\n\nMessage:\n\n KeyError: k": "KeyError: k",
	} {
		if got := firstLine(message); got != want {
			t.Errorf("of %q: got %q, want %q", message, got, want)
		}
	}
}

func TestJSONIsWrittenOfWhatHasNone(t *testing.T) {
	t.Parallel()
	custom := &structpb.Struct{Fields: map[string]*structpb.Value{"x": structpb.NewNumberValue(math.NaN())}}
	task := &admin.Task{Closure: &admin.TaskClosure{CompiledTask: &core.CompiledTask{Template: &core.TaskTemplate{Custom: custom}}}}
	var alone, beside bytes.Buffer
	if err := printJSON(&alone, task); err != nil {
		t.Error(err)
	}
	if err := printJSONWith(&beside, task, map[string]any{"more": 1}); err != nil {
		t.Error(err)
	}
	for _, got := range []string{alone.String(), beside.String()} {
		if !json.Valid([]byte(got)) || !strings.Contains(got, `"NaN"`) {
			t.Errorf("got %s", got)
		}
	}
}

func TestTheCauseThatFlytekitWrapsIsShownWithWhatItIsAbout(t *testing.T) {
	t.Parallel()
	const convert = "Failed to convert outputs of task 'm.t' at position 0.\n    Failed to convert type <class 'a'> to type <class 'b'>.\n    Error Message: "
	trace := "Trace:\n\n    Traceback (most recent call last):\n      File \"a.py\", line 1, in f\n        g()\n    botocore.NoCredentialsError: none\n    here\n\n    During handling of the above exception, another exception occurred:\n\n    Traceback (most recent call last):\n    E: x\n"
	for message, want := range map[string]string{ // as flytekit 1.16 says it
		"TypeTransformerFailedError: " + convert + "Expected value of type <class 'int'> but got 'text' of type <class 'str'>.":                                                                                                                      "output 0 of m.t: Expected value of type <class 'int'> but got 'text' of type <class 'str'>",
		"FlyteAssertion: USER:AssertionError: error=" + convert + "File /tmp/there.csv does not exist.":                                                                                                                                              "output 0 of m.t: File /tmp/there.csv does not exist",
		"TypeTransformerFailedError: " + convert + "Python value cannot be None, expected <class 'int'>/Flyte Serialized object (LiteralType):\n      simple: 1.":                                                                                    "output 0 of m.t: Python value cannot be None, expected <class 'int'>",
		"FlyteUploadDataException: SYSTEM:UploadDataError: error=" + convert + "Failed to put data from x.txt to s3://b/x y.txt (recursive=False).\n    \n    Original exception: Unable to locate credentials., cause=Unable to locate credentials": "output 0 of m.t: cannot put x.txt to s3://b/x y.txt: Unable to locate credentials",
		"FlyteDownloadDataException: SYSTEM:DownloadDataError: error=Failed to get data from s3://b/d to /tmp/x (recursive=True).\n    \n    Original exception: Unable to locate credentials":                                                       "cannot get s3://b/d: Unable to locate credentials",
		"FlyteDownloadDataException: SYSTEM:DownloadDataError: error=Failed to get data from s3://b/d to /tmp/x (recursive=True).\n    \n    Original exception: ":                                                                                   "cannot get s3://b/d: botocore.NoCredentialsError: none",
		"TypeTransformerFailedError: Error converting input 'df':\n    Literal value: scalar {\n    }\n    \n    Expected Python type: <class 'pandas.DataFrame'>\n    Exception: no such column":                                                    "input df: no such column",
		"TypeTransformerFailedError: Failed to convert inputs of task 'm.u':\n      Cannot convert 1":                                                                                                                                                "inputs of m.u: Cannot convert 1",
		"FlyteRecoverableException: RecoverableFlyteException: error=try again, cause=it is busy":                                                                                                                                                    "FlyteRecoverableException: try again",
		"ValueError: ": "ValueError",
		"ValueError: Failed\n    Exception: is the user's own": "ValueError: Failed",
	} {
		if got := firstLine(trace + messageMark[1:] + "    " + message); got != want {
			t.Errorf("of %q\ngot  %q\nwant %q", message, got, want)
		}
	}
}

func TestTheLastColumnOfATableIsFittedToATerminalAndWholeInAPipe(t *testing.T) {
	t.Parallel()
	const text = "a sentence of many words that says what happened"
	rows := func() [][]string { return [][]string{{"NAME", "ERROR"}, {"ärger", text}, {"x", "none"}} }
	for width, want := range map[int]string{
		0:   "ärger  " + text + "\nx      none\n",
		100: "ärger  " + text + "\nx      none\n",
		40:  "ärger  a sentence of many words that sa…\nx      none\n",
		39:  "ärger  a sentence of many words that s…\nx      none\n",
		10:  "ärger  a sentence of many…\nx      none\n",
	} {
		var out bytes.Buffer
		if err := tableWithin(&out, rows(), width); err != nil || out.String() != "NAME   ERROR\n"+want {
			t.Errorf("in %d characters: %v\n%swant\n%s", width, err, &out, want)
		}
	}
	var out bytes.Buffer
	if err := table(&out, rows()); err != nil || !strings.Contains(out.String(), text) {
		t.Errorf("in a pipe: %v\n%s", err, &out)
	}
}

func TestAClippedLineEndsItsColours(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"plain text":                  "plain",
		"short":                       "short",
		"\x1b[31mred\x1b[0m and more": "\x1b[31mred\x1b[0m a\x1b[0m",
	} {
		if got := clip(line, 5); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNothingThatATaskOrAClientWritesMovesTheTerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain, ä, 漢字\twith a\nline": "plain, ä, 漢字\twith a\nline",
		"\x1b]0;pwned\x07\x1b[2J":    `\x1b]0;pwned\a\x1b[2J`,
		"over\rwritten \u0085\u009b": `over\rwritten \u0085\u009b`,
		"gnp.exe\u202etxt":           `gnp.exe\u202etxt`,
	} {
		if got := printable(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
	hostile := func() *admin.Execution {
		return &admin.Execution{
			Id:   &core.WorkflowExecutionIdentifier{Name: "a\x1b"},
			Spec: &admin.ExecutionSpec{Tags: []string{"b\x1b"}, Labels: &admin.Labels{Values: map[string]string{"c\x1b": "d\x1b"}}},
			Closure: &admin.ExecutionClosure{
				OutputResult: &admin.ExecutionClosure_Error{Error: &core.ExecutionError{Message: "e\x1b"}},
				ComputedInputs: &core.LiteralMap{Literals: map[string]*core.Literal{"f\x1b": {Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: []*core.Literal{
					{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: "g\x1b"}}}}}},
				}}}}}},
			},
		}
	}
	answer := hostile()
	printableAnswers{active: func() bool { return true }}.clean(answer)
	encoded := answer.String()
	values := answer.GetClosure().GetComputedInputs().GetLiterals()[`f\x1b`]
	if kept := values.GetCollection().GetLiterals()[0].GetScalar().GetPrimitive().GetStringValue(); kept != "g\x1b" {
		t.Errorf("a value is %q, which its quotes escape once more", kept)
	}
	if strings.Contains(encoded, "\x1b") || strings.Contains(encoded, `\x1b"`) && !strings.Contains(encoded, `\\x1b`) {
		t.Errorf("still hostile: %s", encoded)
	}
	if got := answer.GetClosure().GetComputedInputs().GetLiterals(); len(got) != 1 || got[`f\x1b`] == nil {
		t.Errorf("inputs are %v, want the one with a name that can be shown", got)
	}
	for _, letter := range "abcdef" {
		if !strings.Contains(encoded, string(letter)+`\\x1b`) {
			t.Errorf("%c is not shown with its escape: %s", letter, encoded)
		}
	}
	untouched := hostile()
	printableAnswers{active: func() bool { return false }}.clean(untouched)
	if untouched.GetId().GetName() != "a\x1b" {
		t.Error("what is for machines was changed")
	}
}

const traceback = `Trace:

    Traceback (most recent call last):
      File "/venv/lib/python3.11/site-packages/flytekit/core/base_task.py", line 767, in dispatch_execute
        native_outputs = self.execute(**native_inputs)
                         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      File "/data/attempts/p_d_e_n0_0/pkg/err.py", line 10, in t
        load("x")
      File "/venv/lib/python3.11/site-packages/pandas/io.py", line 1, in load
        raise ValueError("bad")
    ValueError: bad

Message:

    ValueError: bad`

func TestAPythonErrorIsShownWithoutTheFramesOfFlytekit(t *testing.T) {
	t.Parallel()
	want := `Trace:

    Traceback (most recent call last):
      File "pkg/err.py", line 10, in t
        load("x")
      File "/venv/lib/python3.11/site-packages/pandas/io.py", line 1, in load
        raise ValueError("bad")
    ValueError: bad

Message:

    ValueError: bad`
	if got := readable(traceback); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := readable("[1/1] currentAttempt done. Last Error: USER::task t was killed.\nIts last output was:\nx"); got != "task t was killed.\nIts last output was:\nx" {
		t.Errorf("an error of one attempt: %q", got)
	}
	bridged := strings.Replace(traceback, "      File \"/data", `      File "/python/lib/python3.11/concurrent/futures/_base.py", line 456, in result
        return self.__get_result()
               ^^^^^^^^^^^^^^^^^^^
      File "/python/lib/python3.11/concurrent/futures/_base.py", line 401, in __get_result
        raise self._exception
      File "/data`, 1)
	if got := readable(bridged); got != want {
		t.Errorf("of an error that flytekit took from another thread: got\n%s\nwant\n%s", got, want)
	}
	converting := "Trace:\n\n    Traceback (most recent call last):\n      File \"/venv/lib/python3.11/site-packages/flytekit/a.py\", line 1, in f\n        g()\n    E: x\n\nMessage:\n\n    T: Error converting input 'x':\n    Exception: no"
	if got := readable(converting); got != "T: Error converting input 'x':\nException: no" {
		t.Errorf("an error of flytekit that has its cause in its message:\n%s", got)
	}
	within := strings.ReplaceAll(strings.ReplaceAll(traceback, "/data/attempts/p_d_e_n0_0/pkg/err.py", "/venv/lib/python3.11/site-packages/flytekit/a.py"),
		"/pandas/io.py", "/flytekit/b.py")
	if got := readable(within); got != within {
		t.Errorf("an error of flytekit itself lost its trace:\n%s", got)
	}
}

func TestFlytekitsOwnLogIsShownAsText(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		`{"asctime": "2026-11-28 02:59:51,029", "name": "flytekit", "levelname": "ERROR", "message": "two\nlines"}`: {"02:59:51,029 ERROR flytekit: two", "lines"},
		`{"asctime": "2026-11-28 02:59:51,029", "name": "mine", "levelname": "ERROR", "message": "x"}`:              {`{"asctime": "2026-11-28 02:59:51,029", "name": "mine", "levelname": "ERROR", "message": "x"}`},
		`{"asctime": cut off`: {`{"asctime": cut off`},
		"plain":               {"plain"},
	} {
		if got := readableLog(line); !slices.Equal(got, want) {
			t.Errorf("%s is shown as %q, want %q", line, got, want)
		}
	}
}

func TestAWordThatIsNoCommandIsAMistake(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"exec": `there is no "exec" of get; did you mean executions?`,
		"taks": `did you mean tasks?`,
		"xxxx": `there is executions, tasks`,
	} {
		command := group(&cobra.Command{Use: "get", SilenceErrors: true, SilenceUsage: true}, &cobra.Command{Use: "executions", Run: func(*cobra.Command, []string) {}}, &cobra.Command{Use: "tasks", Run: func(*cobra.Command, []string) {}})
		command.SetArgs([]string{word})
		if err := command.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("get %s: %v, want %q", word, err, want)
		}
	}
}

func TestARunTakesAsLongInEachList(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(after time.Duration) *timestamppb.Timestamp { return timestamppb.New(created.Add(after)) }
	for name, c := range map[string]struct {
		started, ended *timestamppb.Timestamp
		want           string
	}{
		"that waited for its start":           {at(20 * time.Second), at(23 * time.Second), "3.0 s"},
		"that was aborted before it had one":  {nil, at(5 * time.Second), "5.0 s"},
		"that ended in the moment it started": {at(time.Second), at(time.Second), "0 ms"},
	} {
		closure := &admin.ExecutionClosure{Phase: core.WorkflowExecution_ABORTED, CreatedAt: at(0), StartedAt: c.started, UpdatedAt: c.ended}
		if c.started != nil {
			closure.Duration = durationpb.New(c.ended.AsTime().Sub(c.started.AsTime()))
		}
		tree := &tree{execution: &aloftv1.ExecutionStatus{CreatedAt: at(0), StartedAt: c.started, EndedAt: c.ended}}
		if got, head := executionTook(closure), tree.head(time.Now()); got != c.want || !strings.HasSuffix(head, "  "+c.want) {
			t.Errorf("%s: a list says %q, a status %q, want %q", name, got, head, c.want)
		}
	}
}

func TestColoursAreLeftOutWhereTheyAreNotWanted(t *testing.T) { //nolint:paralleltest // the test sets environment variables
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	defer terminal.Close()
	for _, c := range []struct {
		term, noColor    string
		drawn, inColours bool
	}{{"xterm", "", true, true}, {"xterm", "1", true, false}, {"dumb", "", false, false}} {
		t.Setenv("TERM", c.term)
		t.Setenv("NO_COLOR", c.noColor)
		if takesEscapes(terminal) != c.drawn || wantsColours(terminal) != c.inColours {
			t.Errorf("TERM=%s NO_COLOR=%s: drawn %v, coloured %v", c.term, c.noColor, takesEscapes(terminal), wantsColours(terminal))
		}
	}
}

func TestAValueIsEscapedOnceAndOneThatIsTooLargeIsSaidToBe(t *testing.T) {
	t.Parallel()
	text := func(s string) *core.Literal {
		return &core.Literal{Value: &core.Literal_Scalar{Scalar: &core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}}}}}}
	}
	a := &fakeServer{
		status: &aloftv1.WatchExecutionResponse{Execution: &aloftv1.ExecutionStatus{Id: &core.WorkflowExecutionIdentifier{Name: "x"}, Phase: core.WorkflowExecution_SUCCEEDED}},
		data: &admin.WorkflowExecutionGetDataResponse{
			FullOutputs: &core.LiteralMap{Literals: map[string]*core.Literal{"o0": text("a\x1b[31m \u202eb \\x1b \u0085")}},
			Outputs:     &admin.UrlBlob{Url: "http://there/outputs.pb", Bytes: 3 << 20},
		},
	}
	server := a.address(t)
	if _, out, said := runCommand(t, server, "status", "x"); !strings.Contains(out, `o0 = "a\x1b[31m \u202eb \\x1b \u0085"`+"\n") {
		t.Errorf("%s%s", out, said)
	}
	var one struct {
		ID struct {
			Name string `json:"name"`
		} `json:"id"`
		Outputs struct {
			Literals map[string]any `json:"literals"`
			URL      string         `json:"url"`
			Bytes    string         `json:"bytes"`
		} `json:"outputs"`
	}
	if _, out, said := runCommand(t, server, "get", "executions", "x", "-o", "json"); json.Unmarshal([]byte(out), &one) != nil || one.ID.Name != "x" || one.Outputs.Literals["o0"] == nil {
		t.Errorf("for machines: %s%s", out, said)
	}
	a.data.FullOutputs = nil
	if _, out, said := runCommand(t, server, "get", "executions", "x", "-o", "json"); json.Unmarshal([]byte(out), &one) != nil || one.Outputs.URL != "http://there/outputs.pb" || one.Outputs.Bytes != "3145728" {
		t.Errorf("for machines: %s%s", out, said)
	}
	if _, out, said := runCommand(t, server, "status", "x"); !strings.Contains(out, "outputs: 3.0 MiB, which is too much to show; as a LiteralMap at http://there/outputs.pb\n") {
		t.Errorf("%s%s", out, said)
	}
}
