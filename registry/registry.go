// Package registry keeps immutable versions of tasks, workflows and launch plans, and the projects they belong to.
//
// It comes after api, before compiler (which makes a workflow out of a template, or the list of all reasons why not) and
// store. What is registered first under the id of a version stays: registering the same again is ErrExists, which clients
// take for success, and registering something else under that id is ErrInvalid with the difference. Since versions never
// change, they are cached and a cached version is never stale. The exception is the state of a launch plan: a caller that needs
// it reads the store.
//
// It relies on the unique ids of the store: if several clients register one id at the same time, exactly one of them creates it
// and all others compare. When the store cannot be reached, either nothing was registered or exactly what the client sent.
package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/lru"
	"github.com/aloft-dev/aloft/internal/weight"
	"github.com/aloft-dev/aloft/store"
)

// Store is what the registry needs of the store.
type Store interface {
	store.Registry
	ListProjects(ctx context.Context, q store.Query) ([]*admin.Project, error)
}

// Config of a Registry.
type Config struct {
	Store   Store
	Domains []string         // of each project
	Now     func() time.Time // nil: time.Now
}

// Registry registers and finds versions. Safe for concurrent use. What it returns is shared and must not be changed.
type Registry struct {
	Config

	tasks       *lru.Cache[aloft.Key, *store.Task]
	workflows   *lru.Cache[aloft.Key, *store.Workflow]
	launchPlans *lru.Cache[aloft.Key, *store.LaunchPlan]
	requests    *lru.Cache[aloft.Key, rememberedRequest] // the request that registered an id: to register the same again costs one hash
	projects    projectCache
	generating  sync.Mutex // held while the workflow of a single task is generated
}

// Sizes of the caches, in bytes. A workflow of 1,000 nodes takes about a megabyte.
const (
	cachedTasks       = 32 << 20
	cachedWorkflows   = 128 << 20
	cachedLaunchPlans = 32 << 20
	cachedRequests    = 4 << 20
)

// New returns a Registry.
func New(config Config) *Registry {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Registry{
		Config:      config,
		tasks:       lru.New[aloft.Key, *store.Task](cachedTasks),
		workflows:   lru.New[aloft.Key, *store.Workflow](cachedWorkflows),
		launchPlans: lru.New[aloft.Key, *store.LaunchPlan](cachedLaunchPlans),
		requests:    lru.New[aloft.Key, rememberedRequest](cachedRequests),
	}
}

// Conflict says that an id is taken, by an identical version or by a different one.
type Conflict struct {
	ID         *core.Identifier
	Identical  bool
	Difference string // between the two versions; empty if Identical
}

func (c *Conflict) Error() string {
	kind := aloft.Kind(c.ID.GetResourceType())
	if c.Identical {
		return fmt.Sprintf("%s %s, version %s: %s with identical structure already exists", kind, c.ID.GetName(), c.ID.GetVersion(), kind)
	}
	return fmt.Sprintf("%s %s with different structure already exists under version %s, and versions never change: register it under a new version. The difference:\n%s",
		c.ID.GetName(), kind, c.ID.GetVersion(), c.Difference)
}

// Unwrap is aloft.ErrExists if the versions are identical, which clients take for success, and otherwise aloft.ErrInvalid.
func (c *Conflict) Unwrap() error {
	if c.Identical {
		return aloft.ErrExists
	}
	return aloft.ErrInvalid
}

// maxDifference bounds the difference in a message, in bytes. A longer one helps no user.
const maxDifference = 8000

// cutDifference cuts a difference that is too long at the end of a line.
func cutDifference(text string) string {
	if len(text) <= maxDifference {
		return text
	}
	cut := maxDifference
	for i := cut; i > cut-1000; i-- {
		if text[i] == '\n' {
			cut = i
			break
		}
	}
	return text[:cut] + "\n… and more"
}

// checkRemembered returns a *Conflict if this very request registered the id within requestCacheTime, and otherwise nil. hash is
// that of the request, for remember.
func (r *Registry) checkRemembered(id *core.Identifier, request proto.Message) (hash [sha256.Size]byte, err error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return hash, fmt.Errorf("%w: %s %s: %w", aloft.ErrInvalid, aloft.Kind(id.GetResourceType()), id.GetName(), err)
	}
	hash = sha256.Sum256(content)
	if known, ok := r.requests.Get(aloft.KeyOf(id).Of(id.GetResourceType())); ok && known.hash == hash && r.Now().Sub(known.at) < requestCacheTime {
		return hash, &Conflict{ID: id, Identical: true}
	}
	return hash, nil
}

// remember stores the hash of the request that registered an id.
func (r *Registry) remember(kind core.ResourceType, id *core.Identifier, hash [sha256.Size]byte) {
	r.requests.Put(aloft.KeyOf(id).Of(kind), rememberedRequest{hash, r.Now()}, int64(requestBytes+len(id.GetProject())+len(id.GetDomain())+len(id.GetName())+len(id.GetVersion())))
}

// rememberedRequest is the request that registered an id.
type rememberedRequest struct {
	hash [sha256.Size]byte
	at   time.Time
}

// requestCacheTime is how long a request is remembered. After that, registering the same again compares it with the stored version,
// and replaces a record that cannot be decoded.
const requestCacheTime = time.Minute

// requestBytes is about the memory that a remembered request takes besides the texts of its id.
const requestBytes = 320

// Task returns a version of a task. ErrNotFound.
func (r *Registry) Task(ctx context.Context, id *core.Identifier) (*store.Task, error) {
	return find(ctx, r.tasks, id, core.ResourceType_TASK, r.Store.GetTask,
		func(t *store.Task) int { return proto.Size(t.Compiled) + proto.Size(t.Description) })
}

// Workflow returns a version of a workflow. ErrNotFound.
func (r *Registry) Workflow(ctx context.Context, id *core.Identifier) (*store.Workflow, error) {
	return find(ctx, r.workflows, id, core.ResourceType_WORKFLOW, r.Store.GetWorkflow,
		func(w *store.Workflow) int { return proto.Size(w.Compiled) + proto.Size(w.Description) })
}

// LaunchPlan returns a version of a launch plan. Its state, the only part that changes, may be stale. ErrNotFound.
func (r *Registry) LaunchPlan(ctx context.Context, id *core.Identifier) (*store.LaunchPlan, error) {
	return find(ctx, r.launchPlans, id, core.ResourceType_LAUNCH_PLAN, r.Store.GetLaunchPlan,
		func(l *store.LaunchPlan) int { return proto.Size(l.Spec) + proto.Size(l.Closure) })
}

func find[V any](ctx context.Context, cache *lru.Cache[aloft.Key, V], id *core.Identifier, kind core.ResourceType,
	read func(context.Context, *core.Identifier) (V, error), size func(V) int,
) (V, error) {
	if v, ok := cache.Get(aloft.KeyOf(id)); ok {
		return v, nil
	}
	v, err := read(ctx, id)
	if err != nil {
		var none V
		return none, notFound(kind, id, err)
	}
	cache.Put(aloft.KeyOf(id), v, weight.Decoded(int64(size(v))))
	return v, nil
}

// notFound puts ErrNotFound into Flyte's words; other errors stay as they are.
func notFound(kind core.ResourceType, id *core.Identifier, err error) error {
	if !errors.Is(err, aloft.ErrNotFound) {
		return err
	}
	return fmt.Errorf("missing entity of type %s with identifier project:%q domain:%q name:%q version:%q: %w",
		kind, aloft.Excerpt(id.GetProject()), aloft.Excerpt(id.GetDomain()), aloft.Excerpt(id.GetName()), aloft.Excerpt(id.GetVersion()), aloft.ErrNotFound)
}
