package registry

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/compiler"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/field"
	"github.com/aloft-dev/aloft/literal"
	"github.com/aloft-dev/aloft/store"
)

// CreateTask registers a version of a task. A *Conflict if the id is taken.
func (r *Registry) CreateTask(ctx context.Context, id *core.Identifier, spec *admin.TaskSpec) error {
	if err := r.checkCreate(ctx, id, core.ResourceType_TASK, spec); err != nil {
		return fmt.Errorf("create task: %w", err)
	}
	if n := proto.Size(spec); n > aloft.MaxTaskBytes {
		return fmt.Errorf("create task %s: invalid value for spec: it has %d bytes, the limit is %d: %w", id.GetName(), n, aloft.MaxTaskBytes, aloft.ErrInvalid)
	}
	hash, err := r.checkRemembered(id, spec)
	if err != nil {
		return err
	}
	compiled, err := compiler.CompileTask(id, spec.GetTemplate())
	if err != nil {
		return fmt.Errorf("create task %s: %w", id.GetName(), err)
	}
	digest := literal.StructureDigest(compiled)
	t := &store.Task{
		ID:               id,
		Digest:           digest[:],
		Compiled:         compiled,
		Description:      describe(id, spec.GetDescription()),
		ShortDescription: spec.GetDescription().GetShortDescription(),
		CreatedAt:        r.Now(),
	}
	err = r.Store.CreateTask(ctx, t)
	if errors.Is(err, aloft.ErrExists) {
		old, err := r.Task(ctx, id)
		if err != nil {
			return err
		}
		if string(old.Digest) != string(digest[:]) {
			return &Conflict{ID: id, Difference: cutDifference(compiler.Difference(old.Compiled, compiled))}
		}
		r.remember(core.ResourceType_TASK, id, hash)
		return &Conflict{ID: id, Identical: true}
	}
	if err != nil {
		return fmt.Errorf("create task %s: %w", id.GetName(), err)
	}
	r.remember(core.ResourceType_TASK, id, hash)
	return nil
}

// checkCreate makes the checks that all creates have in common. It sets an unspecified resource type of the id to kind, and removes
// unknown fields from the id.
func (r *Registry) checkCreate(ctx context.Context, id *core.Identifier, kind core.ResourceType, spec proto.Message) error {
	var problems field.Problems
	problems.Identifier("id", id, kind, true)
	if spec.ProtoReflect().IsValid() {
		problems.Legible("spec", spec)
	} else {
		problems.Missing("spec")
	}
	if id.GetProject() != "" && id.GetDomain() != "" {
		problems.Include(r.CheckProject(ctx, id.GetProject(), id.GetDomain()))
	}
	if err := problems.Err(); err != nil {
		return err
	}
	id.ResourceType = kind
	id.ProtoReflect().SetUnknown(nil)
	return nil
}

// describe is the description as an entity of its own. flytekit sends one with every task, empty or not.
func describe(id *core.Identifier, d *admin.DescriptionEntity) *admin.DescriptionEntity {
	if d == nil {
		return nil
	}
	d = proto.CloneOf(d)
	d.Id = id
	return d
}
