package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/examples"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/removal"
)

func newDemo(defaults Defaults) *cobra.Command {
	d := &demo{}
	command := &cobra.Command{
		Use:   "demo",
		Short: "Start a server and run a real pipeline on it through pyflyte",
		Long: `Start a server with a data folder of its own and run a real pipeline on it, through the real client:
scikit-learn's breast cancer data, three models trained side by side, the best one chosen.

Needs a Python with flytekit, pandas, pyarrow, scikit-learn and matplotlib (make demo makes one).
On a terminal the server stays up until Ctrl-C; otherwise the demo ends when the pipeline has.`,
		Example: `  aloft demo
  aloft demo --python .cache/python/bin/python`,
		Args: cobra.NoArgs,
	}
	c := flags(command, defaults)
	command.Flags().StringVar(&d.python, "python", "python3", "interpreter that has flytekit and what the pipeline imports")
	command.Flags().StringVar(&d.data, "data-dir", "", "data folder of the demo's server; empty: a new one, removed at the end")
	command.Flags().StringVar(&d.listen, "listen", "", "where the server listens; empty: localhost:30080, or a free port where that is taken")
	command.RunE = func(command *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(command.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		d.out, d.client = command.OutOrStdout(), c
		err := d.run(ctx)
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	return command
}

type demo struct {
	python, data, listen string
	out                  io.Writer
	client               *client
}

func (d *demo) run(ctx context.Context) error {
	python, err := exec.LookPath(d.python)
	if err != nil {
		return fmt.Errorf("find Python %q: %w; name one that has flytekit with --python, or use `make demo`, which makes one", d.python, err)
	}
	if python, err = filepath.Abs(python); err != nil {
		return err
	}
	check := exec.CommandContext(ctx, python, "-c", "import flytekit, matplotlib, pandas, pyarrow, sklearn")
	if output, err := check.CombinedOutput(); err != nil {
		return fmt.Errorf("%s lacks what the pipeline imports (%s); run `%[1]s -m pip install flytekit pandas pyarrow scikit-learn matplotlib` (without pip: `uv pip install --python %[1]s …`), or use `make demo`", python, firstLine(lastLine(output)))
	}
	if d.data == "" {
		if d.data, err = os.MkdirTemp("", "aloft-demo-"); err != nil {
			return fmt.Errorf("make a data folder: %w", err)
		}
		defer func() { _ = removal.All(context.WithoutCancel(ctx), d.data) }()
	}
	if d.listen == "" {
		d.listen = freeAddress("localhost:30080")
	}
	server, err := d.startServer(ctx, python)
	if err != nil {
		return err
	}
	defer server.stop()
	d.client.server = d.listen
	if err := d.client.connect(); err != nil {
		return err
	}
	id, err := d.runPipeline(ctx, python)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n")
	phase, err := d.client.watch(ctx, id, newTree(d.out), true, d.out)
	if err != nil {
		return err
	}
	if phase != core.WorkflowExecution_SUCCEEDED {
		return &ExitError{Code: 3, Message: "the pipeline did not succeed"}
	}
	fmt.Fprintf(d.out, "\nThe best model:\n")
	if err := d.client.printOutputs(ctx, id, d.out); err != nil {
		return err
	}
	if !isTerminal(d.out) {
		fmt.Fprintf(d.out, "\nOn a terminal the server goes on, to look further. To have one of your own:\n  aloft serve --python %s\n", python)
		return nil
	}
	fmt.Fprintf(d.out, `
Look further, from another terminal:
  aloft status %[1]s --server %[2]s      every node, its attempts and durations
  aloft logs %[1]s --server %[2]s        what the tasks printed
  http://%[2]s/console/projects/%[3]s/domains/%[4]s/executions/%[1]s
Run it again yourself:
  FLYTE_PLATFORM_URL=%[2]s FLYTE_PLATFORM_INSECURE=true %[5]s run --remote examples/breast_cancer.py choose_model --seed 8
`, id.GetName(), d.listen, id.GetProject(), id.GetDomain(), filepath.Join(filepath.Dir(python), "pyflyte"))
	fmt.Fprintf(d.out, "\nThe server runs until you press Ctrl-C.\n")
	select {
	case <-ctx.Done():
	case err := <-server.ended:
		return fmt.Errorf("the server ended: %w\n%s", err, server.output.String())
	}
	return nil
}

// runPipeline registers and launches the pipeline as its author would.
func (d *demo) runPipeline(ctx context.Context, python string) (*core.WorkflowExecutionIdentifier, error) {
	folder, err := os.MkdirTemp("", "aloft-demo-code-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the pipeline: %w", err)
	}
	defer os.RemoveAll(folder)
	if err := os.WriteFile(filepath.Join(folder, "breast_cancer.py"), examples.BreastCancer, 0o644); err != nil {
		return nil, fmt.Errorf("write the pipeline: %w", err)
	}
	pyflyte := exec.CommandContext(ctx, filepath.Join(filepath.Dir(python), "pyflyte"), "run", "--remote", "breast_cancer.py", "choose_model")
	pyflyte.Dir = folder
	pyflyte.Env = append(os.Environ(), "FLYTE_PLATFORM_URL="+d.listen, "FLYTE_PLATFORM_INSECURE=true", "FLYTECTL_CONFIG=", "NO_COLOR=1") //nolint:forbidigo // pyflyte is run as its user would run it
	fmt.Fprintf(d.out, "$ FLYTE_PLATFORM_URL=%s FLYTE_PLATFORM_INSECURE=true pyflyte run --remote examples/breast_cancer.py choose_model\n", d.listen)
	var output bytes.Buffer
	pyflyte.Stdout, pyflyte.Stderr = io.MultiWriter(d.out, &output), io.MultiWriter(d.out, &output)
	if err := pyflyte.Run(); err != nil {
		return nil, fmt.Errorf("pyflyte run: %w", err)
	}
	address := executionPage.FindStringSubmatch(strings.ReplaceAll(output.String(), "\n", ""))
	if address == nil {
		return nil, errors.New("pyflyte did not print the address of the execution")
	}
	return &core.WorkflowExecutionIdentifier{Project: address[1], Domain: address[2], Name: address[3]}, nil
}

var executionPage = regexp.MustCompile(`/console/projects/([\w-]+)/domains/([\w-]+)/executions/([a-z0-9-]+)`)

// demoServer is the server process of the demo.
type demoServer struct {
	process *exec.Cmd
	ended   chan error
	output  *bytes.Buffer
}

func (d *demo) startServer(ctx context.Context, python string) (*demoServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	s := &demoServer{output: &bytes.Buffer{}, ended: make(chan error, 1)}
	s.process = exec.Command(self, "serve", "--data-dir", d.data, "--listen", d.listen, "--python", python, "--stop-tasks")
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches the demo alone, which then stops the server
	begin := time.Now()
	if err := s.process.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	go func() { s.ended <- s.process.Wait() }()
	for {
		if response, err := http.Get("http://" + d.listen + "/healthcheck"); err == nil {
			response.Body.Close()
			break
		}
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the server ended: %w\n%s", err, s.output.String())
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Since(begin) > 30*time.Second {
			s.stop()
			return nil, fmt.Errorf("the server did not answer within 30 s:\n%s", s.output.String())
		}
	}
	fmt.Fprintf(d.out, "server ready at %s after %s, data in %s\n\n", d.listen, took(time.Since(begin)), d.data)
	return s, nil
}

// stop ends the server and the tasks that still run.
func (s *demoServer) stop() {
	if s.process.ProcessState != nil {
		return
	}
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended: //nolint:errcheck // the error of the server changes nothing any more
	case <-time.After(15 * time.Second):
		_ = s.process.Process.Kill()
		<-s.ended //nolint:errcheck // as above
	}
}

// freeAddress is the address itself, or, if its port is taken, the same host with a free port.
func freeAddress(address string) string {
	if listener, err := net.Listen("tcp", address); err == nil {
		listener.Close()
		return address
	}
	listener, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		return address
	}
	defer listener.Close()
	return fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port)
}

func lastLine(output []byte) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return lines[len(lines)-1]
}
