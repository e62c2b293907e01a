package storetest

import (
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

func named(kind core.ResourceType, name, description string, state admin.NamedEntityState) *admin.NamedEntity {
	return &admin.NamedEntity{
		ResourceType: kind, Id: &admin.NamedEntityIdentifier{Project: "flytesnacks", Domain: "development", Name: name},
		Metadata: &admin.NamedEntityMetadata{Description: description, State: state},
	}
}

func (s *suite) names(kind core.ResourceType, q store.Query) string {
	s.Helper()
	entities, err := s.store.ListNamedEntities(s.ctx, kind, q)
	s.ok(err)
	var names []string
	for _, e := range entities {
		names = append(names, e.GetId().GetName())
	}
	return strings.Join(names, " ")
}

func aNameExistsFromItsFirstVersionOn(s *suite) {
	for i, name := range []string{"b", "a", "c"} {
		for version := range 2 {
			s.ok(s.store.CreateTask(s.ctx, task(name, fmt.Sprintf("v%d", version), i)))
			w := workflow(name, fmt.Sprintf("v%d", version), i)
			w.Generated = name == "c" || name == "b" && version == 0 // of b a user has registered a version, too
			s.ok(s.store.CreateWorkflow(s.ctx, w))
		}
	}
	l := launchPlan("c", "v0", 4)
	l.Generated = true
	s.ok(s.store.CreateLaunchPlan(s.ctx, l))

	here := store.Query{Project: "flytesnacks", Domain: "development"}
	s.equal(s.names(core.ResourceType_TASK, here), "a b c")
	entities, err := s.store.ListNamedEntities(s.ctx, core.ResourceType_WORKFLOW, here)
	s.ok(err)
	s.equal(entities, []*admin.NamedEntity{
		named(core.ResourceType_WORKFLOW, "a", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE),
		named(core.ResourceType_WORKFLOW, "b", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE),
		named(core.ResourceType_WORKFLOW, "c", "", admin.NamedEntityState_SYSTEM_GENERATED),
	})
	plan, err := s.store.GetNamedEntity(s.ctx, core.ResourceType_LAUNCH_PLAN, entities[2].GetId())
	s.ok(err)
	s.equal(plan, named(core.ResourceType_LAUNCH_PLAN, "c", "", admin.NamedEntityState_SYSTEM_GENERATED))
	_, err = s.store.GetNamedEntity(s.ctx, core.ResourceType_LAUNCH_PLAN, entities[0].GetId())
	s.is(err, aloft.ErrNotFound)

	s.equal(s.names(core.ResourceType_TASK, store.Query{SortBy: "created_at", Ascending: true}), "b a c")
	s.equal(s.names(core.ResourceType_TASK, store.Query{SortBy: "created_at"}), "c a b")
	s.equal(s.names(core.ResourceType_TASK, store.Query{Domain: "production"}), "")
	here.Limit, here.Offset = 1, 1
	s.equal(s.names(core.ResourceType_TASK, here), "b")
	_, err = s.store.ListNamedEntities(s.ctx, core.ResourceType_DATASET, here)
	s.is(err, aloft.ErrInvalid)
	_, err = s.store.GetNamedEntity(s.ctx, core.ResourceType_UNSPECIFIED, entities[0].GetId())
	s.is(err, aloft.ErrInvalid)
}

func metadataIsOfANameAndNotOfItsVersions(s *suite) {
	s.ok(s.store.CreateTask(s.ctx, task("a", "v0", 0)))
	s.ok(s.store.CreateTask(s.ctx, task("b", "v0", 1)))
	s.ok(s.store.CreateWorkflow(s.ctx, workflow("a", "v0", 2)))
	before, err := s.store.GetTask(s.ctx, identifier(core.ResourceType_TASK, "a", "v0"))
	s.ok(err)
	get := func(kind core.ResourceType, name string) *admin.NamedEntity {
		s.Helper()
		e, err := s.store.GetNamedEntity(s.ctx, kind, named(kind, name, "", 0).GetId())
		s.ok(err)
		return e
	}
	archived := named(core.ResourceType_TASK, "a", "does it all", admin.NamedEntityState_NAMED_ENTITY_ARCHIVED)
	for range 2 { // repeated, as when the first answer was lost
		s.ok(s.store.UpdateNamedEntity(s.ctx, archived))
		s.equal(get(core.ResourceType_TASK, "a"), archived)
	}
	s.ok(s.store.CreateTask(s.ctx, task("a", "v1", 3))) // is no less archived
	entities, err := s.store.ListNamedEntities(s.ctx, core.ResourceType_TASK, store.Query{Project: "flytesnacks", Domain: "development"})
	s.ok(err)
	s.equal(entities, []*admin.NamedEntity{archived, named(core.ResourceType_TASK, "b", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE)})
	s.equal(get(core.ResourceType_WORKFLOW, "a"), named(core.ResourceType_WORKFLOW, "a", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE))
	after, err := s.store.GetTask(s.ctx, before.ID)
	s.ok(err)
	s.equal(after, before)

	s.ok(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_TASK, "a", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE)))
	s.equal(get(core.ResourceType_TASK, "a"), named(core.ResourceType_TASK, "a", "does it all", admin.NamedEntityState_NAMED_ENTITY_ACTIVE))
	other := named(core.ResourceType_TASK, "a", "does more", admin.NamedEntityState_NAMED_ENTITY_ACTIVE)
	s.ok(s.store.UpdateNamedEntity(s.ctx, other))
	s.equal(get(core.ResourceType_TASK, "a"), other)

	s.is(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_WORKFLOW, "b", "of a task", 0)), aloft.ErrNotFound)
	s.is(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_DATASET, "a", "of nothing", 0)), aloft.ErrInvalid)
	elsewhere := named(core.ResourceType_TASK, "a", "", 0)
	elsewhere.Id.Domain = "production"
	s.is(s.store.UpdateNamedEntity(s.ctx, elsewhere), aloft.ErrNotFound)
	s.ok(s.store.CreateWorkflow(s.ctx, workflow("b", "v0", 4))) // what was refused before has left nothing
	s.equal(get(core.ResourceType_WORKFLOW, "b"), named(core.ResourceType_WORKFLOW, "b", "", admin.NamedEntityState_NAMED_ENTITY_ACTIVE))
}

func namedEntitiesAreFilteredAndSorted(s *suite) {
	for i, name := range []string{"active", "archived", "described", ".flytegen.t"} {
		w := workflow(name, "v0", i)
		w.Generated = name == ".flytegen.t"
		s.ok(s.store.CreateWorkflow(s.ctx, w))
	}
	s.ok(s.store.CreateWorkflow(s.ctx, workflow("active", "v1", 10)))
	s.ok(s.store.CreateTask(s.ctx, task("active", "v0", 0)))
	s.ok(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_TASK, "active", "of the task", admin.NamedEntityState_NAMED_ENTITY_ARCHIVED)))
	s.ok(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_WORKFLOW, "archived", "old", admin.NamedEntityState_NAMED_ENTITY_ARCHIVED)))
	s.ok(s.store.UpdateNamedEntity(s.ctx, named(core.ResourceType_WORKFLOW, "described", "new", admin.NamedEntityState_NAMED_ENTITY_ACTIVE)))
	for query, want := range map[string]string{
		"eq state 0":                             "active described",
		"eq state 1":                             "archived",
		"eq state 2":                             ".flytegen.t",
		"ne state 1":                             ".flytegen.t active described",
		"eq named_entity_metadata.state 0":       "active described",
		"eq entities.state 1":                    "archived",
		"eq description old":                     "archived",
		"ne named_entity_metadata.description x": ".flytegen.t active archived described",
		"contains name ed":                       "archived described",
		"eq entities.name active":                "active",
		"not_like name .flytegen.%":              "active archived described",
		"eq resource_type 2":                     ".flytegen.t active archived described",
		"eq resource_type 1":                     "",
		"gte created_at 2026-01-02T03:04:07Z":    ".flytegen.t described",
		"gte updated_at 2026-01-02T03:04:08Z":    ".flytegen.t active",
	} {
		if got := s.names(core.ResourceType_WORKFLOW, store.Query{Project: "flytesnacks", Domain: "development", Filters: filters(query)}); got != want {
			s.Errorf("%s: got %q, want %q", query, got, want)
		}
	}
	sorted := func(by string, ascending bool, want string) {
		s.Helper()
		got := s.names(core.ResourceType_WORKFLOW, store.Query{SortBy: by, Ascending: ascending})
		if got != want {
			s.Errorf("sorted by %s: got %q, want %q", by, got, want)
		}
	}
	sorted("name", false, "described archived active .flytegen.t")
	sorted("entities.name", true, ".flytegen.t active archived described")
	sorted("created_at", true, "active archived described .flytegen.t") // a later version does not make it newer
	sorted("updated_at", false, "active .flytegen.t described archived")
	sorted("state", true, "active described archived .flytegen.t")
	sorted("description", false, "archived described .flytegen.t active")
	_, err := s.store.ListNamedEntities(s.ctx, core.ResourceType_WORKFLOW, store.Query{SortBy: "version", Filters: filters("eq version v1", "eq workflow.name x", "eq state ARCHIVED")})
	s.is(err, aloft.ErrInvalid)
	for _, text := range []string{"invalid sort key 'version'", "'entities.version' is invalid filter", "'workflow' entity is not allowed in filters", "not a whole number"} {
		if !strings.Contains(err.Error(), text) {
			s.Errorf("got %q, want %q in it", err, text)
		}
	}
}
