// Package launch turns inputs and a launch plan (or a task) into a queued execution, and launches an old one again.
//
// It comes after api and registry, before store. A launch has these steps:
//
//	check request ─▶ find launch plan ─▶ resolve inputs ─▶ check tasks' needs ─▶ write objects ─▶ commit row and inbox
//
// All mistakes of a request are found before the first write and reported at once. The commit is one transaction with the
// execution's row and the first message of its inbox; from then on the execution exists and the engine runs it. If the store
// cannot say whether the commit happened, the same row is committed again, which is harmless. If an object cannot be written, or
// the server dies before the commit, there is no execution, and objects that were written stay without a reference.
package launch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/internal/lru"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// Registry gives the launcher versions: registry.Registry. The values that it returns are shared and must not be changed.
type Registry interface {
	// CheckProject refuses unknown projects, archived projects, and unknown domains.
	CheckProject(ctx context.Context, project, domain string) error
	// LaunchPlan returns a version; its state may be stale. ErrNotFound.
	LaunchPlan(ctx context.Context, id *core.Identifier) (*store.LaunchPlan, error)
	// SingleTask returns the launch plan of a workflow that runs only the task, generated on first use. ErrNotFound.
	SingleTask(ctx context.Context, task *core.Identifier) (*store.LaunchPlan, error)
	// Workflow returns a version. ErrNotFound.
	Workflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error)
}

// Literals stores literal maps: blob.Literals. Small maps are returned by value; others become objects, which are durable when
// WriteLiterals returns.
type Literals interface {
	WriteLiterals(ctx context.Context, m *core.LiteralMap) (*aloftv1.Literals, error)
	ReadLiterals(ctx context.Context, ref *aloftv1.LiteralRef) (*core.LiteralMap, error)
}

// Store is the part of the store that a launcher needs.
type Store interface {
	CreateExecution(ctx context.Context, e *store.Execution, create *aloftv1.Inbox) error
	GetExecution(ctx context.Context, id aloft.ExecutionID) (*store.Execution, error)
}

// Config of a Launcher.
type Config struct {
	Store    Store
	Registry Registry
	Literals Literals

	MaxParallelism int                              // of executions and launch plans that state none; 0: no limit
	CanonicalFunc  func(uri string) (string, error) // the location-free form of a location in an input
	Now            func() time.Time                 // nil: time.Now

	// RefusalFunc says why this server can never run a task with the resources that a node wants, with the way out; empty: it can.
	// Nil: it can run all tasks.
	RefusalFunc func(*core.TaskTemplate, *core.TaskNode) string

	Variables map[string]string // environment variables of all tasks, secrets among them
}

// Launcher creates executions. Safe for concurrent use.
type Launcher struct {
	Config

	needsCache *lru.Cache[aloft.Key, taskNeeds] // by workflow
}

// needsCacheBytes bounds the memory of Launcher.needsCache.
const needsCacheBytes = 4 << 20

// New returns a Launcher.
func New(config Config) *Launcher {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Launcher{Config: config, needsCache: lru.New[aloft.Key, taskNeeds](needsCacheBytes)}
}

// Request asks for an execution. The launcher takes Spec and Inputs over and changes them.
type Request struct {
	Project string
	Domain  string
	Name    string // empty: a name is generated
	Spec    *admin.ExecutionSpec
	Inputs  *core.LiteralMap
}

// Create checks the request, commits the execution and returns its id. ErrExists if the name is taken.
func (l *Launcher) Create(ctx context.Context, r Request) (aloft.ExecutionID, error) {
	spec := r.Spec
	if spec == nil {
		spec = &admin.ExecutionSpec{}
	}
	given := r.Inputs
	if len(given.GetLiterals()) == 0 && len(spec.GetInputs().GetLiterals()) > 0 {
		given = spec.GetInputs() // a deprecated field, and the only one in which flyteconsole sends inputs
	}
	if given == nil {
		given = &core.LiteralMap{}
	}

	var problems field.Problems
	problems.Text("project", r.Project)
	problems.Text("domain", r.Domain)
	if r.Name != "" {
		problems.Include(checkName(r.Name))
	}
	if r.Spec == nil {
		problems.Missing("spec")
	}
	problems.Labels(spec.GetLabels())
	problems.Tags(spec.GetTags())
	if spec != nil {
		spec.Inputs = nil // inputs are stored apart from the spec
		problems.Spec("spec", spec)
		problems.Legible("spec", spec)
	}
	problems.Notifications(spec.GetNotifications().GetNotifications())
	problems.RawOutput("spec.raw_output_data_config", spec.GetRawOutputDataConfig())
	var recovered *store.Execution
	if spec.GetMetadata().GetMode() == admin.ExecutionMetadata_RECOVERED {
		var err error
		if recovered, err = l.recoverable(ctx, r.Project, r.Domain, spec.GetMetadata().GetReferenceExecution()); err != nil {
			return aloft.ExecutionID{}, fmt.Errorf("recover: %w", err) // without that execution the other checks make no sense
		}
		if len(given.GetLiterals()) == 0 {
			if given, err = l.load(ctx, recovered.UserInputs); err != nil {
				return aloft.ExecutionID{}, fmt.Errorf("recover execution %s: read its inputs: %w", recovered.ID, err)
			}
			if given == nil {
				given = &core.LiteralMap{}
			}
		}
	}
	if r.Project != "" && r.Domain != "" {
		problems.Include(l.Registry.CheckProject(ctx, r.Project, r.Domain))
	}
	problems.Include(literal.Validate(given))
	problems.Include(l.canonical(given))

	plan, err := l.target(ctx, spec.GetLaunchPlan())
	problems.Include(err)
	var inputs *core.LiteralMap
	var needed taskNeeds
	if err == nil {
		inputs, err = l.resolve(plan, given)
		problems.Include(err)
		var refused error
		needed, refused = l.checkNeeds(ctx, plan, spec)
		problems.Include(refused)
	}
	if recovered != nil && err == nil {
		problems.Include(l.checkSameRun(ctx, recovered, plan, inputs))
	}
	if err := problems.Err(); err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("create execution: %w", err)
	}

	e := l.execution(r, spec, plan)
	e.JournalVersion = needed.journal
	create := &aloftv1.Create{
		Workflow:       e.Workflow,
		MaxParallelism: parallelism(spec.GetMaxParallelism(), l.MaxParallelism),
		Interruptible:  spec.GetInterruptible().GetValue(),
		OverwriteCache: spec.GetOverwriteCache(),
		Seed:           newSeed(),
	}
	if recovered != nil {
		create.Recovers = recovered.ID.Proto()
	}
	return l.commit(ctx, e, create, r.Name == "", given, inputs)
}

// Relaunch creates an execution with the spec of an old one and with the inputs that its user gave. Inputs that the user did not
// give get the present defaults. ErrNotFound if there is no such execution.
func (l *Launcher) Relaunch(ctx context.Context, id aloft.ExecutionID, name string, overwriteCache bool) (aloft.ExecutionID, error) {
	old, err := l.Store.GetExecution(ctx, id)
	if err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("relaunch: %w", err)
	}
	given, err := l.load(ctx, old.UserInputs)
	if err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("relaunch execution %s: read its inputs: %w", id, err)
	}
	spec := proto.CloneOf(old.Spec)
	spec.OverwriteCache = overwriteCache
	spec.Metadata = &admin.ExecutionMetadata{Mode: admin.ExecutionMetadata_RELAUNCH, ReferenceExecution: id.Proto()}
	return l.Create(ctx, Request{Project: id.Project, Domain: id.Domain, Name: name, Spec: spec, Inputs: given})
}

// target finds the launch plan of an id: of a launch plan itself, or the generated one of a task.
func (l *Launcher) target(ctx context.Context, id *core.Identifier) (*store.LaunchPlan, error) {
	var problems field.Problems
	kind := id.GetResourceType()
	if id != nil && kind != core.ResourceType_LAUNCH_PLAN && kind != core.ResourceType_TASK {
		problems.Add("invalid value for spec.launch_plan: an execution is of a launch plan or a task, not of a %s", aloft.Kind(kind))
		kind = id.GetResourceType() // so that the mistake is not reported twice
	}
	problems.Identifier("spec.launch_plan", id, kind, true)
	if err := problems.Err(); err != nil {
		return nil, err
	}
	if kind == core.ResourceType_TASK {
		return l.Registry.SingleTask(ctx, id)
	}
	return l.Registry.LaunchPlan(ctx, id)
}

// resolve completes the inputs with those of the launch plan. The plan is shared, so its values are copied before their locations
// are rewritten.
func (l *Launcher) resolve(plan *store.LaunchPlan, given *core.LiteralMap) (*core.LiteralMap, error) {
	inputs, err := literal.ResolveInputs(plan.Closure.GetExpectedInputs(), given, plan.Spec.GetFixedInputs())
	if err != nil {
		return nil, err
	}
	own := &core.LiteralMap{Literals: map[string]*core.Literal{}}
	for name, value := range inputs.GetLiterals() {
		if given.GetLiterals()[name] == nil {
			own.Literals[name] = proto.CloneOf(value)
			inputs.Literals[name] = own.Literals[name]
		}
	}
	return inputs, l.canonical(own)
}

// canonical rewrites the locations in m to canonical URIs, in place.
func (l *Launcher) canonical(m *core.LiteralMap) error {
	if l.CanonicalFunc == nil || len(m.GetLiterals()) == 0 {
		return nil
	}
	var problems field.Problems
	if err := literal.RewriteURIs(m, l.CanonicalFunc); err != nil {
		problems.Include(fmt.Errorf("invalid value: %w", err))
	}
	return problems.Err()
}

// execution is the row of the execution, complete but for its name, its inputs and the version of its journal. Settings that the
// request leaves empty are those of the launch plan.
func (l *Launcher) execution(r Request, spec *admin.ExecutionSpec, plan *store.LaunchPlan) *store.Execution {
	now := l.Now()
	notifications := spec.GetNotifications().GetNotifications()
	if len(notifications) == 0 && !spec.GetDisableAll() {
		notifications = plan.Spec.GetEntityMetadata().GetNotifications()
	}
	fillFromPlan(spec, plan.Spec, l.MaxParallelism)
	if spec.Metadata == nil {
		spec.Metadata = &admin.ExecutionMetadata{}
	}
	spec.Metadata.Principal = "" // the user who has signed in, not what the client claims; empty, because there is no sign-in
	spec.Metadata.SystemMetadata = &admin.SystemMetadata{Namespace: r.Project + "-" + r.Domain}

	e := &store.Execution{
		ID:             aloft.ExecutionID{Project: r.Project, Domain: r.Domain, Name: r.Name},
		Spec:           spec,
		Workflow:       plan.Spec.GetWorkflowId(),
		Notifications:  notifications,
		Phase:          core.WorkflowExecution_UNDEFINED,
		CreatedAt:      now,
		UpdatedAt:      now,
		State:          admin.ExecutionState_EXECUTION_ACTIVE,
		StateChangedAt: now,
	}
	if spec.GetLaunchPlan().GetResourceType() == core.ResourceType_TASK {
		e.Task = spec.GetLaunchPlan()
	}
	return e
}

// fillFromPlan fills each setting that is empty in the spec from the launch plan. Empty messages count as absent, because flytekit
// always sends them; a map is taken as a whole and not merged.
func fillFromPlan(spec *admin.ExecutionSpec, plan *admin.LaunchPlanSpec, maxParallelism int) {
	if spec.MaxParallelism == 0 {
		spec.MaxParallelism = plan.GetMaxParallelism()
	}
	if spec.MaxParallelism == 0 {
		spec.MaxParallelism = int32(maxParallelism)
	}
	if !runsAs(spec.GetSecurityContext()) {
		switch role := plan.GetAuthRole(); {
		case spec.GetAuthRole().GetAssumableIamRole() != "" || spec.GetAuthRole().GetKubernetesServiceAccount() != "":
			spec.SecurityContext = asRole(spec.GetAuthRole())
		case runsAs(plan.GetSecurityContext()):
			spec.SecurityContext = plan.GetSecurityContext()
		case role.GetAssumableIamRole() != "" || role.GetKubernetesServiceAccount() != "":
			spec.SecurityContext = asRole(role)
		}
	}
	if spec.GetRawOutputDataConfig().GetOutputLocationPrefix() == "" && plan.GetRawOutputDataConfig().GetOutputLocationPrefix() != "" {
		spec.RawOutputDataConfig = plan.GetRawOutputDataConfig()
	}
	if len(spec.GetLabels().GetValues()) == 0 && len(plan.GetLabels().GetValues()) > 0 {
		spec.Labels = plan.GetLabels()
	}
	if len(spec.GetAnnotations().GetValues()) == 0 && len(plan.GetAnnotations().GetValues()) > 0 {
		spec.Annotations = plan.GetAnnotations()
	}
	if spec.Interruptible == nil {
		spec.Interruptible = plan.GetInterruptible()
	}
	if !spec.OverwriteCache {
		spec.OverwriteCache = plan.GetOverwriteCache()
	}
	if len(spec.GetEnvs().GetValues()) == 0 && len(plan.GetEnvs().GetValues()) > 0 {
		spec.Envs = plan.GetEnvs()
	}
}

func runsAs(c *core.SecurityContext) bool {
	as := c.GetRunAs()
	return as.GetIamRole() != "" || as.GetK8SServiceAccount() != "" || as.GetExecutionIdentity() != ""
}

func asRole(role *admin.AuthRole) *core.SecurityContext {
	return &core.SecurityContext{RunAs: &core.Identity{IamRole: role.GetAssumableIamRole(), K8SServiceAccount: role.GetKubernetesServiceAccount()}}
}

// parallelism is how many task nodes may run at once, 0 for any number. A user states a negative number for "no limit", because 0
// means "the server's default", as in Flyte.
func parallelism(stated int32, byDefault int) uint32 {
	if stated < 0 || stated == 0 && byDefault <= 0 {
		return 0
	}
	if stated == 0 {
		return uint32(byDefault)
	}
	return uint32(stated)
}

const (
	maxNameTries   = 5
	maxCommitTries = 3
)

// commit writes the inputs as objects and then the row. If anyName, the name is generated, and generated again on a collision.
func (l *Launcher) commit(ctx context.Context, e *store.Execution, create *aloftv1.Create, anyName bool, given, inputs *core.LiteralMap) (aloft.ExecutionID, error) {
	var err error
	if e.Inputs, err = l.Literals.WriteLiterals(ctx, inputs); err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("create execution: keep its inputs: %w", err)
	}
	if e.UserInputs, err = l.Literals.WriteLiterals(ctx, given); err != nil {
		return aloft.ExecutionID{}, fmt.Errorf("create execution: keep its inputs: %w", err)
	}
	create.Inputs = e.Inputs.GetRef()
	for try := 1; ; try++ {
		if anyName {
			e.ID.Name = generateName()
		}
		err := l.commitRow(ctx, e, create)
		if err == nil {
			return e.ID, nil
		}
		if !anyName || !errors.Is(err, aloft.ErrExists) || try == maxNameTries {
			return aloft.ExecutionID{}, fmt.Errorf("create execution %s: %w", e.ID, err)
		}
	}
}

// commitRow commits the row, and does so again if the store cannot say whether it was committed: the store recognises a row that is
// there already by its seed.
func (l *Launcher) commitRow(ctx context.Context, e *store.Execution, create *aloftv1.Create) error {
	message := &aloftv1.Inbox{Kind: &aloftv1.Inbox_Create{Create: create}}
	for try := 1; ; try++ {
		err := l.Store.CreateExecution(ctx, e, message)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, aloft.ErrUnavailable) || try == maxCommitTries || ctx.Err() != nil:
			return err
		}
	}
}

func (l *Launcher) load(ctx context.Context, kept *aloftv1.Literals) (*core.LiteralMap, error) {
	if kept.GetRef().GetUri() == "" {
		return proto.CloneOf(kept.GetValue()), nil
	}
	return l.Literals.ReadLiterals(ctx, kept.GetRef())
}

func checkName(name string) error {
	if len(name) > aloft.MaxExecutionName {
		return fmt.Errorf("invalid value for name: %q has %d characters, the limit is %d", aloft.Excerpt(name), len(name), aloft.MaxExecutionName)
	}
	for i, c := range strings.ToLower(name) { // Flyte compares the lower-case name, and keeps the name as it is
		if !(c >= 'a' && c <= 'z') && (i == 0 || !(c >= '0' && c <= '9' || c == '-')) {
			return fmt.Errorf("invalid value for name: %q must begin with a letter and contain only letters, digits and '-'", aloft.Excerpt(name))
		}
	}
	return nil
}

// nameAlphabet has no vowels, so that no words appear, and no digit that looks like a letter.
const nameAlphabet = "bcdfghjklmnpqrstvwxz2456789"

const generatedNameLength = 20

// generateName generates a name: a letter and 19 random characters (90 bits).
func generateName() string {
	name := make([]byte, 1, generatedNameLength)
	name[0] = 'a'
	var random [32]byte
	for {
		rand.Read(random[:])
		for _, b := range random {
			if int(b) >= 256/len(nameAlphabet)*len(nameAlphabet) {
				continue // to take it would make the first letters of the alphabet likelier
			}
			if name = append(name, nameAlphabet[int(b)%len(nameAlphabet)]); len(name) == generatedNameLength {
				return string(name)
			}
		}
	}
}

func newSeed() string {
	var random [16]byte
	rand.Read(random[:])
	return hex.EncodeToString(random[:])
}
