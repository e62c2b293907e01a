package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

func newLogs(defaults Defaults) *cobra.Command {
	var (
		follow  bool
		raw     bool
		attempt int
		tail    int64
	)
	command := &cobra.Command{
		Use:   "logs EXECUTION [NODE]",
		Short: "Show what an execution's tasks wrote to stdout and stderr",
		Long: `Show what an execution's tasks wrote to stdout and stderr.

Without NODE every line begins with the node that wrote it. NODE is its id, its id in the
workflow, or its name. stdout goes to stdout and stderr to stderr. Lines
that flytekit logs as JSON are shown as text, and Python errors without flytekit's own frames; --raw
shows every line as it was written.

With -o json every line, as it was written, is a JSON object in a line of its own: node, attempt (counted
from 1), stream (stdout or stderr) and text.`,
		Example: `  aloft logs a7xkq2m9fz4n8wv6tbrl
  aloft logs a7xkq2m9fz4n8wv6tbrl n2 --follow
  aloft logs a7xkq2m9fz4n8wv6tbrl n2 --attempt 1 --tail 20
  aloft logs a7xkq2m9fz4n8wv6tbrl -o json | jq -r 'select(.stream == "stderr").text'`,
		Args: cobra.RangeArgs(1, 2),
	}
	c := flags(command, defaults)
	command.ValidArgsFunction = c.completeExecutionAndNode
	command.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the execution, or the node, has ended")
	command.Flags().BoolVar(&raw, "raw", false, "each line as it was written")
	command.Flags().IntVar(&attempt, "attempt", 0, "one attempt only, counted from 1; 0: all of them")
	command.Flags().Int64Var(&tail, "tail", 0, "begin with the last lines of each stream; 0: with the first")
	command.RunE = func(command *cobra.Command, args []string) error {
		if attempt < 0 || attempt > math.MaxUint32 {
			return &ExitError{Code: 2, Message: fmt.Sprintf("--attempt %d: attempts are counted from 1, as `aloft status` shows them", attempt)}
		}
		if tail < 0 {
			return &ExitError{Code: 2, Message: fmt.Sprintf("--tail %d: want a number of lines, or 0 for all of them", tail)}
		}
		id, err := c.execution(args[0])
		if err != nil {
			return err
		}
		request := &aloftv1.GetLogsRequest{Id: id, Follow: follow, TailLines: tail}
		if len(args) > 1 {
			request.Node = args[1]
		}
		if attempt > 0 {
			number := uint32(attempt - 1)
			request.Attempt = &number
		}
		ctx := command.Context()
		if follow {
			var stop context.CancelFunc
			ctx, stop = interruptible(ctx)
			defer stop()
		}
		goesOn := backgroundWork{"The tasks go on, and their logs are kept", "", "aloft logs " + strings.Join(args, " ") + " --follow"}
		stream, err := c.run.GetLogs(ctx, request)
		if err != nil {
			return c.explainEnd(ctx, err, goesOn)
		}
		defer func() { _ = stream.Close() }()
		printer := &logPrinter{out: command.OutOrStdout(), err: command.ErrOrStderr(), prefix: request.Node == "", raw: raw, json: c.output == "json", partial: map[string][]byte{}}
		for stream.Receive() {
			if err := printer.print(stream.Msg()); err != nil {
				return err
			}
		}
		if err := printer.flush(); err != nil {
			return err
		}
		if len(printer.begun) == 0 && c.output != "json" && stream.Err() == nil {
			fmt.Fprintln(command.ErrOrStderr(), "nothing was written")
		}
		return c.explainEnd(ctx, stream.Err(), goesOn)
	}
	return command
}

// logPrinter writes whole lines, so that those of different nodes do not mix.
type logPrinter struct {
	out, err io.Writer
	prefix   bool
	raw      bool
	json     bool
	begun    map[string]bool   // streams of which a line was written
	partial  map[string][]byte // bytes after the last newline, by stream
	order    []string
	last     map[string]*aloftv1.GetLogsResponse
}

func (p *logPrinter) print(chunk *aloftv1.GetLogsResponse) error {
	key := fmt.Sprintf("%s/%d/%d", chunk.GetNode(), chunk.GetAttempt(), chunk.GetStream())
	if p.last == nil {
		p.last = map[string]*aloftv1.GetLogsResponse{}
	}
	if p.last[key] == nil {
		p.order = append(p.order, key)
	}
	p.last[key] = chunk
	data := append(p.partial[key], chunk.GetData()...)
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			break
		}
		if err := p.line(key, chunk, data[:i]); err != nil {
			return err
		}
		data = data[i+1:]
	}
	p.partial[key] = data
	return nil
}

// flush writes the last lines that have no newline.
func (p *logPrinter) flush() error {
	for _, key := range p.order {
		if len(p.partial[key]) > 0 {
			if err := p.line(key, p.last[key], p.partial[key]); err != nil {
				return err
			}
		}
	}
	return nil
}

// logLine is a line of a log, as -o json has it.
type logLine struct {
	Node    string `json:"node"`
	Attempt uint32 `json:"attempt"` // from 1
	Stream  string `json:"stream"`  // stdout or stderr
	Text    string `json:"text"`    // bytes that are no UTF-8 are replaced
}

func (p *logPrinter) line(key string, chunk *aloftv1.GetLogsResponse, line []byte) error {
	if p.json {
		encoder := json.NewEncoder(p.out)
		encoder.SetEscapeHTML(false)
		return encoder.Encode(logLine{
			Node: chunk.GetNode(), Attempt: chunk.GetAttempt() + 1, Stream: strings.ToLower(chunk.GetStream().String()),
			Text: strings.ToValidUTF8(string(line), "\ufffd"),
		})
	}
	lines := []string{string(line)}
	if !p.raw {
		if !p.begun[key] && len(bytes.TrimSpace(line)) == 0 {
			return nil // flytekit writes an empty line at the beginning of each log
		}
		lines = readableLog(string(line))
	}
	if p.begun == nil {
		p.begun = map[string]bool{}
	}
	p.begun[key] = true
	w := p.out
	if chunk.GetStream() == aloftv1.GetLogsResponse_STDERR {
		w = p.err
	}
	name := ""
	if p.prefix {
		name = chunk.GetNode()
		if chunk.GetAttempt() > 0 {
			name += fmt.Sprintf(" (attempt %d)", chunk.GetAttempt()+1)
		}
		name += " | "
	}
	for _, text := range lines {
		if _, err := fmt.Fprintf(w, "%s%s\n", name, text); err != nil {
			return err
		}
	}
	return nil
}
