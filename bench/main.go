// Command bench measures aloft and prints a table of medians beside the goals and the yardstick, which is the figure of Flyte 1 on
// the same kind of machine.
//
// It stands outside of the flow: it builds the program, starts it on fresh data folders, and calls it through the public API, as
// any client would. It relies on Go and, for the measurements of a Python client, on a Python with flytekit; without one their rows
// are missing, which the command says. See README.md beside it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the command.
type bench struct {
	python string
	dir    string // folder for all files that the run makes
	binary string
	quick  bool
	table  []row
}

// row is one line of the table.
type row struct {
	what, got, goal string
	met             bool
	yardstick       string // Flyte 1's figure and the ratio
	load            string
}

func run(ctx context.Context) error {
	b := &bench{}
	only := flag.String("only", "start,api,engine,load,tasks,recover,takeover", "parts to run")
	flag.StringVar(&b.python, "python", os.Getenv("ALOFT_TEST_PYTHON"), "Python with flytekit; default ALOFT_TEST_PYTHON, else .cache/python/bin/python")
	flag.BoolVar(&b.quick, "quick", false, "fewer repetitions: to see that it works, not to compare")
	keep := flag.Bool("keep", false, "keep the data folders")
	flag.Parse()

	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the repository: run this inside of it: %w", err)
	}
	if err := os.Chdir(strings.TrimSpace(string(root))); err != nil {
		return err
	}
	if b.python == "" {
		b.python = filepath.Join(".cache", "python", "bin", "python")
	}
	if b.python, err = filepath.Abs(b.python); err != nil {
		return err
	}
	if err := exec.CommandContext(ctx, b.python, "-c", "import flytekit, grpc").Run(); err != nil {
		fmt.Fprintf(os.Stderr, "no Python with flytekit at %s: `make python` makes one; the parts that need it are left out\n", b.python)
		b.python = ""
	}
	if b.dir, err = os.MkdirTemp("", "aloft-bench-"); err != nil {
		return err
	}
	if *keep {
		fmt.Println("data folders:", b.dir)
	} else {
		defer os.RemoveAll(b.dir)
	}
	b.binary = filepath.Join(b.dir, "aloft")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", b.binary, "./cmd/aloft")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	fmt.Printf("%d cores, %s, load %s\n", runtime.NumCPU(), runtime.Version(), load())
	parts := map[string]func(context.Context) error{
		"start": b.start, "api": b.api, "engine": b.engine, "load": b.load, "tasks": b.tasks, "recover": b.recover, "takeover": b.takeover,
	}
	for name := range strings.SplitSeq(*only, ",") {
		part := parts[name]
		if part == nil {
			return fmt.Errorf("there is no part %q", name)
		}
		from := len(b.table)
		if err := part(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for i := range b.table[from:] {
			fmt.Println("  ", b.table[from+i].what, "·", b.table[from+i].got)
		}
	}
	b.print()
	return nil
}

func (b *bench) add(what, got, goal string, met bool, yardstick string) {
	b.table = append(b.table, row{what, got, goal, met, yardstick, load()})
}

func (b *bench) print() {
	fmt.Printf("\n| | aloft | goal | | yardstick | load |\n|---|--:|--:|---|--:|--:|\n")
	for _, r := range b.table {
		met := "met"
		switch {
		case r.goal == "":
			met = ""
		case !r.met:
			met = "MISSED"
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", r.what, r.got, r.goal, met, r.yardstick, r.load)
	}
}

// load is the load average of the last minute: wall times grow with the load, processor times hardly.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Fields(string(content))[0]
}

func (b *bench) repeat(n int) int {
	if b.quick {
		return max(1, n/10)
	}
	return n
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// server is a running `aloft serve`.
type server struct {
	process *exec.Cmd
	addr    string
	ready   time.Duration // from the start of the program to its first answer
	stderr  *bytes.Buffer
}

// serve starts a server on a data folder and waits for its first answer.
func (b *bench) serve(ctx context.Context, data string, args ...string) (*server, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &server{addr: addr, stderr: &bytes.Buffer{}}
	args = append([]string{"serve", "--data-dir", data, "--listen", addr, "--stop-tasks"}, args...)
	if b.python != "" {
		args = append(args, "--python", b.python)
	}
	s.process = exec.Command(b.binary, args...)
	s.process.Stderr = s.stderr
	began := time.Now()
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	for time.Since(began) < 30*time.Second {
		conn, err := dial(addr)
		if err != nil {
			return nil, err
		}
		call, cancel := context.WithTimeout(ctx, time.Second)
		// Each try has a connection of its own: on one connection gRPC waits longer and longer between tries.
		_, err = service.NewAdminServiceClient(conn).GetVersion(call, &admin.GetVersionRequest{}, grpc.WaitForReady(false))
		cancel()
		_ = conn.Close()
		if err == nil {
			s.ready = time.Since(began)
			return s, nil
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	_ = s.stop()
	return nil, fmt.Errorf("the server does not answer:\n%s", s.stderr)
}

func (s *server) stop() error {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	return s.process.Wait()
}

func (s *server) pid() string { return strconv.Itoa(s.process.Process.Pid) }

func (b *bench) data(name string) string { return filepath.Join(b.dir, name) }

// start measures the time from starting the program to its first answer.
func (b *bench) start(ctx context.Context) error {
	for _, again := range []bool{false, true} {
		var all []float64
		for i := range b.repeat(11) + 2 {
			name := "start"
			if !again {
				name += strconv.Itoa(i)
			}
			s, err := b.serve(ctx, b.data(name))
			if err != nil {
				return err
			}
			all = append(all, s.ready.Seconds()*1000)
			if err := s.stop(); err != nil {
				return err
			}
		}
		ms := median(all)
		what := "exec → first RPC, new data folder"
		if again {
			what = "exec → first RPC, existing data folder"
		}
		b.add(what, fmt.Sprintf("%.0f ms", ms), "≤ 300 ms", ms <= 300, fmt.Sprintf("Flyte 1: ~10 s, %.0f×", 10_000/ms))
	}
	return nil
}

// shape is a result line of api_bench.py.
type shape struct {
	Shape    string             `json:"shape"`
	Nodes    int                `json:"nodes"`
	Median   float64            `json:"median_s"`
	Create   float64            `json:"create_call_s"`
	PerS     float64            `json:"nodes_per_s"`
	CPU      map[string]float64 `json:"cpu_s_per_run"`
	RSS      map[string]int     `json:"rss_mib"`
	Duration float64            `json:"closure_duration_median_s"`
}

func (b *bench) shapes(ctx context.Context, s *server, runs int, args ...string) ([]shape, error) {
	command := exec.CommandContext(ctx, b.python, append([]string{"bench/api_bench.py", "--addr", s.addr, "--pid", "server=" + s.pid(),
		"--runs", strconv.Itoa(runs), "--poll", "0.002", "--type", "core-sleep"}, args...)...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("api_bench.py: %w\n%s\n%s", err, stderr.Bytes(), s.stderr)
	}
	return results[shape](out)
}

func results[T any](out []byte) (all []T, err error) {
	for line := range strings.Lines(string(out)) {
		if text, ok := strings.CutPrefix(line, "RESULT "); ok {
			var one T
			if err := json.Unmarshal([]byte(text), &one); err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no result")
	}
	return all, nil
}

// api measures through Flyte's API, with the client that measured Flyte 1.
func (b *bench) api(ctx context.Context) error {
	if b.python == "" {
		return nil
	}
	s, err := b.serve(ctx, b.data("api"), "--max-parallelism", "0")
	if err != nil {
		return err
	}
	defer func() { _ = s.stop() }()
	if _, err := b.shapes(ctx, s, 3, "one", "chain20", "fan100"); err != nil { // warm
		return err
	}
	one, err := b.shapes(ctx, s, b.repeat(100), "one")
	if err != nil {
		return err
	}
	ms := one[0].Median * 1000
	b.add("one node, create → done", fmt.Sprintf("%.1f ms", ms), "≤ 10 ms", ms <= 10, fmt.Sprintf("Flyte 1: 77 ms, %.0f×", 77/ms))
	chain, err := b.shapes(ctx, s, b.repeat(10), "chain100")
	if err != nil {
		return err
	}
	ms = chain[0].Median * 10
	b.add("chain of 100, per step", fmt.Sprintf("%.2f ms", ms), "≤ 2 ms", ms <= 2, fmt.Sprintf("Flyte 1: 54 ms, %.0f×", 54/ms))
	b.addCPU("chain of 100, CPU per node", chain[0], 82)
	for _, parallelism := range []string{"0", "25"} {
		name := map[string]string{"0": "unlimited", "25": "25 at once"}[parallelism]
		fan, err := b.shapes(ctx, s, b.repeat(10), "--parallelism", parallelism, "fan1000")
		if err != nil {
			return err
		}
		b.add("fan-out 1,000, "+name, fmt.Sprintf("%.0f nodes/s", fan[0].PerS), "≥ 2,000/s", fan[0].PerS >= 2000, fmt.Sprintf("Flyte 1: 99/s, %.0f×", fan[0].PerS/99))
		b.addCPU("fan-out 1,000, "+name+", CPU per node", fan[0], 13)
	}
	fan, err := b.shapes(ctx, s, 1, "one")
	if err != nil {
		return err
	}
	b.add("memory after that", fmt.Sprintf("%d MiB", fan[0].RSS["server"]), "", true, "Flyte 1: 7.5 GB after 9,000 nodes")
	return nil
}

func (b *bench) addCPU(what string, s shape, flyte float64) {
	ms := s.CPU["server"] * 1000 / float64(s.Nodes)
	b.add(what, fmt.Sprintf("%.2f ms", ms), "≤ 0.3 ms", ms <= 0.3, fmt.Sprintf("Flyte 1: %.0f ms, %.0f×", flyte, flyte/ms))
}

// engine runs the benchmarks of the engine and of commits, without API and client, on SQLite and, if it is installed, on
// PostgreSQL.
func (b *bench) engine(ctx context.Context) error {
	database := ""
	if url, stop, err := b.postgres(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "SQLite alone is measured:", err)
	} else {
		defer stop()
		database = url
	}
	// One run of the memory benchmark is twenty executions of 10,000 nodes.
	measured := map[string]map[string]float64{}
	for _, set := range [][3]string{
		{"./engine", "^Benchmark(FanOut10000|Chain100|Echo|Cached)$", strconv.Itoa(b.repeat(5)) + "x"},
		{"./engine", "^BenchmarkMemory$", "1x"},
		{"./store/sqlstore", "^BenchmarkCost$", strconv.Itoa(b.repeat(200)) + "x"},
	} {
		command := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", set[1], "-benchtime", set[2], set[0])
		command.Env = append(os.Environ(), "ALOFT_TEST_POSTGRES="+database)
		out, err := command.CombinedOutput()
		if err != nil {
			return fmt.Errorf("go test -bench: %w\n%s", err, out)
		}
		maps.Copy(measured, metrics(out))
	}
	for _, database := range []string{"SQLite", "PostgreSQL"} {
		fan, ok := measured["FanOut10000/"+database]
		if !ok {
			continue
		}
		rate := fan["nodes/s"]
		goal, met, beside := "≥ 5,000/s", rate >= 5000, fmt.Sprintf("CPU %.3f ms a node", fan["cpu-ms/node"])
		if database == "PostgreSQL" {
			ratio := rate / measured["FanOut10000/SQLite"]["nodes/s"]
			goal, met, beside = "≥ half of SQLite's", ratio >= 0.5, fmt.Sprintf("%.2f of SQLite's, same run; %s without the server's", ratio, beside)
		}
		b.add("engine alone, "+database+", fan-out 10,000", fmt.Sprintf("%.0f nodes/s", rate), goal, met, beside)
		chain := measured["Chain100/"+database]
		b.add("engine alone, "+database+", chain of 100", fmt.Sprintf("%.0f nodes/s", chain["nodes/s"]), "", true, fmt.Sprintf("CPU %.3f ms a node", chain["cpu-ms/node"]))
		echo, cached := measured["Echo/"+database], measured["Cached/"+database]
		b.add("engine alone, "+database+", 10,000 echoes", fmt.Sprintf("%.0f nodes/s", echo["nodes/s"]), "", true, fmt.Sprintf("CPU %.3f ms a node", echo["cpu-ms/node"]))
		goal, met, rate = "≥ 10,000/s", cached["nodes/s"] >= 10_000, cached["nodes/s"]
		if database == "PostgreSQL" {
			goal, met = "", true
		}
		b.add("… the same, their results known", fmt.Sprintf("%.0f nodes/s", rate), goal, met,
			fmt.Sprintf("CPU %.3f ms a node; %.2f of the echoes, same run", cached["cpu-ms/node"], rate/echo["nodes/s"]))
		for _, nodes := range []string{"1", "200"} {
			cost := measured["Cost/"+database+"/nodes="+nodes]
			b.add("commit of "+nodes+" nodes, "+database, fmt.Sprintf("%.0f µs", cost["µs/commit"]), "", true,
				fmt.Sprintf("of it the journal %.0f µs, fencing %.0f µs", cost["µs-journal"], cost["µs-fencing"]))
		}
	}
	first, last := measured["Memory"]["heap-after-10k-bytes"]/(1<<20), measured["Memory"]["heap-after-200k-bytes"]/(1<<20)
	b.add("engine alone, heap after 10,000 and after 200,000 nodes", fmt.Sprintf("%.1f and %.1f MiB", first, last), "flat", last > 0 && last <= 1.25*first, "")
	return nil
}

// metrics reads what go test -bench prints, by the name of the benchmark.
func metrics(out []byte) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		name, is := "", false
		if len(fields) > 3 {
			name, is = strings.CutPrefix(fields[0], "Benchmark")
		}
		if !is {
			continue
		}
		if at := strings.LastIndexByte(name, '-'); at >= 0 { // the number of processors
			name = name[:at]
		}
		all[name] = map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 {
			all[name][fields[i+1]], _ = strconv.ParseFloat(fields[i], 64)
		}
	}
	return all
}

// load has 64 clients create executions at once.
func (b *bench) load(ctx context.Context) error {
	s, err := b.serve(ctx, b.data("load"))
	if err != nil {
		return err
	}
	defer func() { _ = s.stop() }()
	if _, err := createMany(ctx, s.addr, 8, 200); err != nil { // warm
		return err
	}
	var rates, done []float64
	errs, locked, n := 0, 0, 5000
	if b.quick {
		n = 500
	}
	for range 3 {
		got, err := createMany(ctx, s.addr, 64, n)
		if err != nil {
			return err
		}
		rates, done = append(rates, got.perSecond), append(done, float64(got.completed)/got.completing.Seconds())
		errs += got.failed + got.created - got.completed
		if got.first != nil {
			fmt.Println("   first error:", got.first)
			if strings.Contains(got.first.Error(), "locked") {
				locked++
			}
		}
	}
	locked += strings.Count(s.stderr.String(), "database is locked")
	rate := median(rates)
	b.add("CreateExecution from 64 clients", fmt.Sprintf("%.0f/s", rate), "≥ 500/s", rate >= 500, "")
	b.add("… of which not created or not completed", strconv.Itoa(errs), "0", errs == 0, "")
	b.add("… completed executions", fmt.Sprintf("%.0f/s", median(done)), "", true, "")
	b.add("… \"database is locked\"", strconv.Itoa(locked), "0", locked == 0, "")
	return nil
}

// taskResult is the result line of task_bench.py.
type taskResult struct {
	TaskMS                  float64 `json:"task_ms"`
	TaskMinMS               float64 `json:"task_min_ms"`
	TaskP90MS               float64 `json:"task_p90_ms"`
	ExecutionMS             float64 `json:"execution_ms"`
	PrototypeMS             float64 `json:"prototype_ms"`
	TasksPerSecond          float64 `json:"tasks_per_s"`
	PrototypeTasksPerSecond float64 `json:"prototype_tasks_per_s"`
}

// tasks measures Python tasks that do nothing.
func (b *bench) tasks(ctx context.Context) error {
	if b.python == "" {
		return nil
	}
	s, err := b.serve(ctx, b.data("tasks"))
	if err != nil {
		return err
	}
	defer func() { _ = s.stop() }()
	version := strconv.FormatInt(time.Now().UnixNano(), 36)
	// The server is on this machine and uploads are signed links, as for any client.
	register := exec.CommandContext(ctx, filepath.Join(filepath.Dir(b.python), "pyflyte"), "register", "-p", "flytesnacks", "-d", "development", "--version", version, "trivial.py")
	register.Dir = b.data("code") // a folder of its own: what lies beside the file belongs to the code, too
	if err := os.CopyFS(register.Dir, os.DirFS("bench/trivial")); err != nil {
		return err
	}
	register.Env = append(os.Environ(), "FLYTE_PLATFORM_URL="+s.addr, "FLYTE_PLATFORM_INSECURE=true")
	if out, err := register.CombinedOutput(); err != nil {
		return fmt.Errorf("pyflyte register: %w\n%s\n%s", err, out, s.stderr)
	}
	command := exec.CommandContext(ctx, b.python, "bench/task_bench.py", "--addr", s.addr, "--version", version, "--runs", strconv.Itoa(b.repeat(80)))
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("task_bench.py: %w\n%s\n%s", err, stderr.Bytes(), s.stderr)
	}
	all, err := results[taskResult](out)
	if err != nil {
		return err
	}
	r := all[0]
	ratio := r.TaskMS / r.PrototypeMS
	b.add("warm Python task, node ready → outputs committed", fmt.Sprintf("%.1f ms (90 %%: %.1f)", r.TaskMS, r.TaskP90MS), "≤ 1.5 × prototype", ratio <= 1.5,
		fmt.Sprintf("prototype, same run: %.1f ms, ratio %.2f", r.PrototypeMS, ratio))
	b.add("… create → done, one execution", fmt.Sprintf("%.1f ms", r.ExecutionMS), "", true, "")
	b.add("warm Python tasks", fmt.Sprintf("%.0f/s", r.TasksPerSecond), "≥ 75/s", r.TasksPerSecond >= 75, fmt.Sprintf("prototype, 4 in flight: %.0f/s", r.PrototypeTasksPerSecond))
	return nil
}
