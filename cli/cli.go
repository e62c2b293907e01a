// Package cli is the command line of people who run and watch pipelines: get, status, logs, cache, terminate, recover,
// doctor, demo.
//
// It stands beside the flow and speaks to a server as everybody else does, through the public API. When the server cannot
// be reached it says which address it tried and how to start one. Human output by default, -o json for machines; exit
// code 0: it worked, 1: it did not, 2: the command line is wrong, 3: the execution that was waited for did not succeed,
// 130: Ctrl-C ended the waiting.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft/idl/aloft/v1/aloftv1connect"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/idl/flyteidl/service/serviceconnect"
)

// Defaults are what the configuration says of a client's flags.
type Defaults struct {
	Server  string // host:port
	Project string
	Domain  string
}

// ExitError ends the program with a code of its own; the message has been shown already if it is empty.
type ExitError struct {
	Code    int
	Message string
}

func (e *ExitError) Error() string { return e.Message }

// Commands are the verbs of this package, to be added to the root command.
func Commands(defaults Defaults) []*cobra.Command {
	if defaults.Server == "" {
		defaults.Server = "localhost:30080"
	}
	if defaults.Project == "" {
		defaults.Project = "flytesnacks"
	}
	if defaults.Domain == "" {
		defaults.Domain = "development"
	}
	return []*cobra.Command{
		newGet(defaults), newStatus(defaults), newLogs(defaults), newCache(defaults), newTerminate(defaults), newRecover(defaults),
		newDoctor(defaults), newDemo(defaults),
	}
}

// client is a connection to a server and the project and domain that names are looked up in.
type client struct {
	server  string // that is asked
	own     string // that flag or configuration name; the address of a page may name another
	usual   string // that the configuration names
	project string
	domain  string
	asked   *core.WorkflowExecutionIdentifier // that the command line names; nil: none
	output  string                            // "" or "json"

	admin    serviceconnect.AdminServiceClient
	run      aloftv1connect.RunServiceClient
	recovery aloftv1connect.RecoveryServiceClient
	result   aloftv1connect.ResultServiceClient
	info     aloftv1connect.ServerServiceClient
}

// flags adds the flags that every verb has and returns the client that they describe; it connects on first use.
func flags(command *cobra.Command, defaults Defaults) *client {
	c := &client{usual: defaults.Server}
	f := command.Flags()
	f.StringVar(&c.server, "server", defaults.Server, "address of the server, host:port or URL; also ALOFT_SERVER, FLYTE_PLATFORM_URL")
	f.StringVarP(&c.project, "project", "p", defaults.Project, "project")
	f.StringVarP(&c.domain, "domain", "d", defaults.Domain, "domain")
	f.StringVarP(&c.output, "output", "o", "", "json: for machines")
	_ = command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
	command.PreRunE = func(command *cobra.Command, args []string) error {
		if c.output != "" && c.output != "json" {
			return &ExitError{Code: 2, Message: fmt.Sprintf("output %q: there is json only", c.output)}
		}
		c.own = c.server
		return c.connect()
	}
	return c
}

func (c *client) connect() error {
	base := strings.TrimSuffix(c.server, "/")
	base = strings.TrimPrefix(base, "dns:///")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	transport := &http.Transport{Protocols: &http.Protocols{}} // HTTP/2 with TLS and without
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	h := &http.Client{Transport: transport}
	answers := printableAnswers{active: func() bool { return c.output == "" }}
	options := connect.WithClientOptions(connect.WithGRPC(), connect.WithInterceptors(answers))
	c.admin = serviceconnect.NewAdminServiceClient(h, base, options)
	c.run = aloftv1connect.NewRunServiceClient(h, base, options)
	c.recovery = aloftv1connect.NewRecoveryServiceClient(h, base, options)
	c.info = aloftv1connect.NewServerServiceClient(h, base, options)
	c.result = aloftv1connect.NewResultServiceClient(h, base, options)
	return nil
}

// explain turns an error of a call into a sentence for people.
func (c *client) explain(err error) error {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return err
	}
	if text := c.unreached(failure); text != "" {
		return &ExitError{Code: 1, Message: text}
	}
	switch {
	case failure.Code() == connect.CodeCanceled:
		return &ExitError{Code: 1, Message: "interrupted"}
	case connect.IsWireError(err): // the server's own
	case failure.Code() == connect.CodeDeadlineExceeded:
		return &ExitError{Code: 1, Message: fmt.Sprintf("the server at %s has not answered in time", c.server)}
	case failure.Code() == connect.CodeResourceExhausted: // a limit of ours, which the message names
	default:
		return &ExitError{Code: 1, Message: fmt.Sprintf("the connection to the server at %s was lost before it had answered; whether it did what was asked is not known: look, and ask again (%s)",
			c.server, printable(failure.Message()))}
	}
	if failure.Code() == connect.CodeNotFound {
		ctx, cancel := context.WithTimeout(context.Background(), placeTime)
		defer cancel()
		if err := c.noPlace(ctx); err != nil {
			return err // nothing can be in it
		}
	}
	message := saidBy(failure)
	if failure.Code() == connect.CodeNotFound && strings.HasSuffix(message, "not found") {
		message += " at " + c.server // it may be there on another one
	}
	return &ExitError{Code: 1, Message: message}
}

// unreached says why a call has not come to a server of aloft; empty: it has, as far as can be told.
func (c *client) unreached(failure *connect.Error) string {
	const name = "name the server's address with --server or ALOFT_SERVER"
	var host *net.DNSError
	var dial *net.OpError
	var plain tls.RecordHeaderError
	text := failure.Message()
	switch {
	case connect.IsWireError(failure):
		if failure.Code() == connect.CodeUnimplemented && strings.Contains(text, "unknown service aloft.") {
			return fmt.Sprintf("what answers at %s is a server of Flyte's services and not aloft, which this command needs; %s", c.server, name)
		}
		return ""
	case errors.As(failure, &host) && host.IsNotFound:
		return fmt.Sprintf("there is no host %q, of the server %s; %s", host.Name, c.server, name)
	case errors.As(failure, &plain), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return fmt.Sprintf("what listens at %s speaks no TLS; an address that begins with http://, or with nothing, is asked without (that of FLYTE_PLATFORM_URL with FLYTE_PLATFORM_INSECURE=true)", c.server)
	case failure.Code() == connect.CodeUnavailable && errors.As(failure, &dial) && dial.Op == "dial":
		return fmt.Sprintf("no server answers at %s; start one with `aloft serve`, or name its address with --server or ALOFT_SERVER", c.server)
	case strings.Contains(text, "http2: frame too large"), strings.Contains(text, "http2: client conn could not be established"), strings.Contains(text, "malformed HTTP"), strings.Contains(text, "invalid content-type"), strings.HasPrefix(text, "HTTP status "):
		return fmt.Sprintf("what listens at %s is not aloft (%s); %s", c.server, printable(text), name)
	}
	return ""
}

// placeTime is how long a server may take to say whether a project is there before we do without.
const placeTime = 5 * time.Second

// saidBy is what a server's error says, as people say it.
func saidBy(failure *connect.Error) string {
	message := failure.Message()
	if failure.Code() == connect.CodeNotFound {
		message = missingEntity.ReplaceAllStringFunc(message, func(text string) string {
			m := missingEntity.FindStringSubmatch(text)
			return strings.ToLower(strings.ReplaceAll(m[1], "_", " ")) + " " + strings.Join(slices.DeleteFunc(m[2:], func(part string) bool { return part == "" }), "/")
		})
		if strings.HasPrefix(message, "there is no ") {
			message = strings.TrimSuffix(message, ": not found")
		}
	}
	return printable(message)
}

// watched is what to say of something that goes on although it is not watched any more.
type watched struct {
	goesOn string // a sentence without its end: "The job goes on"
	away   string // how it goes on while the server is away
	again  string // the command that shows it
}

// interruptedCode is the exit code of shells for a program that Ctrl-C ended.
const interruptedCode = 130

// interruptible ends a context at Ctrl-C, so that a command can say what goes on without it. A second Ctrl-C ends the program.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// explainEnd is explain for the end of a stream. Neither a server that went away in the middle nor Ctrl-C has ended what was
// watched: that is said, and how to look on.
func (c *client) explainEnd(ctx context.Context, err error, w watched) error {
	if c.server != c.usual {
		w.again += " --server " + c.server
	}
	if ctx.Err() != nil {
		return &ExitError{Code: interruptedCode, Message: fmt.Sprintf("interrupted. %s: %s", w.goesOn, w.again)}
	}
	if err == nil {
		return nil
	}
	var failure *connect.Error
	if connect.IsWireError(err) || !errors.As(err, &failure) || failure.Code() == connect.CodeResourceExhausted || c.unreached(failure) != "" {
		return c.explain(err)
	}
	return &ExitError{Code: 1, Message: fmt.Sprintf("the server at %s went away before the end. %s%s: %s", c.server, w.goesOn, w.away, w.again)}
}

// missingEntity is how Flyte's services say what is not there. Ours, and people, say "execution flytesnacks/development/a".
var missingEntity = regexp.MustCompile(`missing entity of type ([\w ]+) with identifier project:"([^"]*)" domain:"([^"]*)" name:"([^"]*)"(?: version:"([^"]*)")?`)

// execution takes an execution's id from an argument: a name, or project/domain/name, or the address of its page, whose
// server is asked then.
func (c *client) execution(argument string) (*core.WorkflowExecutionIdentifier, error) {
	wrong := &ExitError{Code: 2, Message: fmt.Sprintf("execution %q: want a name, project/domain/name, or the address of its page", argument)}
	id, server := &core.WorkflowExecutionIdentifier{Project: c.project, Domain: c.domain, Name: argument}, c.own
	if page, path, ok := strings.Cut(argument, "/console/projects/"); ok {
		path, _, _ = strings.Cut(path, "?")
		path, _, _ = strings.Cut(path, "#")
		parts := strings.Split(strings.TrimSuffix(path, "/"), "/")
		if len(parts) < 5 || parts[1] != "domains" || parts[3] != "executions" {
			return nil, wrong
		}
		id.Project, id.Domain, id.Name = parts[0], parts[2], parts[4]
		if page != "" {
			server = page
		}
	} else if parts := strings.Split(argument, "/"); len(parts) == 3 {
		id.Project, id.Domain, id.Name = parts[0], parts[1], parts[2]
	} else if len(parts) != 1 {
		return nil, wrong
	}
	if id.GetProject() == "" || id.GetDomain() == "" || id.GetName() == "" {
		return nil, wrong
	}
	if server != "" && server != c.server {
		c.server = server
		if err := c.connect(); err != nil {
			return nil, err
		}
	}
	c.asked = id
	return id, nil
}

// group makes a command that only holds others. Of a word that is none of them it says what was meant, if that is clear.
func group(command *cobra.Command, members ...*cobra.Command) *cobra.Command {
	command.AddCommand(members...)
	command.SuggestionsMinimumDistance = 2
	command.DisableFlagParsing = true // it has none, and a word that is none of them comes before flags of what was meant
	command.Args = func(command *cobra.Command, args []string) error {
		if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
			return nil
		}
		if strings.HasPrefix(args[0], "-") {
			return &ExitError{Code: 2, Message: fmt.Sprintf("there is no flag %s of %s; `%[2]s --help` lists all", args[0], command.CommandPath())}
		}
		names := make([]string, len(members))
		for i, m := range members {
			names[i] = m.Name()
		}
		meant := "there is " + strings.Join(names, ", ")
		if near := command.SuggestionsFor(args[0]); len(near) > 0 {
			meant = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return &ExitError{Code: 2, Message: fmt.Sprintf("there is no %q of %s; %s", args[0], command.CommandPath(), meant)}
	}
	command.RunE = func(command *cobra.Command, _ []string) error { return command.Help() }
	return command
}
