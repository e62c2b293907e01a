// Package cli is the command line for users who run and watch pipelines: get, status, logs, cache, terminate, recover,
// doctor, demo.
//
// It stands beside the flow and calls a server through the public API, as all clients do. When the server cannot be reached, the
// message says which address was tried and how to start a server. Output is for people by default, and JSON with -o json. Exit
// codes: 0: the command succeeded; 1: it failed; 2: the command line is wrong; 3: the execution that the command waited for did not
// succeed; 130: Ctrl-C ended the waiting.
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

// Defaults are the values of a client's flags that the configuration gives.
type Defaults struct {
	Server  string // host:port
	Project string
	Domain  string
}

// ExitError ends the program with an exit code. An empty message means that it has been shown already.
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
	server      string // that is called: as given, or that of a page's address
	givenServer string // that the flag names, or else the configuration
	configured  string // that the configuration names
	project     string
	domain      string
	execID      *core.WorkflowExecutionIdentifier // of the execution that the command line names; nil: it names none
	output      string                            // "" or "json"

	admin    serviceconnect.AdminServiceClient
	run      aloftv1connect.RunServiceClient
	recovery aloftv1connect.RecoveryServiceClient
	result   aloftv1connect.ResultServiceClient
	info     aloftv1connect.ServerServiceClient
}

// flags adds the flags that every verb has and returns the client that they describe. The client connects before the verb runs.
func flags(command *cobra.Command, defaults Defaults) *client {
	c := &client{configured: defaults.Server}
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
		c.givenServer = c.server
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

// explain turns an error of a call into a sentence for users.
func (c *client) explain(err error) error {
	var failure *connect.Error
	if !errors.As(err, &failure) {
		return err
	}
	if text := c.unreachedReason(failure); text != "" {
		return &ExitError{Code: 1, Message: text}
	}
	switch {
	case failure.Code() == connect.CodeCanceled:
		return &ExitError{Code: 1, Message: "interrupted"}
	case connect.IsWireError(err): // the answer of the server
	case failure.Code() == connect.CodeDeadlineExceeded:
		return &ExitError{Code: 1, Message: fmt.Sprintf("the server at %s has not answered in time", c.server)}
	case failure.Code() == connect.CodeResourceExhausted: // a limit of this client, which the message names
	default:
		return &ExitError{Code: 1, Message: fmt.Sprintf("the connection to the server at %s was lost before it had answered; whether it did what was asked is not known: look, and ask again (%s)",
			c.server, printable(failure.Message()))}
	}
	if failure.Code() == connect.CodeNotFound {
		ctx, cancel := context.WithTimeout(context.Background(), placeTimeout)
		defer cancel()
		if err := c.checkPlace(ctx); err != nil {
			return err // there is no such project or domain, so nothing can be in it
		}
	}
	message := serverText(failure)
	if failure.Code() == connect.CodeNotFound && strings.HasSuffix(message, "not found") {
		message += " at " + c.server // another server than the configured one was asked
	}
	return &ExitError{Code: 1, Message: message}
}

// unreachedReason says why a call has not reached a server of aloft; empty: it has, as far as the client can tell.
func (c *client) unreachedReason(failure *connect.Error) string {
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

// placeTimeout is how long a server may take to say whether a project exists; after that the message goes without.
const placeTimeout = 5 * time.Second

// serverText is the text of a server's error, with names as users write them.
func serverText(failure *connect.Error) string {
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

// backgroundWork is the message about an execution or a job that goes on when its command has ended.
type backgroundWork struct {
	goesOn string // a sentence without its end: "The job goes on"
	away   string // the end of that sentence if the server is away: " when the server does"
	again  string // the command that shows the execution or the job again
}

// interruptedCode is the exit code that shells have for a program that Ctrl-C ended.
const interruptedCode = 130

// interruptible ends a context at Ctrl-C, so that the command can say what goes on (backgroundWork). A second Ctrl-C ends the
// program.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// explainEnd is explain for the end of a stream. If the server went away in the middle, or after Ctrl-C, the message says that the
// watched execution or job goes on, and by which command to watch it again.
func (c *client) explainEnd(ctx context.Context, err error, w backgroundWork) error {
	if c.server != c.configured {
		w.again += " --server " + c.server
	}
	if ctx.Err() != nil {
		return &ExitError{Code: interruptedCode, Message: fmt.Sprintf("interrupted. %s: %s", w.goesOn, w.again)}
	}
	if err == nil {
		return nil
	}
	var failure *connect.Error
	if connect.IsWireError(err) || !errors.As(err, &failure) || failure.Code() == connect.CodeResourceExhausted || c.unreachedReason(failure) != "" {
		return c.explain(err)
	}
	return &ExitError{Code: 1, Message: fmt.Sprintf("the server at %s went away before the end. %s%s: %s", c.server, w.goesOn, w.away, w.again)}
}

// missingEntity is the text of Flyte's services for something that does not exist. The other services of aloft, and users, write
// "execution flytesnacks/development/a".
var missingEntity = regexp.MustCompile(`missing entity of type ([\w ]+) with identifier project:"([^"]*)" domain:"([^"]*)" name:"([^"]*)"(?: version:"([^"]*)")?`)

// execution reads the id of an execution from an argument: a name, or project/domain/name, or the address of its page. In the last
// case the client connects to the server of that page.
func (c *client) execution(argument string) (*core.WorkflowExecutionIdentifier, error) {
	wrong := &ExitError{Code: 2, Message: fmt.Sprintf("execution %q: want a name, project/domain/name, or the address of its page", argument)}
	id, server := &core.WorkflowExecutionIdentifier{Project: c.project, Domain: c.domain, Name: argument}, c.givenServer
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
	c.execID = id
	return id, nil
}

// group makes a command that only holds other commands. For an unknown word it suggests the member whose name is near.
func group(command *cobra.Command, members ...*cobra.Command) *cobra.Command {
	command.AddCommand(members...)
	command.SuggestionsMinimumDistance = 2
	command.DisableFlagParsing = true // the group has no flags; those behind an unknown word are not understood either, and the word is to be reported
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
