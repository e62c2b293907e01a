package aloft_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"strings"
	"testing"
)

// TestTheDocumentedLimitsAreThoseOfTheCode reads the constants of limit.go and looks for each in the table of docs/limits.md.
func TestTheDocumentedLimitsAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, "limit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := new(types.Config).Check("aloft", files, []*ast.File{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	names := p.Scope().Names()
	for _, name := range names {
		limit, ok := p.Scope().Lookup(name).(*types.Const)
		if !ok {
			continue
		}
		n, _ := constant.Int64Val(limit.Val())
		if want := fmt.Sprintf("| %s | %s |", written(n), name); !strings.Contains(string(doc), want) {
			t.Errorf("docs/limits.md has no line with %q", want)
		}
	}
	if rows := strings.Count(string(doc), "| Max"); rows != len(names) {
		t.Errorf("docs/limits.md has %d limits, limit.go has %d", rows, len(names))
	}
}

// written is a limit in the form of docs/limits.md.
func written(n int64) string {
	unit := ""
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		n, unit = n>>20, " MiB"
	case n >= 1<<16 && n%(1<<10) == 0:
		n, unit = n>>10, " KiB"
	}
	if n >= 1000 {
		return fmt.Sprintf("%d,%03d%s", n/1000, n%1000, unit)
	}
	return fmt.Sprint(n) + unit
}
