package field

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	var p Problems
	p.Identifier("id", &core.Identifier{ResourceType: core.ResourceType_WORKFLOW, Project: "p"}, core.ResourceType_TASK, true)
	p.Include(fmt.Errorf("launch plan x: %w", aloft.ErrNotFound))
	err := p.Err()
	for _, want := range []string{"resource_type", "missing domain", "missing name", "missing version", "launch plan x"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message does not say %q: %v", want, err)
		}
	}
	if !errors.Is(err, aloft.ErrInvalid) || !errors.Is(err, aloft.ErrNotFound) {
		t.Errorf("%v wraps ErrInvalid: %v, ErrNotFound: %v; want both", err, errors.Is(err, aloft.ErrInvalid), errors.Is(err, aloft.ErrNotFound))
	}
}

func TestNoMistakeIsNoError(t *testing.T) {
	t.Parallel()
	var p Problems
	p.Include(nil)
	p.Identifier("id", &core.Identifier{Project: "p", Domain: "d", Name: "n", Version: "v"}, core.ResourceType_TASK, true)
	if err := p.Err(); err != nil {
		t.Errorf("got %v for a complete identifier without a kind, want none", err)
	}
}

func TestTagsAreNoLongerThanFlytesColumn(t *testing.T) {
	t.Parallel()
	var p Problems
	p.Tags([]string{"", "nightly", "two words", strings.Repeat("ä", 255)})
	if err := p.Err(); err != nil {
		t.Error(err)
	}
	p.Tags([]string{strings.Repeat("x", 256), strings.Repeat("y", 300)})
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "has 256 characters") || !strings.Contains(err.Error(), "has 300 characters") {
		t.Errorf("got %v, want both tags in it", err)
	}
}

func TestLabelsAreThoseOfKubernetes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		key, value string
		valid      bool
	}{
		{"team", "ml", true},
		{"example.com/team", "a.b-c_d", true},
		{"team", "", true},
		{"", "x", false},
		{"Example.com/team", "x", false},
		{"-team", "x", false},
		{"team", "two words", false},
		{"team", strings.Repeat("x", 64), false},
		{"/team", "x", false},
	} {
		var p Problems
		p.Labels(&admin.Labels{Values: map[string]string{c.key: c.value}})
		if got := p.Err() == nil; got != c.valid {
			t.Errorf("label %q=%q: valid %v, want %v (%v)", c.key, c.value, got, c.valid, p.Err())
		}
	}
}

// A store that is away for a moment must not look like a mistake of the client, which would give up.
func TestACheckThatCouldNotBeMadeIsNoMistake(t *testing.T) {
	t.Parallel()
	var p Problems
	p.Missing("name")
	p.Include(fmt.Errorf("read project: %w", aloft.ErrUnavailable))
	if err := p.Err(); !errors.Is(err, aloft.ErrUnavailable) || errors.Is(err, aloft.ErrInvalid) || !p.Any() {
		t.Errorf("got %v", err)
	}
	var outer Problems
	outer.Include(p.Err())
	if err := outer.Err(); errors.Is(err, aloft.ErrInvalid) {
		t.Errorf("included again: %v", err)
	}
}

// TestWhatListsRepeatIsBounded is attack 13: a spec of 30 MB with 500,000 tags. All mistakes are reported at once.
func TestWhatListsRepeatIsBounded(t *testing.T) {
	t.Parallel()
	spec := &admin.ExecutionSpec{
		Tags: make([]string, 500_000), Annotations: &admin.Annotations{Values: map[string]string{"large": strings.Repeat("x", 30<<20)}},
		Envs: &admin.Envs{Values: make([]*core.KeyValuePair, 10_001)},
	}
	for i := range spec.GetEnvs().GetValues() {
		spec.Envs.Values[i] = &core.KeyValuePair{}
	}
	var p Problems
	p.Tags(spec.GetTags())
	p.Notifications(make([]*admin.Notification, 101))
	p.Spec("spec", spec)
	err := p.Err()
	if err == nil {
		t.Fatal("it is accepted")
	}
	for _, want := range []string{"tags: there are 500000, the limit is 100", "notifications: there are 101", "spec.envs: there are 10001", "the limit is 1048576"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message does not say %q: %v", want, err)
		}
	}
	if len(err.Error()) > 2000 {
		t.Errorf("the message has %d bytes", len(err.Error()))
	}
}

func TestAnIdentifierHasNoCharactersThatMoveATerminal(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"a\x1b[2J", "a\rb", "a\x07", "a\u009b", "gnp\u202etxt"} {
		var p Problems
		p.Text("name", value)
		if err := p.Err(); err == nil || !strings.Contains(err.Error(), "a control character") {
			t.Errorf("%q: %v", value, err)
		}
	}
	var p Problems
	p.Text("name", "pkg.module.tâche_漢字")
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}
