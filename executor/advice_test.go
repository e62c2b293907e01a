package executor

import (
	"strings"
	"testing"
)

func TestAdviceIsGivenWhereAnErrorIsOfWhereTheTaskRan(t *testing.T) {
	t.Parallel()
	ran := Ran{Image: "localhost:30000/etl:v1", Interpreter: "/venv/bin/python", Reason: "the server was given this interpreter", Folder: "/data/attempts/a"}
	for name, c := range map[string]struct {
		message string
		want    []string // none: no advice
	}{
		"a module": {"Trace:\n\n    Traceback (most recent call last):\n    ModuleNotFoundError: No module named 'lightgbm.sklearn'\n\nMessage:\n\n    ModuleNotFoundError: No module named 'lightgbm.sklearn'",
			[]string{"localhost:30000/etl:v1", "/venv/bin/python (the server was given this interpreter)", "/venv/bin/python -m pip install lightgbm, or, where that has no pip, uv pip install --python /venv/bin/python lightgbm.", "--copy all"}},
		"a relative path":        {"FileNotFoundError: [Errno 2] No such file or directory: 'data/x.csv'", []string{"data/x.csv is not in the task's folder", "--copy all"}},
		"a path of the attempt":  {"    FileNotFoundError: [Errno 2] No such file or directory: '/data/attempts/a/data/x.csv'", []string{"data/x.csv is not in the task's folder"}},
		"a path of the user":     {"FileNotFoundError: [Errno 2] No such file or directory: '/etc/nothing'", nil},
		"a path that leads out":  {"FileNotFoundError: [Errno 2] No such file or directory: '../x'", nil},
		"a text with the words":  {"ValueError: it said ModuleNotFoundError: No module named 'x'", nil},
		"values nested too deep": {"    DecodeError: Error parsing message with type 'flyteidl.core.LiteralMap': Exceeded upb_DecodeOptions_MaxDepth", []string{"nested deep", "FlyteFile"}},
		"another error entirely": {"ValueError: 1", nil},
	} {
		got := ran.Advice(c.message)
		if (got == "") != (len(c.want) == 0) {
			t.Errorf("%s: advice %q", name, got)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: advice %q, want %q in it", name, got, want)
			}
		}
	}
	if got := (Ran{}).Advice("ModuleNotFoundError: No module named 'x'"); got != "" {
		t.Errorf("a program that is no Python of ours: advice %q", got)
	}
}
