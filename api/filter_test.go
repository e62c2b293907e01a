package api

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/store"
)

func TestFiltersAreReadAsFlyteReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]store.Filter{
		"":                                  nil,
		"eq(phase,SUCCEEDED)":               {{Field: "phase", Function: "eq", Values: []string{"SUCCEEDED"}}},
		"eq(phase, SUCCEEDED)":              {{Field: "phase", Function: "eq", Values: []string{"SUCCEEDED"}}},
		"value_in(workflow.name,a;b)":       {{Field: "workflow.name", Function: "value_in", Values: []string{"a", "b"}}},
		"contains(name,a(b))":               {{Field: "name", Function: "contains", Values: []string{"a(b)"}}},
		"gt(duration,1m30s)+lt(duration,2)": {{Field: "duration", Function: "gt", Values: []string{"90"}}, {Field: "duration", Function: "lt", Values: []string{"2"}}},
		"eq(name,a;b)":                      {{Field: "name", Function: "eq", Values: []string{"a;b"}}},
	} {
		got, err := parseFilters(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", text, diff)
		}
	}
}

func TestAllMistakesInFiltersAreReported(t *testing.T) {
	t.Parallel()
	_, err := parseFilters("eq(phase)+like(name,x)+eq(planet.name,x)+gt(duration,soon)")
	if !errors.Is(err, aloft.ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid", err)
	}
	for _, want := range []string{"invalid value for filters", "unrecognized filter function", "'planet' entity is not allowed", `"soon" is no duration`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

// TestFiltersAreBoundedBeforeTheyAreMatched: a match of 8 MiB took seconds, and went on when the client was gone.
func TestFiltersAreBoundedBeforeTheyAreMatched(t *testing.T) {
	t.Parallel()
	_, err := parseFilters("eq(name," + strings.Repeat("x,", 4<<20) + ")")
	if !errors.Is(err, aloft.ErrInvalid) || !strings.Contains(err.Error(), "the limit is 262144") {
		t.Errorf("8 MiB: %v", err)
	}
	names := make([]string, aloft.MaxFilterValues)
	for i := range names {
		names[i] = strings.Repeat("n", aloft.MaxName)
	}
	if _, err := parseFilters("value_in(name," + strings.Join(names, ";") + ")"); err != nil {
		t.Errorf("as many names as there may be, as long as they may be: %v", err)
	}
}
