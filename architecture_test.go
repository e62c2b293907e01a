package aloft_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/aloft-dev/aloft"

// station is a package's row in the table: which packages of this module it may import. The root, idl and internal/* have no
// rows: all packages may import them. A package without a row has the row of the nearest folder above it, and may import that
// folder.
type station struct {
	name string
	may  []string
	// everything: the package may import all others, because it puts them together.
	everything bool
	// pure packages decide. They and the packages of this module that they import use no disk, network, process, clock, log or
	// random source.
	pure bool
}

// table has the stations in the order of the flow. Packages that stand side by side meet in the store and do not import each other.
// A new package gets a row here before its first import; a row for a package that does not exist yet does no harm.
var table = []station{
	{name: "cmd/aloft", may: []string{"config", "server", "cli", "worker"}},
	{name: "server", everything: true},
	{name: "config"},

	{name: "api", may: []string{"registry", "launch", "recovery/job", "catalog", "store", "blob", "auth", "literal"}},
	{name: "registry", may: []string{"compiler", "literal", "store", "blob"}},
	{name: "compiler", may: []string{"literal"}, pure: true},
	{name: "literal", pure: true},
	{name: "launch", may: []string{"literal", "store"}},
	{name: "recovery", may: []string{"literal", "store"}, pure: true},
	{name: "recovery/job", may: []string{"recovery", "store"}},
	{name: "schedule", may: []string{"launch", "store"}},

	{name: "store"},
	{name: "store/sqlstore", may: []string{"store"}},
	{name: "store/storetest", may: []string{"store"}},

	// recovery: a dry run and the engine decide about a node by the same function.
	{name: "engine", may: []string{"engine/machine", "store", "blob", "catalog", "literal", "recovery"}},
	{name: "engine/machine", may: []string{"literal"}, pure: true},
	{name: "catalog", may: []string{"literal", "store", "blob"}},

	{name: "admission", may: []string{"store"}, pure: true},
	{name: "health", may: []string{"store"}},
	{name: "executor", may: []string{"admission", "store", "blob", "environment", "bundle", "worker", "literal"}},
	{name: "environment", may: []string{"store", "blob"}},
	{name: "bundle", may: []string{"blob"}},
	{name: "worker", may: []string{"blob"}},
	{name: "blob"},

	{name: "notify", may: []string{"store"}},
	{name: "auth", may: []string{"store"}},
	{name: "console"},
	{name: "cli", may: []string{"literal", "config", "examples"}},
	{name: "examples"},
	{name: "sdk"},

	{name: "examples"},
	{name: "bench", everything: true},
	{name: "test", everything: true},
}

// heavy are modules that may be imported only by the packages named here, which are leaves.
var heavy = map[string][]string{
	"modernc.org/sqlite":                     {"store/sqlstore"},
	"zombiezen.com/go/sqlite":                {"store/sqlstore"},
	"github.com/ncruces/go-sqlite3":          {"store/sqlstore"},
	"github.com/jackc/pgx":                   {"store/sqlstore"},
	"github.com/pressly/goose":               {"store/sqlstore"},
	"database/sql":                           {"store/sqlstore"},
	"k8s.io":                                 {"executor/kube"},
	"gocloud.dev":                            {"blob"}, // by a folder of a backend below it
	"github.com/aws":                         {"blob"},
	"connectrpc.com":                         {"api", "server", "cli", "console", "sdk", "bench", "test"},
	"github.com/grpc-ecosystem/grpc-gateway": {"api", "server"},
	"github.com/knadh/koanf":                 {"config"},
	"github.com/spf13/cobra":                 {"cli", "cmd/aloft"},
}

// impure are the packages, with those below them, that a pure package may not import.
var impure = []string{
	"os", "net", "syscall", "database/sql", "log", "io/ioutil", "path/filepath", "plugin",
	"crypto/rand", "math/rand", "golang.org/x/sys", "golang.org/x/net", "google.golang.org/grpc", "connectrpc.com",
}

// clock are the functions of package time that a pure package may not call. It may import time for its types.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer"}

func TestImportsFollowTheTable(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		row, ok := rowOf(p.name)
		if !ok {
			if !isFoundation(p.name) {
				t.Errorf("package %s has no row in the table of architecture_test.go: say there what it may import", p.name)
				continue
			}
			row = station{name: p.name}
		}
		for imported, file := range p.imports {
			name, inside := inModule(imported)
			if inside && !mayImport(row, p.name, name) {
				t.Errorf("%s: %s may not import %s; the table of architecture_test.go gives it %v",
					file, p.name, name, append([]string{"the root", "idl", "internal"}, row.may...))
			}
		}
	}
}

func TestHeavyModulesStayAtTheLeaves(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if within(p.name, "idl") {
			continue // generated code imports modules of the protocol
		}
		for imported, file := range p.imports {
			for prefix, homes := range heavy {
				if within(imported, prefix) && !slices.ContainsFunc(homes, func(home string) bool { return within(p.name, home) }) {
					t.Errorf("%s: %s imports %s, which is for %v alone", file, p.name, imported, homes)
				}
			}
		}
	}
}

func TestPackagesThatDecideAreFreeOfIO(t *testing.T) {
	t.Parallel()
	byName := map[string]pkg{}
	for _, p := range packages(t) {
		byName[p.name] = p
	}
	for _, row := range table {
		if _, exists := byName[row.name]; !row.pure || !exists {
			continue
		}
		reached := reach(byName, row.name)
		for _, name := range slices.Sorted(maps.Keys(reached)) {
			p := byName[name]
			for imported, file := range p.imports {
				if slices.ContainsFunc(impure, func(prefix string) bool { return within(imported, prefix) }) {
					t.Errorf("%s imports %s, but %s (by way of %s) decides and must be handed what it needs", file, imported, row.name, reached[name])
				}
			}
			for _, call := range p.clock {
				t.Errorf("%s, but %s (by way of %s) decides and must be handed the time", call, row.name, reached[name])
			}
		}
	}
}

func TestEveryPackageHasADoc(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.generated {
			continue
		}
		want := "Package " + p.clause
		if p.clause == "main" {
			want = "Command " + path.Base(p.name)
		}
		switch first, rest, _ := strings.Cut(p.doc+" ", want+" "); {
		case strings.TrimSpace(p.doc) == "":
			t.Errorf("package %s has no doc: say its job in a sentence, what it comes after and before, and what it relies on", p.name)
		case first != "":
			t.Errorf("the doc of package %s starts with %.40q, want %q", p.name, p.doc, want+" …")
		case len(strings.Fields(rest)) < 5:
			t.Errorf("the doc of package %s says nothing: %q", p.name, p.doc)
		}
	}
}

// The table is of use only if it refuses imports that it does not name.
func TestTheTableRefusesWhatItDoesNotName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		importer, imported string
		may                bool
	}{
		{"engine", "store", true},
		{"engine", "engine/machine", true},
		{"engine", "executor", false},
		{"engine/machine", "store", false},
		{"store", "store/sqlstore", false},
		{"store/sqlstore", "store", true},
		{"executor/process", "executor", true},
		{"executor/process", "worker", true},
		{"executor/process", "engine", false},
		{"cli", "store", false},
		{"server", "engine", true},
		{"cli", "idl/flyteidl/core", true},
		{"api", "internal/wake", true},
		{"internal/wake", "store", false},
		{"aloft", "idl/flyteidl/core", true},
		{"aloft", "store", false},
		{"aloft", "internal/wake", false},
		{"idl/gen", "aloft", false},
	} {
		row, ok := rowOf(c.importer)
		if !ok && !isFoundation(c.importer) {
			t.Errorf("%s has no row", c.importer)
		}
		if got := mayImport(row, c.importer, c.imported); got != c.may {
			t.Errorf("may %s import %s: got %t, want %t", c.importer, c.imported, got, c.may)
		}
	}
	if _, ok := rowOf("helpers"); ok {
		t.Error("a package that is not in the table was given a row")
	}
}

func rowOf(name string) (station, bool) {
	for ; name != "."; name = path.Dir(name) {
		if i := slices.IndexFunc(table, func(s station) bool { return s.name == name }); i >= 0 {
			return table[i], true
		}
	}
	return station{}, false
}

// isFoundation says whether all packages may import a package. Such packages import little themselves: the root imports idl,
// internal/* the root and idl, idl nothing.
func isFoundation(name string) bool {
	return name == "aloft" || within(name, "idl") || within(name, "internal")
}

func mayImport(row station, importer, imported string) bool {
	switch {
	case row.everything:
		return true
	case within(importer, "idl"):
		return within(imported, "idl")
	case importer == "aloft":
		return within(imported, "idl")
	case within(importer, "internal"):
		return isFoundation(imported)
	case isFoundation(imported), slices.Contains(row.may, imported):
		return true
	}
	// A package without a row may import the folder above whose row it has.
	return row.name == imported && row.name != importer
}

// inModule returns the name of a package of this module by its import path.
func inModule(imported string) (string, bool) {
	if imported == module {
		return "aloft", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// within says whether name is the package parent or below it.
func within(name, parent string) bool {
	return name == parent || strings.HasPrefix(name, parent+"/")
}

// reach returns the packages of this module that a package imports, directly or not, each with the package that imports it.
// It stops at idl, whose messages are pure although its services are not.
func reach(byName map[string]pkg, name string) map[string]string {
	reached := map[string]string{name: name}
	for waiting := []string{name}; len(waiting) > 0; {
		importer := waiting[0]
		waiting = waiting[1:]
		for imported := range byName[importer].imports {
			next, inside := inModule(imported)
			if _, seen := reached[next]; seen || !inside || within(next, "idl") {
				continue
			}
			reached[next] = importer
			waiting = append(waiting, next)
		}
	}
	return reached
}

// pkg is what the sources of a package say, without its tests, which may import other packages.
type pkg struct {
	name      string            // the folder, or aloft for the root
	clause    string            // after the word package
	doc       string            // empty: the package has none
	imports   map[string]string // a file that imports it, by import path
	clock     []string          // places at which the package reads the clock or waits
	generated bool              // all files are generated
}

func packages(t *testing.T) []pkg {
	t.Helper()
	found, err := readPackages()
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 5 {
		t.Fatalf("found %d packages: is this the root of the repository?", len(found))
	}
	return found
}

// readPackages parses all sources of the module. The go command would show the files of one platform only.
var readPackages = sync.OnceValues(func() ([]pkg, error) {
	byFolder := map[string]*pkg{}
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if file != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(file))
		if folder == "." {
			folder = "aloft"
		}
		if byFolder[folder] == nil {
			byFolder[folder] = &pkg{name: folder, imports: map[string]string{}, generated: true}
		}
		return byFolder[folder].add(file)
	})
	var found []pkg
	for _, folder := range slices.Sorted(maps.Keys(byFolder)) {
		found = append(found, *byFolder[folder])
	}
	return found, err
})

func (p *pkg) add(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fset := token.NewFileSet()
	mode := parser.ParseComments
	if strings.HasPrefix(string(content), "// Code generated ") {
		mode |= parser.ImportsOnly
	}
	source, err := parser.ParseFile(fset, file, content, mode)
	if err != nil {
		return err
	}
	p.clause = source.Name.Name
	p.doc += source.Doc.Text()
	p.generated = p.generated && ast.IsGenerated(source)
	timeName := ""
	for _, spec := range source.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		p.imports[imported] = file
		if imported == "time" {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
	}
	if timeName == "" {
		return nil
	}
	ast.Inspect(source, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if left, ok := selector.X.(*ast.Ident); ok && left.Name == timeName && left.Obj == nil && slices.Contains(clock, selector.Sel.Name) {
			p.clock = append(p.clock, fmt.Sprintf("%s uses time.%s", fset.Position(selector.Pos()), selector.Sel.Name))
		}
		return true
	})
	return nil
}

// linked matches a function or a type that ARCHITECTURE.md names together with its file.
var linked = regexp.MustCompile("\\[`(\\w+)`\\]\\(([\\w/.]+\\.go)\\)")

func TestArchitectureNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	links := linked.FindAllStringSubmatch(string(text), -1)
	if len(links) < 10 {
		t.Errorf("ARCHITECTURE.md links %d functions, want at least one for each of its ten steps", len(links))
	}
	for _, link := range links {
		name, file := link[1], link[2]
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Errorf("ARCHITECTURE.md: %v", err)
			continue
		}
		if !slices.ContainsFunc(parsed.Decls, func(d ast.Decl) bool {
			switch d := d.(type) {
			case *ast.FuncDecl:
				return d.Name.Name == name
			case *ast.GenDecl:
				return slices.ContainsFunc(d.Specs, func(s ast.Spec) bool {
					t, ok := s.(*ast.TypeSpec)
					return ok && t.Name.Name == name
				})
			}
			return false
		}) {
			t.Errorf("ARCHITECTURE.md: there is no function and no type %s in %s", name, file)
		}
	}
}

// TestEveryFuzzTargetBeginsWithACorpus: a target without a corpus finds nothing in the time that it gets.
func TestEveryFuzzTargetBeginsWithACorpus(t *testing.T) {
	t.Parallel()
	targets := 0
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() && file != "." && strings.HasPrefix(entry.Name(), ".") {
			return cmp.Or(err, fs.SkipDir)
		}
		if entry.IsDir() || !strings.HasSuffix(file, "_test.go") {
			return nil
		}
		source, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range source.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") || len(f.Type.Params.List) != 1 {
				continue
			}
			targets++
			seeds := false
			ast.Inspect(f, func(node ast.Node) bool {
				selector, ok := node.(*ast.SelectorExpr)
				seeds = seeds || ok && selector.Sel.Name == "Add"
				return true
			})
			kept, err := filepath.Glob(filepath.Join(filepath.Dir(file), "testdata", "fuzz", f.Name.Name, "*"))
			if err != nil {
				return err
			}
			if !seeds && len(kept) == 0 {
				t.Errorf("%s: %s begins with nothing: give it real inputs by Add, or in testdata/fuzz/%s", file, f.Name.Name, f.Name.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if targets < 5 {
		t.Errorf("found %d fuzz targets: is this the root of the repository?", targets)
	}
}
