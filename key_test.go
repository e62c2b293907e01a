package aloft_test

import (
	"testing"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func TestKeysOfDifferentVersionsDifferWhateverTheirNamesHold(t *testing.T) {
	t.Parallel()
	seen := map[aloft.Key]*core.Identifier{}
	for _, id := range []*core.Identifier{
		{Project: "p", Domain: "d", Name: "etl/load", Version: "v1"},
		{Project: "p", Domain: "d", Name: "etl", Version: "load/v1"},
		{Project: "p", Domain: "d/etl", Name: "load", Version: "v1"},
		{Project: "p", Domain: "d", Name: "etl@load", Version: "v1"},
		{Project: "p", Domain: "d", Name: "etl", Version: "load@v1"},
		{Project: "p", Domain: "d", Name: "etl\x00load", Version: "v1"},
		{Project: "p", Domain: "d", Name: "etl", Version: "load\x00v1"},
	} {
		key := aloft.KeyOf(id)
		if other := seen[key]; other != nil {
			t.Errorf("%v and %v have the same key", id, other)
		}
		seen[key] = id
	}
}

func TestAKeyLeavesOutWhatReferencesDoNotState(t *testing.T) {
	t.Parallel()
	stated := &core.Identifier{ResourceType: core.ResourceType_TASK, Project: "p", Domain: "d", Name: "n", Version: "v", Org: "o"}
	bare := &core.Identifier{Project: "p", Domain: "d", Name: "n", Version: "v"}
	if got, want := aloft.KeyOf(stated), aloft.KeyOf(bare); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := aloft.KeyOf(bare).Of(core.ResourceType_LAUNCH_PLAN).String(), "launch plan p/d/n version v"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
