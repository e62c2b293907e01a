package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/engine/machine"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
	"github.com/aloft-dev/aloft/store/sqlstore"
	"github.com/aloft-dev/aloft/store/storetest"
)

// Journals of every release are in testdata/journal, as that release wrote them, and beside them, to be read, the records
// that it had made of them. Those of a new release are taken from a data folder that test/record.py has filled with its binary:
//
//	go test ./engine -run TestRecordedJournals -record-journals FOLDER -release 0.2.0
var (
	recordJournals  = flag.String("record-journals", "", "write the journals of this data folder (see test/record.py) to testdata/journal")
	recordedRelease = flag.String("release", "", "of -record-journals: the release that wrote them")
)

// journalFile is what is in testdata/journal/<release>.json.gz.
type journalFile struct {
	Workflows map[string][]byte `json:"workflows"` // core.CompiledWorkflowClosure by identifier
	Runs      []recordedRun     `json:"runs"`
}

// recordedRun is the journal of one execution.
type recordedRun struct {
	Project  string   `json:"project"`
	Domain   string   `json:"domain"`
	Name     string   `json:"name"`
	Workflow string   `json:"workflow"`
	Entries  [][]byte `json:"entries"` // aloftv1.JournalEntry, the bytes as they were stored
}

func (r recordedRun) id() aloft.ExecutionID {
	return aloft.ExecutionID{Project: r.Project, Domain: r.Domain, Name: r.Name}
}

func (r recordedRun) journal(t *testing.T) []*aloftv1.JournalEntry {
	t.Helper()
	entries := make([]*aloftv1.JournalEntry, len(r.Entries))
	for i, b := range r.Entries {
		entries[i] = &aloftv1.JournalEntry{}
		if err := proto.Unmarshal(b, entries[i]); err != nil {
			t.Fatalf("%s, entry %d: %v", r.Name, i+1, err)
		}
	}
	return entries
}

func (f journalFile) graph(t *testing.T, r recordedRun) *machine.Graph {
	t.Helper()
	closure := &core.CompiledWorkflowClosure{}
	if err := proto.Unmarshal(f.Workflows[r.Workflow], closure); err != nil {
		t.Fatal(err)
	}
	graph, err := machine.NewGraph(closure)
	if err != nil {
		t.Fatalf("workflow %s, which was run: %v", r.Workflow, err)
	}
	return graph
}

func releasedJournals(t *testing.T) map[string]journalFile {
	t.Helper()
	paths, err := filepath.Glob("testdata/journal/*.json.gz")
	if err != nil || len(paths) == 0 {
		t.Fatalf("testdata/journal has no journals (%v)", err)
	}
	files := map[string]journalFile{}
	for _, path := range paths {
		packed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatal(err)
		}
		var f journalFile
		if err := json.Unmarshal(content, &f); err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(path, ".json.gz")] = f
	}
	return files
}

// TestRecordedJournalsOfEveryReleaseFoldToTheRecordsThatItMade: what has been written down means the same for ever.
func TestRecordedJournalsOfEveryReleaseFoldToTheRecordsThatItMade(t *testing.T) {
	t.Parallel()
	if *recordJournals != "" {
		recordJournalsOf(t, *recordJournals, *recordedRelease)
	}
	for path, f := range releasedJournals(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(path + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			wanted := map[string]string{}
			for text := range strings.SplitSeq(string(want), "\nexecution ") {
				text = strings.TrimPrefix(text, "execution ")
				name, _, _ := strings.Cut(text, " ")
				wanted[name] = strings.TrimRight(text, "\n")
			}
			for _, r := range f.Runs {
				got := foldRecords(t, f.graph(t, r), r).String()
				if got = strings.TrimPrefix(strings.TrimRight(got, "\n"), "execution "); got != wanted[r.Name] {
					t.Errorf("execution %s folds to other records than the release made of it.\n%s", r.Name, difference(wanted[r.Name], got))
				}
				delete(wanted, r.Name)
			}
			for name := range wanted {
				t.Errorf("%s.txt has execution %s, and there is no journal of it", path, name)
			}
		})
	}
}

// TestTokensAndNumbersOfRecordedJournalsFollowFromSeedAndTemplate: executors out there show tokens that a release before has
// derived, and events name nodes by numbers that follow from the order of templates.
func TestTokensAndNumbersOfRecordedJournalsFollowFromSeedAndTemplate(t *testing.T) {
	t.Parallel()
	checked := 0
	for path, f := range releasedJournals(t) {
		for _, r := range f.Runs {
			state := machine.New(r.id(), f.graph(t, r))
			for i, entry := range r.journal(t) {
				for _, e := range entry.GetEvents() {
					if err := state.Apply(e); err != nil {
						t.Fatalf("%s: execution %s, entry %d: %v: do tokens or numbers of nodes follow otherwise from the seed and the templates than they did?", path, r.Name, i+1, err)
					}
					scheduled := e.GetAttemptScheduled()
					if scheduled == nil {
						continue
					}
					a, ok := state.Attempt(machine.AttemptRef{Node: scheduled.GetNode(), Attempt: scheduled.GetAttempt()})
					if !ok || a.Token != scheduled.GetToken() {
						t.Errorf("%s: execution %s: node %d, attempt %d: the token that follows from the seed %q is %q, and was %q", path, r.Name, scheduled.GetNode(), scheduled.GetAttempt(), state.Create().GetSeed(), a.Token, scheduled.GetToken())
					}
					checked++
				}
			}
			if err := state.Check(); err != nil {
				t.Errorf("%s: execution %s: %v", path, r.Name, err)
			}
		}
	}
	if checked < 50 {
		t.Errorf("there are %d attempts in the recorded journals", checked)
	}
}

// neverRecorded are fields of events that no run of the releases so far can have, each with the reason.
var neverRecorded = map[string]string{
	"aloft.v1.TerminateRequested.principal": "there is no sign-in: nobody is known",
	"aloft.v1.ScopeOpened.attempt":          "a sub-workflow is run once: its tasks are retried, not it",
	"aloft.v1.AttemptUsage.charge":          "the charge of an attempt stands beside its usage in AttemptEnded; in records alone it is part of it",
}

// TestEveryFieldOfEveryEventOccursInARecordedJournal: a field that is in none of them could be changed unnoticed. A new event
// or field is recorded with the release that brings it.
func TestEveryFieldOfEveryEventOccursInARecordedJournal(t *testing.T) {
	t.Parallel()
	seen := map[protoreflect.FullName]bool{}
	for _, f := range releasedJournals(t) {
		for _, r := range f.Runs {
			for _, entry := range r.journal(t) {
				noteFields(entry.ProtoReflect(), seen)
				for _, e := range entry.GetEvents() {
					usage := &aloftv1.AttemptUsage{}
					if err := proto.Unmarshal(e.GetAttemptEnded().GetUsage(), usage); err != nil {
						t.Errorf("%s: usage: %v", r.Name, err)
					}
					noteFields(usage.ProtoReflect(), seen)
				}
			}
		}
	}
	known := map[protoreflect.FullName]bool{}
	eachField((&aloftv1.JournalEntry{}).ProtoReflect().Descriptor(), known)
	eachField((&aloftv1.AttemptUsage{}).ProtoReflect().Descriptor(), known)
	for name := range known {
		reason, never := neverRecorded[string(name)]
		switch {
		case !seen[name] && !never:
			t.Errorf("no recorded journal has %s: have test/record.py make a run that has it, or say here why none can", name)
		case seen[name] && never:
			t.Errorf("%s is recorded, although %s", name, reason)
		}
	}
	for name := range neverRecorded {
		if !known[protoreflect.FullName(name)] {
			t.Errorf("there is no field %s", name)
		}
	}
}

// noteFields notes the fields of aloft's own messages that are set.
func noteFields(m protoreflect.Message, seen map[protoreflect.FullName]bool) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		seen[field.FullName()] = true
		switch {
		case !ours(field.Message()):
		case field.IsList():
			for i := range value.List().Len() {
				noteFields(value.List().Get(i).Message(), seen)
			}
		default:
			noteFields(value.Message(), seen)
		}
		return true
	})
}

// eachField lists the fields of one of aloft's messages and of the messages in it.
func eachField(m protoreflect.MessageDescriptor, known map[protoreflect.FullName]bool) {
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		if known[field.FullName()] {
			continue
		}
		known[field.FullName()] = true
		if ours(field.Message()) {
			eachField(field.Message(), known)
		}
	}
}

func ours(m protoreflect.MessageDescriptor) bool {
	return m != nil && m.FullName().Parent() == "aloft.v1"
}

// records are what queries read of one execution, with the numbers that its nodes have in events.
type records struct {
	execution machine.ExecutionView
	create    *aloftv1.Create
	dueAt     time.Time
	nodes     []*store.Node
	numbers   map[aloft.NodeID]uint32
	attempts  []*store.Attempt
}

// foldRecords makes of a journal what its last step would write if it had touched everything.
func foldRecords(t *testing.T, g *machine.Graph, r recordedRun) records {
	t.Helper()
	entries := r.journal(t)
	state, err := machine.Fold(r.id(), g, entries)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[machine.AttemptRef]*aloftv1.AttemptEnded{}
	lookups := map[uint32]*aloftv1.CacheLookup{}
	decks := map[uint32]string{}
	for _, entry := range entries {
		for _, e := range entry.GetEvents() {
			if k := e.GetAttemptEnded(); k != nil {
				ends[machine.AttemptRef{Node: k.GetNode(), Attempt: k.GetAttempt()}] = k
			}
			if k := e.GetNodeQueued(); k != nil {
				lookups[k.GetNode()] = k.GetCache()
			}
			if k := e.GetNodeCached(); k != nil {
				lookups[k.GetNode()] = k.GetCache()
			}
			if k := e.GetNodeRecovered(); k != nil {
				lookups[k.GetNode()], decks[k.GetNode()] = k.GetCache(), k.GetDeckUri()
			}
		}
	}
	all := records{execution: state.Execution(), create: state.Create(), dueAt: state.DueAt(), numbers: map[aloft.NodeID]uint32{}}
	for n := range state.Nodes() {
		record := nodeRecord(n)
		record.Inputs, record.Outputs = literalsOf(n.Inputs), literalsOf(n.Outputs)
		record.Cache = lookups[n.Index()]
		if decks[n.Index()] != "" {
			record.DeckURI = decks[n.Index()]
		}
		all.numbers[record.ID] = n.Index()
		all.nodes = append(all.nodes, record)
		for _, a := range state.Attempts(n.Index()) {
			all.attempts = append(all.attempts, attemptRecord(0, r.id(), a, ends[machine.AttemptRef{Node: n.Index(), Attempt: a.Attempt}]))
		}
	}
	return all
}

func literalsOf(r *aloftv1.LiteralRef) *aloftv1.Literals {
	if r == nil {
		return nil
	}
	return &aloftv1.Literals{Ref: r}
}

// String is the form in which records stand in testdata. An attempt that an executor has is shown as the engine knows it.
func (r records) String() string {
	var b strings.Builder
	e := r.execution
	fmt.Fprintf(&b, "execution %s %s\n", e.ID.Name, e.Phase)
	line := func(indent int, name string, value any) {
		switch v := value.(type) {
		case string:
			if v != "" {
				fmt.Fprintf(&b, "%*s%s %q\n", indent, "", name, v)
			}
		case time.Time:
			if !v.IsZero() {
				fmt.Fprintf(&b, "%*s%s %s\n", indent, "", name, v.UTC().Format(time.RFC3339Nano))
			}
		case bool:
			if v {
				fmt.Fprintf(&b, "%*s%s\n", indent, "", name)
			}
		case proto.Message:
			if v.ProtoReflect().IsValid() && proto.Size(v) > 0 {
				fmt.Fprintf(&b, "%*s%s %s\n", indent, "", name, oneLine(v))
			}
		}
	}
	line(2, "create", r.create)
	line(2, "started", e.StartedAt)
	line(2, "updated", e.UpdatedAt)
	line(2, "ended", e.EndedAt)
	line(2, "error", e.Error)
	line(2, "outputs", e.Outputs)
	line(2, "abort cause", e.AbortCause)
	line(2, "abort principal", e.AbortPrincipal)
	line(2, "due", r.dueAt)
	for _, n := range r.nodes {
		fmt.Fprintf(&b, "  node %d %s %s\n", r.numbers[n.ID], n.ID, n.Phase)
		line(4, "in template", n.SpecNodeID)
		line(4, "name", n.Name)
		line(4, "below", string(n.Parent))
		line(4, "retry group", n.RetryGroup)
		line(4, "parent", n.IsParent)
		line(4, "target", n.Target)
		line(4, "created", n.CreatedAt)
		line(4, "started", n.StartedAt)
		line(4, "updated", n.UpdatedAt)
		line(4, "ended", n.EndedAt)
		line(4, "error", n.Error)
		line(4, "inputs", n.Inputs.GetRef())
		line(4, "outputs", n.Outputs.GetRef())
		line(4, "deck", n.DeckURI)
		line(4, "waits", n.Waiting)
		line(4, "cache", n.Cache)
		for _, a := range r.attempts {
			if a.ID.Node != n.ID {
				continue
			}
			fmt.Fprintf(&b, "    attempt %d %s %s\n", a.Attempt, a.Token, a.Phase)
			line(6, "by engine", a.ByEngine)
			line(6, "not before", a.NotBefore)
			line(6, "created", a.CreatedAt)
			line(6, "started", a.StartedAt)
			line(6, "updated", a.UpdatedAt)
			line(6, "ended", a.EndedAt)
			line(6, "stop", a.Stop)
			line(6, "error", a.Error)
			line(6, "lost", a.Lost)
			line(6, "outputs", a.Outputs)
			line(6, "deck", a.DeckURI)
			for _, o := range a.Objects {
				line(6, "object", o)
			}
			line(6, "environment", a.Environment)
			line(6, "usage", a.Usage)
		}
	}
	return b.String()
}

// oneLine is a message as JSON, without the blanks that protojson writes at random.
func oneLine(m proto.Message) string {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return err.Error()
	}
	return b.String()
}

// difference is the first line in which two texts differ, with the lines before it.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "nothing", "nothing"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("%s\nwant %s\ngot  %s", strings.Join(w[max(0, min(i, len(w))-3):min(i, len(w))], "\n"), a, b)
		}
	}
	return ""
}

// recordJournalsOf writes the journals of all executions of a data folder and, beside them, their records as they are in its
// database. The test checks that the two agree.
func recordJournalsOf(t *testing.T, folder, release string) {
	t.Helper()
	if release == "" {
		t.Fatal("-record-journals needs -release")
	}
	copied := t.TempDir() // opening it may migrate it
	for _, name := range []string{"aloft.db", "aloft.db-wal"} {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, name), content, 0o600)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	s, err := sqlstore.Open(t.Context(), sqlstore.Options{Path: filepath.Join(copied, "aloft.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	executions, err := s.ListExecutions(t.Context(), store.Query{Ascending: true})
	if err != nil {
		t.Fatal(err)
	}
	f := journalFile{Workflows: map[string][]byte{}}
	var text strings.Builder
	for _, listed := range executions {
		e, journal, err := storetest.Load(t.Context(), s, listed.Key)
		if err != nil {
			t.Fatal(err)
		}
		workflow, err := s.GetWorkflow(t.Context(), e.Workflow)
		if err != nil {
			t.Fatal(err)
		}
		r := recordedRun{Project: e.ID.Project, Domain: e.ID.Domain, Name: e.ID.Name, Workflow: e.Workflow.GetName() + " " + e.Workflow.GetVersion()}
		deterministic := proto.MarshalOptions{Deterministic: true}
		if f.Workflows[r.Workflow], err = deterministic.Marshal(workflow.Compiled); err != nil {
			t.Fatal(err)
		}
		for _, row := range journal {
			b, err := deterministic.Marshal(row.Entry) // as the store writes it
			if err != nil {
				t.Fatal(err)
			}
			r.Entries = append(r.Entries, b)
		}
		f.Runs = append(f.Runs, r)
		fromStore, err := storedRecords(t.Context(), s, e, foldRecords(t, f.graph(t, r), r))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s\n", fromStore)
	}
	content, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata/journal", 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata/journal", release)
	packed, err := os.OpenFile(path+".json.gz", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // the journals of a release are recorded once
	if err != nil {
		t.Fatal(err)
	}
	w, err := gzip.NewWriterLevel(packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(content)
	if err := errors.Join(err, w.Close(), packed.Close(), os.WriteFile(path+".txt", []byte(text.String()), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// storedRecords are the records of an execution in a database. What records do not have (numbers of nodes, what Create said,
// the next timer) is of the fold.
func storedRecords(ctx context.Context, s *sqlstore.Store, e *store.Execution, folded records) (records, error) {
	r := records{
		execution: machine.ExecutionView{
			ID: e.ID, Phase: e.Phase, StartedAt: e.StartedAt, UpdatedAt: e.UpdatedAt, EndedAt: e.EndedAt, Error: e.Error,
			Outputs: e.Outputs.GetRef(), AbortCause: e.AbortCause, AbortPrincipal: e.AbortPrincipal,
		},
		create: folded.create, dueAt: folded.dueAt, numbers: folded.numbers,
	}
	var ids []aloft.NodeID
	for _, n := range folded.nodes {
		ids = append(ids, n.ID)
	}
	var err error
	if r.nodes, err = s.NodeValues(ctx, e.ID, ids); err != nil {
		return r, err
	}
	lookups := map[aloft.NodeID]*aloftv1.CacheLookup{}
	for _, n := range folded.nodes {
		lookups[n.ID] = n.Cache
	}
	for _, n := range r.nodes {
		if n.Cache.GetStatus() == core.CatalogCacheStatus_CACHE_POPULATED { // which the commit adds, and no event says
			n.Cache = lookups[n.ID]
		}
	}
	slices.SortFunc(r.nodes, func(a, b *store.Node) int { return int(folded.numbers[a.ID]) - int(folded.numbers[b.ID]) })
	attempts, err := s.ListAttempts(ctx, e.ID, "", store.Query{Ascending: true})
	if err != nil {
		return r, err
	}
	for _, a := range attempts {
		whole, err := s.GetAttempt(ctx, a.ID)
		if err != nil {
			return r, err
		}
		r.attempts = append(r.attempts, whole)
	}
	slices.SortFunc(r.attempts, func(a, b *store.Attempt) int { return int(a.Attempt) - int(b.Attempt) })
	return r, nil
}
