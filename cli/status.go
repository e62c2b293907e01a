package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func newStatus(defaults Defaults) *cobra.Command {
	var follow, raw, verbose bool
	command := &cobra.Command{
		Use:   "status EXECUTION",
		Short: "Show an execution's nodes: phases, durations, attempts, what they wait for",
		Long: `Show an execution as a tree of its nodes, with phases, durations, attempts and what they wait for.

EXECUTION is a name, project/domain/name, or the address of its page, which also says whom to ask.
With --follow the tree is kept up to date until the execution ends; the exit code is then 0 if it succeeded and 3 if not.

With --verbose each attempt has a line: how it ended and how long it took, whether it was a fork of a
warm interpreter or a fresh one, and why.`,
		Example: `  aloft status a7xkq2m9fz4n8wv6tbrl
  aloft status a7xkq2m9fz4n8wv6tbrl --verbose
  aloft status a7xkq2m9fz4n8wv6tbrl --follow
  aloft status a7xkq2m9fz4n8wv6tbrl -o json`,
		Args: cobra.ExactArgs(1),
	}
	c := flags(command, defaults)
	command.ValidArgsFunction = func(command *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return c.completeExecutions(command.Context()), cobra.ShellCompDirectiveNoFileComp
	}
	command.Flags().BoolVarP(&follow, "follow", "f", false, "keep it up to date until the execution ends")
	command.Flags().BoolVarP(&verbose, "verbose", "v", false, "show each attempt, and how its process was made")
	command.Flags().BoolVar(&raw, "raw", false, "show a Python error whole, with the frames of flytekit")
	command.RunE = func(command *cobra.Command, args []string) error {
		id, err := c.execution(args[0])
		if err != nil {
			return err
		}
		ctx := command.Context()
		if follow {
			var stop context.CancelFunc
			ctx, stop = interruptible(ctx)
			defer stop()
		}
		if c.output == "json" {
			return c.statusJSON(ctx, id, follow, command.OutOrStdout())
		}
		t := newTree(command.OutOrStdout())
		t.raw, t.verbose, t.place = raw, verbose, c.project+"/"+c.domain+"/"
		t.retriesFunc = func(task *core.Identifier) uint32 { return c.retries(ctx, task) }
		phase, err := c.watch(ctx, id, t, follow, command.OutOrStdout())
		if err != nil {
			return err
		}
		if phase == core.WorkflowExecution_SUCCEEDED {
			return c.printOutputs(ctx, id, command.OutOrStdout())
		}
		if follow {
			return &ExitError{Code: 3}
		}
		return nil
	}
	return command
}

// statusJSON writes each message of the watch as a document: one, or with follow one for each change.
func (c *client) statusJSON(ctx context.Context, id *core.WorkflowExecutionIdentifier, follow bool, w io.Writer) error {
	stream, err := c.run.WatchExecution(ctx, &aloftv1.WatchExecutionRequest{Id: id, Once: !follow})
	if err != nil {
		return c.explainEnd(ctx, err, statusGoesOn(id))
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		if err := printJSON(w, stream.Msg()); err != nil {
			return err
		}
	}
	return c.explainEnd(ctx, stream.Err(), statusGoesOn(id))
}

// statusGoesOn is the message about an execution that goes on when its status is not watched any more.
func statusGoesOn(id *core.WorkflowExecutionIdentifier) backgroundWork {
	return backgroundWork{"The execution goes on", " when the server does", "aloft status " + aloft.ExecutionIDOf(id).String() + " --follow"}
}

// watch shows the tree, once or until the execution ends, and returns the last phase.
func (c *client) watch(ctx context.Context, id *core.WorkflowExecutionIdentifier, t *tree, follow bool, w io.Writer) (core.WorkflowExecution_Phase, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.run.WatchExecution(ctx, &aloftv1.WatchExecutionRequest{Id: id, Once: !follow})
	if err != nil {
		return 0, c.explainEnd(ctx, err, statusGoesOn(id))
	}
	defer func() { _ = stream.Close() }()
	live := follow && takesEscapes(w)
	messages := make(chan *aloftv1.WatchExecutionResponse)
	go func() {
		defer close(messages)
		for stream.Receive() {
			select {
			case messages <- stream.Msg():
			case <-ctx.Done():
				return
			}
		}
	}()
	screen := &screen{w: w}
	clock := time.NewTicker(250 * time.Millisecond)
	defer clock.Stop()
	for {
		select {
		case message, ok := <-messages:
			if !ok {
				if err := c.explainEnd(ctx, stream.Err(), statusGoesOn(id)); err != nil {
					return 0, err
				}
				if !live && !follow {
					t.print(w, time.Now())
				}
				if live {
					t.room = 0
					screen.draw(t.lines(time.Now()), true)
				} else if follow {
					t.printEnd(w, time.Now())
				}
				return t.execution.GetPhase(), nil
			}
			changed := t.update(message)
			if follow && !live {
				t.printChanges(w, changed)
			}
			if live {
				screen.draw(t.fitTerminal(w, time.Now()), false)
			}
		case <-clock.C:
			if live && t.execution != nil {
				screen.draw(t.fitTerminal(w, time.Now()), false)
			}
		}
	}
}

// printOutputs prints the outputs of an execution that has succeeded.
func (c *client) printOutputs(ctx context.Context, id *core.WorkflowExecutionIdentifier, w io.Writer) error {
	data, err := c.admin.GetExecutionData(ctx, &admin.WorkflowExecutionGetDataRequest{Id: id})
	if err != nil {
		return c.explain(err)
	}
	printLiterals(w, "outputs", data.GetFullOutputs(), data.GetOutputs())
	return nil
}

// retries is how many retries a task states; 0 if that is not known.
func (c *client) retries(ctx context.Context, task *core.Identifier) uint32 {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	answer, err := c.admin.GetTask(ctx, &admin.ObjectGetRequest{Id: task})
	if err != nil {
		return 0
	}
	return answer.GetClosure().GetCompiledTask().GetTemplate().GetMetadata().GetRetries().GetRetries()
}

// screen redraws lines in place.
type screen struct {
	w     io.Writer
	drawn int
}

// draw replaces the lines that were drawn before. Unless these lines are the last, they are clipped to the terminal's width,
// because a line that wraps could not be replaced.
func (s *screen) draw(lines []string, last bool) {
	width, _ := terminalSize(s.w)
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	b.WriteString("\x1b[J")
	for _, line := range lines {
		if !last {
			line = clip(line, width-1)
		}
		b.WriteString(line + "\n")
	}
	s.drawn = len(lines)
	_, _ = io.WriteString(s.w, b.String())
}

// tree is an execution with its nodes, as the messages of WatchExecution have told so far.
type tree struct {
	execution *aloftv1.ExecutionStatus
	nodes     map[string]*aloftv1.NodeStatus
	order     []string
	colour    bool
	raw       bool   // errors as they are
	verbose   bool   // a line for each attempt
	place     string // "project/domain/" of the client: it is left out of an execution's id where there is little room
	room      int    // characters that the first line may have; 0: any number

	retriesFunc func(task *core.Identifier) uint32 // how many retries a task states; nil: that is not known
	retries     map[string]uint32                  // results of retriesFunc, by task
}

func newTree(w io.Writer) *tree {
	return &tree{nodes: map[string]*aloftv1.NodeStatus{}, colour: wantsColours(w)}
}

// update takes a message over and returns the nodes that have changed in a way to tell: a phase, a waiting reason, an attempt.
func (t *tree) update(message *aloftv1.WatchExecutionResponse) []*aloftv1.NodeStatus {
	t.execution = message.GetExecution()
	var changed []*aloftv1.NodeStatus
	for _, n := range message.GetNodes() {
		old := t.nodes[n.GetId()]
		if old == nil {
			t.order = append(t.order, n.GetId())
		}
		if old == nil || old.GetPhase() != n.GetPhase() || old.GetWaiting() != n.GetWaiting() || len(old.GetAttempts()) != len(n.GetAttempts()) {
			changed = append(changed, n)
		}
		t.nodes[n.GetId()] = n
	}
	return changed
}

func (t *tree) print(w io.Writer, now time.Time) {
	for _, line := range t.lines(now) {
		fmt.Fprintln(w, line)
	}
}

// printChanges writes a line for each node that has changed, for output that is no terminal.
func (t *tree) printChanges(w io.Writer, changed []*aloftv1.NodeStatus) {
	for _, n := range changed {
		fmt.Fprintf(w, "%s  %s  %s%s\n", time.Now().Format("15:04:05"), pad(n.GetPhase().String(), 9), t.path(n), t.note(n, time.Now()))
		if t.verbose && aloft.Terminal(n.GetPhase()) {
			for _, a := range n.GetAttempts() {
				fmt.Fprintln(w, "          "+attemptLine(a, time.Now()))
			}
		}
	}
}

// printEnd writes how the execution ended.
func (t *tree) printEnd(w io.Writer, now time.Time) {
	fmt.Fprintln(w, t.head(now))
	for _, line := range t.failure() {
		fmt.Fprintln(w, line)
	}
}

// path is a node's name behind the names of the nodes that contain it.
func (t *tree) path(n *aloftv1.NodeStatus) string {
	if parent := t.nodes[n.GetParent()]; parent != nil {
		return t.path(parent) + " / " + label(n)
	}
	return label(n)
}

// label is a node's name with its id, by which `aloft logs` and `aloft cache explain` find it.
func label(n *aloftv1.NodeStatus) string {
	name := strings.Join(strings.Fields(n.GetName()), " ")
	if name == "" || name == n.GetId() {
		return n.GetId()
	}
	return name + "  " + n.GetId()
}

func (t *tree) lines(now time.Time) []string { return t.render(t.rows(now), now) }

// render is the first line of the execution, the rows, and the error.
func (t *tree) render(rows []row, now time.Time) []string {
	lines := []string{t.head(now)}
	for _, r := range rows {
		lines = append(lines, r.text)
	}
	return append(lines, t.failure()...)
}

// fitTerminal is the tree in as many lines as the terminal has, so that it can be redrawn in place. If the lines are too few, nodes
// that failed or run are shown before nodes that are still to come, and these before nodes that have ended.
func (t *tree) fitTerminal(w io.Writer, now time.Time) []string {
	width, height := terminalSize(w)
	t.room = width - 1
	return t.fitTo(height-1, now)
}

// fitTo is the tree in at most height lines. If the nodes need all of them, the error is left out: the lines of the nodes name it.
func (t *tree) fitTo(height int, now time.Time) []string {
	rows := t.rows(now)
	if lines := t.render(rows, now); len(lines) <= height {
		return lines
	}
	lines := []string{t.head(now)}
	if len(rows) > height-1 {
		most := mostUrgent(rows, max(height-2, 0)) // one line says how many nodes are left out
		lines = append(lines, fmt.Sprintf("   … %d more", len(rows)-len(most)))
		rows = most
	}
	for _, r := range rows {
		lines = append(lines, r.text)
	}
	return lines
}

// mostUrgent are the n most urgent rows, in the order of rows. Among rows of one urgency the first are taken, among ended nodes
// the last.
func mostUrgent(rows []row, n int) []row {
	byUrgency := make([]int, len(rows))
	for i := range byUrgency {
		byUrgency[i] = i
	}
	slices.SortStableFunc(byUrgency, func(a, b int) int {
		if rows[a].urgency == rows[b].urgency && rows[a].urgency == urgencyEnded {
			return b - a
		}
		return int(rows[a].urgency) - int(rows[b].urgency)
	})
	shown := byUrgency[:n]
	slices.Sort(shown)
	var most []row
	for _, i := range shown {
		most = append(most, rows[i])
	}
	return most
}

// row is a line of the tree.
type row struct {
	text    string
	urgency urgency
}

// urgency is the order in which nodes are chosen where not all can be shown.
type urgency int

const (
	urgencyFailed urgency = iota
	urgencyRuns
	urgencyToCome
	urgencyEnded
)

func urgencyOf(p core.NodeExecution_Phase) urgency {
	switch p {
	case core.NodeExecution_FAILED, core.NodeExecution_FAILING, core.NodeExecution_TIMED_OUT:
		return urgencyFailed
	case core.NodeExecution_QUEUED, core.NodeExecution_UNDEFINED:
		return urgencyToCome
	}
	if aloft.Terminal(p) {
		return urgencyEnded
	}
	return urgencyRuns
}

func (t *tree) rows(now time.Time) []row {
	var rows []row
	children := map[string][]*aloftv1.NodeStatus{}
	for _, id := range t.order {
		n := t.nodes[id]
		children[n.GetParent()] = append(children[n.GetParent()], n)
	}
	for _, siblings := range children {
		slices.SortStableFunc(siblings, func(a, b *aloftv1.NodeStatus) int {
			return a.GetCreatedAt().AsTime().Compare(b.GetCreatedAt().AsTime())
		})
	}
	width := 0
	var measure func(parent string, depth int)
	measure = func(parent string, depth int) {
		for _, n := range children[parent] {
			width = max(width, 3*depth+len([]rune(label(n))))
			measure(n.GetId(), depth+1)
		}
	}
	measure("", 1)
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for i, n := range children[parent] {
			branch, next := "├─ ", "│  "
			if i == len(children[parent])-1 {
				branch, next = "└─ ", "   "
			}
			text := indent + branch + label(n)
			rows = append(rows, row{pad(text, width+2) + t.paint(n.GetPhase()) + t.note(n, now), urgencyOf(n.GetPhase())})
			if t.verbose {
				for _, a := range n.GetAttempts() {
					rows = append(rows, row{indent + next + attemptLine(a, now), urgencyOf(n.GetPhase())})
				}
			}
			draw(n.GetId(), indent+next)
		}
	}
	draw("", "")
	return rows
}

func (t *tree) head(now time.Time) string {
	e := t.execution
	id, workflow := aloft.ExecutionIDOf(e.GetId()).String(), workflowName(e.GetWorkflow())
	phase, lasted := phaseName(e.GetPhase()), executionTime(e.GetCreatedAt(), e.GetStartedAt(), e.GetEndedAt(), now)
	if left := t.room - len(phase+lasted+"      "); t.room > 0 && utf8.RuneCountInString(id+workflow) > left {
		id = strings.TrimPrefix(id, t.place)
		workflow = shorten(workflow, max(left-utf8.RuneCountInString(id), 8))
	}
	head := id + "  " + workflow + "  " + t.colourOf(executionColour(e.GetPhase()), phase) + "  " + lasted
	if e.GetRecovers() != nil {
		recovered := 0
		for _, n := range t.nodes {
			if n.GetPhase() == core.NodeExecution_RECOVERED {
				recovered++
			}
		}
		head += fmt.Sprintf("  recovers %s: %d recovered", e.GetRecovers().GetName(), recovered)
	}
	if e.GetWaiting() != "" {
		head += "  " + waitText(e.GetWaiting())
	}
	if n := t.waiting(); n > 0 {
		head += fmt.Sprintf("  nodes that wait for something outside: %d", n)
	}
	if e.GetAbortCause() != "" {
		head += "  cause: " + e.GetAbortCause()
	}
	return head
}

// waiting is how many nodes wait for something outside of the execution.
func (t *tree) waiting() (n int) {
	for _, node := range t.nodes {
		if node.GetWaiting() != "" && !aloft.Terminal(node.GetPhase()) {
			n++
		}
	}
	return n
}

// phaseName is a phase as commands show it: UNDEFINED, before an engine has seen the execution, is QUEUED.
func phaseName(p core.WorkflowExecution_Phase) string {
	if p == core.WorkflowExecution_UNDEFINED {
		return "QUEUED"
	}
	return p.String()
}

// note is the text behind a node's phase: its time, waiting reason, cache note, attempts and error.
func (t *tree) note(n *aloftv1.NodeStatus, now time.Time) string {
	var notes []string
	if duration := elapsed(n.GetStartedAt(), n.GetEndedAt(), now); duration != "" {
		notes = append(notes, duration)
	}
	if n.GetCacheNote() != "" {
		notes = append(notes, n.GetCacheNote())
	}
	if n.GetWaiting() != "" && !aloft.Terminal(n.GetPhase()) {
		notes = append(notes, waitText(n.GetWaiting()))
	}
	attempts := n.GetAttempts()
	if len(attempts) > 1 {
		notes = append(notes, fmt.Sprintf("attempt %d", len(attempts)))
	}
	if len(attempts) > 0 && !aloft.Terminal(n.GetPhase()) {
		last := attempts[len(attempts)-1]
		if last.GetWaiting() != "" {
			notes = append(notes, waitText(last.GetWaiting()))
		}
		if last.GetStop() != "" {
			notes = append(notes, "is being stopped: "+last.GetStop())
		}
		if at := last.GetNotBefore(); at != nil && last.GetStartedAt() == nil && at.AsTime().After(now) {
			notes = append(notes, "starts in "+at.AsTime().Sub(now).Round(time.Second).String())
		}
		if len(attempts) > 1 {
			before := attempts[len(attempts)-2]
			notes = append(notes, "before: "+firstLine(before.GetError().GetMessage())+budget(before.GetCharge()))
		}
	}
	if n.GetError() != nil && n.GetPhase() == core.NodeExecution_FAILED {
		notes = append(notes, firstLine(n.GetError().GetMessage())+t.notRetried(n))
	}
	if len(notes) == 0 {
		return ""
	}
	return "  " + strings.Join(notes, "  ")
}

// notRetried says why a failed node has retries of its task left. That is so only for a failure that is not recoverable; the engine
// marks it by a charge of no budget.
func (t *tree) notRetried(n *aloftv1.NodeStatus) string {
	attempts := n.GetAttempts()
	if len(attempts) == 0 || t.retriesFunc == nil || n.GetTarget().GetResourceType() != core.ResourceType_TASK {
		return ""
	}
	charge := attempts[len(attempts)-1].GetCharge()
	if charge.GetReason() == "" || charge.GetBudget() != aloftv1.AttemptEnded_NONE || charge.GetNextAt() != 0 {
		return ""
	}
	task := n.GetTarget().String()
	retries, known := t.retries[task]
	if !known {
		retries = t.retriesFunc(n.GetTarget())
		if t.retries == nil {
			t.retries = map[string]uint32{}
		}
		t.retries[task] = retries
	}
	switch {
	case retries == 0:
		return ""
	case n.GetError().GetKind() == core.ExecutionError_USER && strings.Contains(n.GetError().GetMessage(), messageMark):
		return " (not retried: of a task's exceptions only FlyteRecoverableException is)"
	}
	return " (not retried: it is not recoverable)"
}

// attemptLine says how an attempt went, and how its process was made: forked from a warm interpreter, or fresh and why.
func attemptLine(a *aloftv1.AttemptStatus, now time.Time) string {
	notes := []string{fmt.Sprintf("attempt %d", a.GetAttempt()+1), a.GetPhase().String()}
	if duration := elapsed(a.GetStartedAt(), a.GetEndedAt(), now); duration != "" {
		notes = append(notes, duration)
	}
	switch {
	case a.GetModeReason() != "":
		notes = append(notes, a.GetMode()+" start: "+a.GetModeReason())
	case a.GetMode() != "":
		notes = append(notes, a.GetMode()+" start")
	}
	if a.GetWaiting() != "" {
		notes = append(notes, waitText(a.GetWaiting()))
	}
	if a.GetError() != nil {
		notes = append(notes, firstLine(a.GetError().GetMessage())+budget(a.GetCharge()))
	}
	return strings.Join(notes, "  ")
}

// waitText is a waiting reason with the word "waits" before it, unless the reason begins with it.
func waitText(reason string) string {
	if strings.HasPrefix(reason, "waits ") || strings.HasPrefix(reason, "waiting for ") {
		return reason
	}
	return "waits: " + reason
}

// budget says which retry of its node the failure of an attempt has used.
func budget(c *aloftv1.AttemptCharge) string {
	if c.GetBudget() == aloftv1.AttemptEnded_NONE {
		if c.GetNextAt() != 0 {
			return " (" + c.GetReason() + ")"
		}
		return ""
	}
	kind := strings.ToLower(c.GetBudget().String())
	if c.GetNextAt() == 0 { // there is no further attempt; the reason says why
		return fmt.Sprintf(" (%d of %d %s retries used: %s)", c.GetRetriesUsed(), c.GetRetriesAllowed(), kind, c.GetReason())
	}
	return fmt.Sprintf(" (%s retry %d of %d: %s)", kind, c.GetRetriesUsed(), c.GetRetriesAllowed(), c.GetReason())
}

// failure is the error of an execution that failed, in full length.
func (t *tree) failure() []string {
	e := t.execution.GetError()
	if e == nil {
		return nil
	}
	lines := []string{"", fmt.Sprintf("%s (%s error):", e.GetCode(), strings.ToLower(e.GetKind().String()))}
	message := e.GetMessage()
	if !t.raw {
		message = readable(message)
	}
	for line := range strings.SplitSeq(strings.TrimSpace(message), "\n") {
		lines = append(lines, "  "+line)
	}
	return lines
}

const (
	green  = "32"
	red    = "31"
	yellow = "33"
	blue   = "34"
	grey   = "90"
)

func executionColour(p core.WorkflowExecution_Phase) string {
	switch p {
	case core.WorkflowExecution_SUCCEEDED:
		return green
	case core.WorkflowExecution_FAILED, core.WorkflowExecution_FAILING, core.WorkflowExecution_TIMED_OUT:
		return red
	case core.WorkflowExecution_ABORTED, core.WorkflowExecution_ABORTING:
		return yellow
	}
	return blue
}

func (t *tree) paint(p core.NodeExecution_Phase) string {
	mark, colour := "●", blue
	switch p {
	case core.NodeExecution_SUCCEEDED, core.NodeExecution_RECOVERED:
		mark, colour = "✔", green
	case core.NodeExecution_FAILED, core.NodeExecution_FAILING, core.NodeExecution_TIMED_OUT:
		mark, colour = "✖", red
	case core.NodeExecution_ABORTED, core.NodeExecution_SKIPPED:
		mark, colour = "–", yellow
	case core.NodeExecution_QUEUED, core.NodeExecution_UNDEFINED:
		mark, colour = "○", grey
	}
	return t.colourOf(colour, mark+" "+pad(p.String(), 9))
}

func (t *tree) colourOf(colour, text string) string {
	if !t.colour {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
