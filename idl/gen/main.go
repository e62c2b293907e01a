// Command gen writes the Go code of the protocol: Flyte's, from the descriptors inside a pinned flyteidl wheel, and
// ours, from the .proto files in idl/aloft.
//
// It is run by hand (`go generate ./idl`, or `go run ./idl/gen aloft` for ours alone) and never as part of a build.
// It needs Go, python3 with venv, and on the first run a package index and a module proxy; everything it fetches is
// pinned to an exact version, the wheel by its digest, and kept in .cache/idl. A failure leaves the committed files as
// they were: new code is written to a temporary folder and moved in place only when all of it is there.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	module = "github.com/aloft-dev/aloft"

	// The wheel is a pure Python one: one file, one digest, the same on every platform.
	wheelRequirement = "flyteidl==1.16.8"
	wheelFile        = "flyteidl-1.16.8-py3-none-any.whl"
	wheelSHA256      = "51acec32bbb6cda17671bf5776c0388d47725d2401385bacc14eda635165b726"
)

// plugins are the protoc plug-ins in the order they run, each with the options that make its output fit: simple
// connect handlers have the same signatures as gRPC's server interfaces, so one implementation serves both, and
// TerminateExecution is a DELETE that carries a body.
var plugins = []plugin{
	{name: "go", install: "google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12"},
	{name: "connect-go", install: "connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1", options: []string{"simple"}},
	{name: "go-grpc", install: "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2", options: []string{"require_unimplemented_servers=false"}},
	{name: "grpc-gateway", install: "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway@v2.27.0", options: []string{"allow_delete_body=true"}},
}

type plugin struct {
	name    string // as in --<name>_out
	install string // package@version for go install
	options []string
}

// A family is one set of definitions and the folder its code belongs to.
type family struct {
	name   string
	folder string // relative to the root of the output
}

var (
	flyte = family{name: "flyte", folder: "idl/flyteidl"}
	ours  = family{name: "aloft", folder: "idl/aloft"}
)

//go:embed image.py
var imageScript []byte

//go:embed requirements.txt
var requirements []byte

func main() {
	root := flag.String("root", ".", "the root of the repository: sources are read and tools are kept there")
	out := flag.String("out", "", "where to write (default: the root)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run ./idl/gen [-root DIR] [-out DIR] [flyte|aloft]\n\n"+
			"Without a name both families are generated.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, out string, names []string) error {
	families := []family{flyte, ours}
	if len(names) > 0 {
		families = slices.DeleteFunc(families, func(f family) bool { return !slices.Contains(names, f.name) })
		if len(families) != len(names) {
			return fmt.Errorf("want some of flyte, aloft; got %s", strings.Join(names, " "))
		}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("find root: %w", err)
	}
	if out == "" {
		out = root
	}
	tools, err := prepare(ctx, filepath.Join(root, ".cache", "idl"))
	if err != nil {
		return err
	}
	for _, f := range families {
		if err := tools.generate(ctx, f, root, out); err != nil {
			return fmt.Errorf("generate %s: %w", f.name, err)
		}
	}
	return nil
}

// toolbox is the cache folder with everything a run needs.
type toolbox struct {
	dir string
}

func (t toolbox) python() string { return filepath.Join(t.dir, "venv", "bin", "python") }
func (t toolbox) bin() string    { return filepath.Join(t.dir, "bin") }
func (t toolbox) image() string  { return filepath.Join(t.dir, "image.binpb") }

// prepare fills the cache folder, or finds it filled by a run with the same pins.
func prepare(ctx context.Context, dir string) (toolbox, error) {
	t := toolbox{dir: dir}
	stamp, want := filepath.Join(dir, "pins"), pins(plugins)
	if got, err := os.ReadFile(stamp); err == nil && string(got) == want {
		return t, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return t, fmt.Errorf("clear %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return t, fmt.Errorf("make %s: %w", dir, err)
	}
	for _, step := range []func(context.Context) error{t.installPython, t.installWheel, t.writeImage, t.installPlugins} {
		if err := step(ctx); err != nil {
			return t, err
		}
	}
	return t, os.WriteFile(stamp, []byte(want), 0o644)
}

// pins names everything that decides what a cache folder holds.
func pins(plugins []plugin) string {
	h := sha256.New()
	fmt.Fprintln(h, wheelSHA256)
	for _, p := range plugins {
		fmt.Fprintln(h, p.install)
	}
	h.Write(requirements)
	h.Write(imageScript)
	return hex.EncodeToString(h.Sum(nil))
}

func (t toolbox) installPython(ctx context.Context) error {
	list := filepath.Join(t.dir, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o644); err != nil {
		return fmt.Errorf("write requirements: %w", err)
	}
	if err := command(ctx, nil, "python3", "-m", "venv", filepath.Join(t.dir, "venv")); err != nil {
		return err
	}
	// Only wheels: nothing that is fetched may run code while it is installed.
	return command(ctx, nil, t.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
		"--only-binary=:all:", "--no-deps", "-r", list)
}

// installWheel refuses a wheel that is not, byte for byte, the one this code was generated from.
func (t toolbox) installWheel(ctx context.Context) error {
	err := command(ctx, nil, t.python(), "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
		"--no-deps", "--only-binary=:all:", "--dest", t.dir, wheelRequirement)
	if err != nil {
		return err
	}
	wheel := filepath.Join(t.dir, wheelFile)
	content, err := os.ReadFile(wheel)
	if err != nil {
		return fmt.Errorf("read wheel: %w", err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != wheelSHA256 {
		return fmt.Errorf("check %s: its SHA-256 is %x, want %s", wheelFile, sum, wheelSHA256)
	}
	return command(ctx, nil, t.python(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", wheel)
}

func (t toolbox) writeImage(ctx context.Context) error {
	script := filepath.Join(t.dir, "image.py")
	if err := os.WriteFile(script, imageScript, 0o644); err != nil {
		return fmt.Errorf("write image script: %w", err)
	}
	return command(ctx, nil, t.python(), script, t.image())
}

// installPlugins builds each plug-in by its own go.mod: our module's versions do not reach into generated code.
func (t toolbox) installPlugins(ctx context.Context) error {
	for _, p := range plugins {
		if err := command(ctx, []string{"GOBIN=" + t.bin(), "GOFLAGS=", "GOOS=", "GOARCH="}, "go", "install", p.install); err != nil {
			return err
		}
	}
	return nil
}

// generate runs every plug-in over one family and then brings the family's folder up to date.
func (t toolbox) generate(ctx context.Context, f family, root, out string) error {
	theirs, err := t.imageFiles()
	if err != nil {
		return err
	}
	own, err := protoFiles(filepath.Join(root, "idl"))
	if err != nil {
		return err
	}
	sources := theirs
	if f == ours {
		sources = own
	}
	if len(sources) == 0 {
		return place(filepath.Join(out, f.folder), "")
	}
	fresh, err := os.MkdirTemp(t.dir, "generated-")
	if err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	defer os.RemoveAll(fresh)

	// protoc knows the Python package's files by the image and ours by their folder.
	arguments := []string{"-m", "grpc_tools.protoc", "--descriptor_set_in=" + t.image(), "-I" + filepath.Join(root, "idl")}
	for _, p := range plugins {
		options := append([]string{"module=" + module}, p.options...)
		for _, file := range slices.Concat(theirs, own) {
			options = append(options, "M"+file+"="+goPackage(file))
		}
		arguments = append(arguments,
			"--plugin=protoc-gen-"+p.name+"="+filepath.Join(t.bin(), "protoc-gen-"+p.name),
			"--"+p.name+"_out="+strings.Join(options, ",")+":"+fresh)
	}
	if err := command(ctx, nil, t.python(), append(arguments, sources...)...); err != nil {
		return err
	}
	return place(filepath.Join(out, f.folder), filepath.Join(fresh, f.folder))
}

// goPackage maps a definition to the Go package that holds it: its folder under idl. The well-known and google.api
// types are not mapped; their own go_package leads to the public modules.
func goPackage(file string) string {
	folder := path.Join(module, "idl", path.Dir(file))
	if name, isOurs := strings.CutPrefix(path.Dir(file), "aloft/"); isOurs {
		return folder + ";aloft" + name
	}
	return folder + ";" + path.Base(folder)
}

// imageFiles returns the definitions Flyte publishes, without those they only import.
func (t toolbox) imageFiles() ([]string, error) {
	content, err := os.ReadFile(t.image())
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	var image descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(content, &image); err != nil {
		return nil, fmt.Errorf("parse image: %w", err)
	}
	var files []string
	for _, file := range image.GetFile() {
		if strings.HasPrefix(file.GetName(), "flyteidl/") {
			files = append(files, file.GetName())
		}
	}
	return files, nil
}

// protoFiles returns our own definitions, as protoc names them: relative to the idl folder.
func protoFiles(idl string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(filepath.Join(idl, "aloft"), func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fs.SkipAll
		}
		if err != nil || entry.IsDir() || filepath.Ext(file) != ".proto" {
			return err
		}
		name, err := filepath.Rel(idl, file)
		files = append(files, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("find our definitions: %w", err)
	}
	return files, nil
}

// place makes the generated files of a folder those of a fresh one, file by file, so that a compiler that runs meanwhile
// never meets a half-written file. What was not generated (.proto files, a package doc) stays. An empty fresh folder
// name stands for no files.
func place(folder, fresh string) error {
	wanted := map[string][]byte{}
	if fresh != "" {
		err := filepath.WalkDir(fresh, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			name, err := filepath.Rel(fresh, file)
			if err != nil {
				return err
			}
			wanted[name], err = os.ReadFile(file)
			return err
		})
		if err != nil {
			return fmt.Errorf("read generated files: %w", err)
		}
	}
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return fs.SkipAll
		}
		if err != nil || entry.IsDir() || !isGenerated(file) {
			return err
		}
		name, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		if _, keep := wanted[name]; keep {
			return nil
		}
		return os.Remove(file)
	})
	if err != nil {
		return fmt.Errorf("remove stale files: %w", err)
	}
	for name, content := range wanted {
		target := filepath.Join(folder, name)
		if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		if err := os.WriteFile(target+".new", content, 0o644); err != nil {
			return fmt.Errorf("write generated file: %w", err)
		}
		if err := os.Rename(target+".new", target); err != nil {
			return fmt.Errorf("place generated file: %w", err)
		}
	}
	return nil
}

func isGenerated(file string) bool {
	for _, suffix := range []string{".pb.go", ".pb.gw.go", ".connect.go"} {
		if strings.HasSuffix(file, suffix) {
			return true
		}
	}
	return false
}

// command runs a tool; what it printed is part of the error, since that is where its reason is.
func command(ctx context.Context, env []string, name string, arguments ...string) error {
	c := exec.CommandContext(ctx, name, arguments...)
	c.Env = append(os.Environ(), env...)
	if output, err := c.CombinedOutput(); err != nil {
		// Only the first words: the list of package options is thousands of characters long.
		return fmt.Errorf("run %s %s: %w\n%s", name, strings.Join(arguments[:min(3, len(arguments))], " "), err, output)
	}
	return nil
}
