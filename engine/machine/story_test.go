package machine

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

var update = flag.Bool("update", false, "record what stories answer, to be reviewed as a diff")

// TestStories runs testdata/*.txt: what the machine promises, told as messages in and events out.
//
// A file is a list of blocks with blank lines between them. A block is a command with its arguments, lines that belong to
// it, a line of dashes, and what it answers. Lines that begin with # are for the reader. Commands:
//
//	graph               the workflows, the first is run: "main:" (or "main goes on:", the policy that lets the rest run),
//	                    then a node per line, "c wf:inner retries=2 timeout=1m memory=1Gi interruptible cached <- a b"; without a kind it is a task for
//	                    an executor; also echo and sleep=1s; "on_failure f" is the failure node. "b branch" is followed by
//	                    its arms, "arm b x retries=1 <- a" for node b-x, the last one is its else unless there is "else_fail b"
//	policy timeout=1h queue=1m execution=1d retries=3 backoff=1s max-backoff=1m: the limits of the server and what becomes of
//	                    failures of the system, with a policy for retries per line
//	step @2s limit=10   a step at that time with the messages below it:
//	                    create [parallelism=2] [interruptible] [recovers] | terminate CAUSE | wake KEY |
//	                    started|ok|stopped|lost|empty NODE/ATTEMPT [@2s] [token=x] [never] |
//	                    fail NODE/ATTEMPT user|system|unknown [recoverable] CODE MESSAGE |
//	                    service NODE/ATTEMPT NAME [away=2s] [well=1s] MESSAGE: a failure by it, in an outage that is known | giveup MESSAGE
//	facts               "arm b 1" (0: if), "arm b fail MESSAGE", "inputs a fail MESSAGE", "run a fail MESSAGE", "inputs a away", "inputs a back",
//	                    "cache a hit|miss|skipped", "cache a wait KEY", "source a finished", "source a checkpoint URI"
//	restart @2s until=12s: the state is folded, and the deadlines that have passed are kept back
//	show                nodes and attempts as records say
//
// After each step the invariants are checked and a fold of the journal is compared with the live state.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			told, heard, number := &strings.Builder{}, story{t: t}, 1
			for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
				heard.at = fmt.Sprintf("%s, the command from line %d on", file, number)
				number += strings.Count(block, "\n") + 2
				if i > 0 {
					told.WriteString("\n")
				}
				input, _, _ := strings.Cut(block+"\n", "----\n")
				told.WriteString(input)
				if lines := withoutComments(input); len(lines) > 0 {
					told.WriteString("----\n")
					told.WriteString(heard.command(lines))
				}
			}
			if *update {
				if err := os.WriteFile(file, []byte(told.String()), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got, want := told.String(), string(data); got != want {
				t.Errorf("%s goes differently (-update records it):\n%s", file, lineDiff(want, got))
			}
		})
	}
}

func withoutComments(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	return lines
}

// lineDiff shows the first lines that differ with what surrounds them.
func lineDiff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	at := 0
	for at < len(w) && at < len(g) && w[at] == g[at] {
		at++
	}
	from := max(0, at-4)
	return fmt.Sprintf("line %d\nwant:\n%s\ngot:\n%s", at+1, strings.Join(w[from:min(len(w), at+6)], "\n"), strings.Join(g[from:min(len(g), at+6)], "\n"))
}

// epoch is when stories begin.
var epoch = time.Unix(1_000_000, 0)

type story struct {
	t     *testing.T
	at    string // file and line of the command
	run   *run
	sleep map[string]time.Duration
	said  int64 // the time that was printed last
}

// wrong ends the test: the command is not one.
func (s *story) wrong(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: %s", s.at, fmt.Sprintf(format, args...))
}

func (s *story) command(lines []string) string {
	defer func() {
		if r := recover(); r != nil { // a word is missing, or the state cannot take what it says
			s.wrong("%q: %v\n%s", lines, r, debug.Stack())
		}
	}()
	words := strings.Fields(lines[0])
	switch words[0] {
	case "graph":
		return s.graph(lines[1:])
	case "policy":
		s.policy(words[1:], lines[1:])
		return "ok\n"
	case "facts":
		for _, line := range lines[1:] {
			s.fact(line)
		}
		return "ok\n"
	case "step":
		return s.step(words[1:], lines[1:])
	case "restart":
		s.run.restart(epoch.Add(s.duration(words[1][1:])), epoch.Add(s.duration(strings.TrimPrefix(words[2], "until="))))
		return "ok\n"
	case "show":
		return s.show()
	}
	s.wrong("unknown command %q", lines[0])
	return ""
}

func (s *story) graph(lines []string) string {
	var flows []flow
	s.sleep = map[string]time.Duration{}
	for _, line := range lines {
		if head, ok := strings.CutSuffix(line, ":"); ok {
			name, goOn := strings.CutSuffix(head, " goes on")
			flows = append(flows, flow{name: name, goOn: goOn})
			continue
		}
		f := &flows[len(flows)-1]
		line, onFailure := strings.CutPrefix(line, "on_failure ")
		left, after, _ := strings.Cut(line, "<-")
		words := strings.Fields(left)
		var branch *flowNode
		if words[0] == "arm" || words[0] == "else_fail" {
			branch = find(f, words[1])
		}
		if words[0] == "else_fail" {
			branch.elseFails = true
			continue
		}
		if words[0] == "arm" {
			words = words[2:]
		}
		n := flowNode{id: words[0], after: strings.Fields(after)}
		for _, w := range words[1:] {
			k, v, _ := strings.Cut(w, "=")
			switch {
			case strings.HasPrefix(w, "wf:"):
				n.run = w[3:]
			case k == "sleep":
				n.run, s.sleep[n.id] = "sleep", s.duration(v)
			case k == "timeout":
				n.timeout = s.duration(v)
			case k == "memory":
				n.memory = v
			case w == "echo" || w == "branch":
				n.run = w
			case k == "retries":
				retries, err := strconv.Atoi(v)
				if err != nil {
					s.wrong("%v", err)
				}
				n.retries = uint32(retries)
			case w == "interruptible":
				n.interruptible = true
			case w == "cached":
				n.cached = true
			default:
				s.wrong("unknown word %q in %q", w, line)
			}
		}
		switch from, to, many := strings.Cut(n.id, ".."); {
		case onFailure:
			f.failure = &n
		case branch != nil:
			n.id = branch.id + "-" + n.id
			branch.arms = append(branch.arms, &n)
		case many: // "n1..100": a chain
			var first, last int
			_, err1 := fmt.Sscanf(from, "n%d", &first)
			_, err2 := fmt.Sscanf(to, "%d", &last)
			if err := errors.Join(err1, err2); err != nil {
				s.wrong("%v", err)
			}
			for i := first; i <= last; i++ {
				link := flowNode{id: fmt.Sprintf("n%d", i), run: n.run, after: n.after}
				if i > first {
					link.after = []string{fmt.Sprintf("n%d", i-1)}
				}
				f.nodes = append(f.nodes, link)
			}
		default:
			f.nodes = append(f.nodes, n)
		}
	}
	g, err := NewGraph(closure(flows...))
	if err != nil {
		return err.Error() + "\n"
	}
	s.run, s.said = newRun(s.t, g), 0
	s.run.facts.sleep = s.sleep
	s.run.facts.fails, s.run.facts.missing, s.run.facts.arms = map[string]*aloftv1.Failure{}, map[string]bool{}, map[string]uint32{}
	s.run.facts.cache, s.run.facts.recovered = map[aloft.NodeID]CacheAnswer{}, map[aloft.NodeID]Recovery{}
	return "ok\n"
}

// find is a branch of a flow, or in an arm of one.
func find(f *flow, id string) *flowNode {
	var among func(nodes []*flowNode) *flowNode
	among = func(nodes []*flowNode) *flowNode {
		for _, n := range nodes {
			if n.id == id {
				return n
			}
			if found := among(n.arms); found != nil {
				return found
			}
		}
		return nil
	}
	var all []*flowNode
	for i := range f.nodes {
		all = append(all, &f.nodes[i])
	}
	return among(all)
}

func (s *story) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.wrong("%v", err)
	}
	return d
}

func (s *story) policy(limits, retries []string) {
	p, err := parsePolicy(limits, retries)
	if err != nil {
		s.wrong("%v", err)
	}
	s.run.facts.policy = p
}

func parsePolicy(limits, retries []string) (p Policy, err error) {
	for _, limit := range limits {
		k, v, _ := strings.Cut(limit, "=")
		d, ok := map[string]*time.Duration{
			"timeout": &p.Timeout, "queue": &p.QueueTimeout, "execution": &p.ExecutionTimeout,
			"backoff": &p.SystemRetries.Backoff, "max-backoff": &p.SystemRetries.MaxBackoff,
		}[k]
		switch {
		case k == "retries":
			var n int
			n, err = strconv.Atoi(v)
			p.SystemRetries.Max = uint32(n)
		case ok:
			*d, err = time.ParseDuration(v)
		default:
			err = fmt.Errorf("policy has no %q; a policy for retries, such as \"backoff=1s jitter=0\", is a line of its own below", limit)
		}
		if err != nil {
			return p, err
		}
	}
	for _, line := range retries {
		r, err := aloft.ParseRetryPolicy(line, func(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) })
		if err != nil {
			return p, err
		}
		p.Retries = append(p.Retries, r)
	}
	return p, nil
}

func TestAWordThatAStoryCannotHaveIsNamed(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"jitter=0", "backoff=soon", "retries=many", "timeout"} {
		_, value, _ := strings.Cut(limit, "=")
		if _, err := parsePolicy([]string{limit}, nil); err == nil || !strings.Contains(err.Error(), value) {
			t.Errorf("policy %s: %v", limit, err)
		}
	}
}

func (s *story) fact(line string) {
	words := strings.SplitN(line, " ", 4)
	switch what, node, verb := words[0], words[1], words[2]; {
	case verb == "away" || verb == "back":
		s.run.facts.missing[node] = verb == "away"
	case verb == "fail" && what == "inputs":
		s.run.facts.fails[node] = failure(core.ExecutionError_USER, false, "BindingResolutionFailure", words[3])
	case what == "arm" && verb != "fail":
		n, err := strconv.Atoi(verb)
		if err != nil {
			s.wrong("%v", err)
		}
		s.run.facts.arms[node] = uint32(n)
	case verb == "fail" && (what == "run" || what == "arm"):
		s.run.facts.fails[node+"!"] = failure(core.ExecutionError_USER, false, "BadInput", words[3])
	case what == "cache":
		status := "CACHE_" + strings.ToUpper(verb)
		if verb == "wait" {
			status = "CACHE_MISS"
		}
		c := lookup(core.CatalogCacheStatus(core.CatalogCacheStatus_value[status]))
		if verb == "hit" {
			c.Outputs = literals("outputs of " + node)
		}
		if verb == "wait" {
			c.WaitFor, c.Reason = words[3], "somebody else computes it"
		}
		s.run.facts.cache[aloft.NodeID(node)] = c
	case what == "source" && verb == "finished":
		s.run.facts.recovered[aloft.NodeID(node)] = Recovery{
			Take: true, Inputs: literals("inputs of " + node), Outputs: literals("outputs of " + node), Source: aloft.NodeID(node),
		}
	case what == "source" && verb == "checkpoint":
		s.run.facts.recovered[aloft.NodeID(node)] = Recovery{Checkpoint: words[3]}
	default:
		s.wrong("unknown fact %q", line)
	}
}

func (s *story) step(args, lines []string) string {
	now, limit := epoch, 0
	for _, a := range args {
		switch {
		case a[0] == '@':
			now = epoch.Add(s.duration(a[1:]))
		case strings.HasPrefix(a, "limit="):
			n, err := strconv.Atoi(a[6:])
			if err != nil {
				s.wrong("%v", err)
			}
			limit = n
		default:
			s.wrong("unknown argument %q", a)
		}
	}
	var messages []*aloftv1.Inbox
	for _, line := range lines {
		messages = append(messages, s.message(line, now))
	}
	var b strings.Builder
	d, err := s.run.try(now, limit, messages...)
	if err != nil {
		fmt.Fprintf(&b, "error: %v\n", err)
		return b.String()
	}
	s.run.checkFold()
	for _, e := range d.Events {
		if e.At != s.said {
			fmt.Fprintf(&b, "at %s\n", time.Unix(0, e.At).Sub(epoch))
			s.said = e.At
		}
		fmt.Fprintf(&b, "  %s\n", s.event(e))
	}
	if len(d.Events) == 0 {
		b.WriteString("  nothing\n")
	}
	v := s.run.s.Execution()
	fmt.Fprintf(&b, "%s", v.Phase)
	for _, a := range s.run.s.Outstanding() {
		fmt.Fprintf(&b, " %s/%d", s.run.s.Ref(a.Node).ID(), a.Attempt)
	}
	if v.Runnable > 0 {
		fmt.Fprintf(&b, " runnable=%d", v.Runnable)
	}
	if d.More {
		b.WriteString(" more")
	}
	if !d.DueAt.IsZero() {
		fmt.Fprintf(&b, " due=%s", d.DueAt.Sub(epoch))
	}
	if d.Ended != aloft.Terminal(v.Phase) {
		s.t.Errorf("ended is %t in phase %s", d.Ended, v.Phase)
	}
	b.WriteString("\n")
	return b.String()
}

func (s *story) message(line string, now time.Time) *aloftv1.Inbox {
	words := strings.Fields(line)
	switch words[0] {
	case "create":
		m := create(0)
		for _, w := range words[1:] {
			if n, ok := strings.CutPrefix(w, "parallelism="); ok {
				limit, err := strconv.Atoi(n)
				if err != nil {
					s.wrong("%v", err)
				}
				m.GetCreate().MaxParallelism = uint32(limit)
			}
			m.GetCreate().Interruptible = m.GetCreate().Interruptible || w == "interruptible"
			if w == "recovers" {
				m.GetCreate().Recovers = &core.WorkflowExecutionIdentifier{Project: testID.Project, Domain: testID.Domain, Name: "source"}
			}
		}
		return m
	case "terminate":
		return terminate(strings.Join(words[1:], " "))
	case "giveup":
		return &aloftv1.Inbox{Kind: &aloftv1.Inbox_GiveUp{GiveUp: &aloftv1.GiveUp{Error: &core.ExecutionError{
			Code: CodeOutage, Kind: core.ExecutionError_SYSTEM, Message: strings.Join(words[1:], " "),
		}}}}
	case "wake":
		return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Wake{Wake: &aloftv1.Wake{On: words[1]}}}
	}
	node, number, _ := strings.Cut(words[1], "/")
	attempt, err := strconv.Atoi(number)
	if err != nil {
		s.wrong("%v", err)
	}
	token, at, never := "no such node", now.UnixNano(), false
	for i := range uint32(s.run.s.Len()) {
		if s.run.s.Ref(i).ID() == aloft.NodeID(node) {
			token = s.run.s.token(i, uint32(attempt))
		}
	}
	rest := words[2:]
	for len(rest) > 0 {
		if t, ok := strings.CutPrefix(rest[0], "token="); ok {
			token = t
		} else if rest[0] == "never" {
			never = true
		} else if rest[0][0] == '@' {
			at = epoch.Add(s.duration(rest[0][1:])).UnixNano()
		} else {
			break
		}
		rest = rest[1:]
	}
	if words[0] == "started" {
		return &aloftv1.Inbox{Kind: &aloftv1.Inbox_AttemptStarted{AttemptStarted: &aloftv1.AttemptStarted{
			Node: node, Attempt: uint32(attempt), Token: token, Executor: "e1", StartedAt: at,
		}}}
	}
	o := &aloftv1.Outcome{Node: node, Attempt: uint32(attempt), Token: token, StartedAt: at, EndedAt: at}
	if never {
		o.StartedAt = 0
	}
	switch words[0] {
	case "ok":
		o.Result, o.DeckUri = succeeded(aloft.NodeID(node)), "aloft://blob/deck"
	case "empty":
	case "stopped":
		o.Result = &aloftv1.Outcome_Stopped{Stopped: strings.Join(rest, " ")}
	case "lost":
		o.Result = &aloftv1.Outcome_Lost{Lost: strings.Join(rest, " ")}
	case "service":
		f := failure(core.ExecutionError_SYSTEM, true, "ServiceUnavailable", "")
		f.Service, rest = rest[0], rest[1:]
		for len(rest) > 0 {
			if d, ok := strings.CutPrefix(rest[0], "away="); ok {
				f.ServiceAwaySince = epoch.Add(s.duration(d)).UnixNano()
			} else if d, ok := strings.CutPrefix(rest[0], "well="); ok {
				f.ServiceWellAt = epoch.Add(s.duration(d)).UnixNano()
			} else {
				break
			}
			rest = rest[1:]
		}
		f.Error.Message = strings.Join(rest, " ")
		o.Result = &aloftv1.Outcome_Failure{Failure: f}
	case "fail":
		kind := core.ExecutionError_ErrorKind(core.ExecutionError_ErrorKind_value[strings.ToUpper(rest[0])])
		rest = rest[1:]
		recoverable := rest[0] == "recoverable"
		if recoverable {
			rest = rest[1:]
		}
		o.Result = &aloftv1.Outcome_Failure{Failure: failure(kind, recoverable, rest[0], strings.Join(rest[1:], " "))}
	default:
		s.wrong("unknown message %q", line)
	}
	return &aloftv1.Inbox{Kind: &aloftv1.Inbox_Outcome{Outcome: o}}
}

// event tells an event in a line.
func (s *story) event(e *aloftv1.Event) string {
	id := func(i uint32) aloft.NodeID { return s.run.s.Ref(i).ID() }
	since := func(t int64) string {
		if t == 0 || t == e.At {
			return ""
		}
		return fmt.Sprintf(" @%s", time.Unix(0, t).Sub(epoch))
	}
	switch k := e.Kind.(type) {
	case *aloftv1.Event_ExecutionStarted:
		return "execution started"
	case *aloftv1.Event_TerminateRequested:
		return fmt.Sprintf("terminate requested by %s: %s", k.TerminateRequested.Principal, k.TerminateRequested.Cause)
	case *aloftv1.Event_ExecutionFailing:
		return "execution failing: " + problem(k.ExecutionFailing.Error)
	case *aloftv1.Event_ExecutionEnded:
		return fmt.Sprintf("execution ended: %s%s%s", k.ExecutionEnded.Phase, problemIf(k.ExecutionEnded.Error), s.value(" with", k.ExecutionEnded.Outputs))
	case *aloftv1.Event_ScopeOpened:
		return fmt.Sprintf("%s: scope opened", id(k.ScopeOpened.Node))
	case *aloftv1.Event_ArmTaken:
		return fmt.Sprintf("%s: arm %d taken", id(k.ArmTaken.Node), k.ArmTaken.Arm)
	case *aloftv1.Event_ScopeFailing:
		return fmt.Sprintf("%s: scope failing: %s", id(k.ScopeFailing.Node), problem(k.ScopeFailing.Error))
	case *aloftv1.Event_NodeQueued:
		return fmt.Sprintf("%s: queued%s", id(k.NodeQueued.Node), cacheStatus(k.NodeQueued.Cache))
	case *aloftv1.Event_NodeCached:
		return fmt.Sprintf("%s: cached%s%s", id(k.NodeCached.Node), cacheStatus(k.NodeCached.Cache), s.value(" with", k.NodeCached.Outputs))
	case *aloftv1.Event_NodeRecovered:
		return fmt.Sprintf("%s: recovered from %s%s", id(k.NodeRecovered.Node), k.NodeRecovered.Source, s.value(" with", k.NodeRecovered.Outputs))
	case *aloftv1.Event_NodeParked:
		x := k.NodeParked
		return fmt.Sprintf("%s: parked on %s until %s: %s", id(x.Node), x.On, time.Unix(0, x.Until).Sub(epoch), x.Reason)
	case *aloftv1.Event_NodeRunning:
		return fmt.Sprintf("%s: running%s", id(k.NodeRunning.Node), since(k.NodeRunning.StartedAt))
	case *aloftv1.Event_NodeSucceeded:
		return fmt.Sprintf("%s: succeeded%s", id(k.NodeSucceeded.Node), s.value(" with", k.NodeSucceeded.Outputs))
	case *aloftv1.Event_NodeFailed:
		return fmt.Sprintf("%s: failed: %s", id(k.NodeFailed.Node), problem(k.NodeFailed.Error))
	case *aloftv1.Event_NodeSkipped:
		return fmt.Sprintf("%s: skipped", id(k.NodeSkipped.Node))
	case *aloftv1.Event_NodeAborted:
		return fmt.Sprintf("%s: aborted: %s", id(k.NodeAborted.Node), k.NodeAborted.Reason)
	case *aloftv1.Event_AttemptScheduled:
		by := ""
		if k.AttemptScheduled.ByEngine {
			by = " by the engine" + since(k.AttemptScheduled.DueAt)
		}
		x := k.AttemptScheduled
		if x.NotBefore != 0 {
			by += " not before " + time.Unix(0, x.NotBefore).Sub(epoch).String()
		}
		if x.ExpiresAt != 0 {
			by += " expires " + time.Unix(0, x.ExpiresAt).Sub(epoch).String()
		}
		if x.Last {
			by += " for the last time"
		}
		if x.Memory != 0 {
			by += fmt.Sprintf(" with %d bytes", x.Memory)
		}
		if x.Checkpoint != "" {
			by += " from " + x.Checkpoint
		}
		return fmt.Sprintf("%s/%d: scheduled%s", id(x.Node), x.Attempt, by)
	case *aloftv1.Event_AttemptRunning:
		expires := ""
		if at := k.AttemptRunning.ExpiresAt; at != 0 {
			expires = " expires " + time.Unix(0, at).Sub(epoch).String()
		}
		return fmt.Sprintf("%s/%d: running%s%s", id(k.AttemptRunning.Node), k.AttemptRunning.Attempt, since(k.AttemptRunning.StartedAt), expires)
	case *aloftv1.Event_AttemptStopRequested:
		return fmt.Sprintf("%s/%d: stop requested: %s", id(k.AttemptStopRequested.Node), k.AttemptStopRequested.Attempt, k.AttemptStopRequested.Reason)
	case *aloftv1.Event_AttemptEnded:
		x := k.AttemptEnded
		result := ""
		switch r := x.Result.(type) {
		case *aloftv1.AttemptEnded_Outputs:
			result = "outputs" + s.value("", r.Outputs)
		case *aloftv1.AttemptEnded_Failure:
			result = problem(r.Failure.Error)
		case *aloftv1.AttemptEnded_Lost:
			result = "lost: " + r.Lost
		case *aloftv1.AttemptEnded_Stopped:
			result = "stopped: " + r.Stopped
		}
		budget := ""
		if x.Budget != aloftv1.AttemptEnded_NONE {
			budget = fmt.Sprintf(" (%s budget %d/%d)", strings.ToLower(x.Budget.String()), x.Charge.GetRetriesUsed(), x.Charge.GetRetriesAllowed())
		} else if x.Charge.GetNextAt() != 0 {
			budget = " (" + x.Charge.GetReason() + ")"
		}
		return fmt.Sprintf("%s/%d: ended%s: %s%s", id(x.Node), x.Attempt, since(x.EndedAt), result, budget)
	}
	return fmt.Sprint(e)
}

// value names a reference by what facts and messages called it.
func (s *story) value(before string, r *aloftv1.LiteralRef) string {
	if len(r.GetDigest()) == 0 {
		return ""
	}
	names := []string{"inputs"}
	for i := range uint32(s.run.s.Len()) {
		id := string(s.run.s.Ref(i).ID())
		names = append(names, "inputs of "+id, "outputs of "+id)
	}
	for _, name := range names {
		if string(literals(name).Digest) == string(r.Digest) {
			return before + " [" + name + "]"
		}
	}
	return before + " [unknown]"
}

func cacheStatus(l *aloftv1.CacheLookup) string {
	if l == nil {
		return ""
	}
	return ", a " + strings.ToLower(strings.TrimPrefix(l.GetStatus().String(), "CACHE_"))
}

func problem(e *core.ExecutionError) string {
	m := e.GetMessage()
	if len(m) > 200 {
		m = fmt.Sprintf("%d bytes", len(m))
	}
	return fmt.Sprintf("%s %s: %s", e.GetKind(), e.GetCode(), m)
}

func problemIf(e *core.ExecutionError) string {
	if e == nil {
		return ""
	}
	return ": " + problem(e)
}

func (s *story) show() string {
	var b strings.Builder
	time := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Sub(epoch).String()
	}
	for n := range s.run.s.Nodes() {
		parent := ""
		if p, ok := n.Parent(); ok {
			parent = fmt.Sprintf(" in %s/%s", p.ID(), n.RetryGroup())
		}
		fmt.Fprintf(&b, "%s%s %s created %s started %s ended %s%s\n", n.ID(), parent, n.Phase, time(n.CreatedAt), time(n.StartedAt), time(n.EndedAt), problemIf(n.Error))
		if n.Waiting != "" {
			fmt.Fprintf(&b, "  waits: %s\n", n.Waiting)
		}
		for _, a := range s.run.s.Attempts(n.Index()) {
			fmt.Fprintf(&b, "  %d %s created %s started %s ended %s%s", a.Attempt, a.Phase, time(a.CreatedAt), time(a.StartedAt), time(a.EndedAt), problemIf(a.Error))
			if a.Stop != "" {
				fmt.Fprintf(&b, " stop: %s", a.Stop)
			}
			if a.Spec.MemoryLimit != 0 {
				fmt.Fprintf(&b, " memory=%d", a.Spec.MemoryLimit)
			}
			if a.Spec.Interruptible {
				b.WriteString(" interruptible")
			}
			if a.Spec.Checkpoint != "" {
				fmt.Fprintf(&b, " checkpoint=%s", a.Spec.Checkpoint)
			}
			if a.Lost {
				b.WriteString(" lost")
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
