package server

import (
	"regexp"
	"runtime/debug"
	"testing"

	"github.com/aloft-dev/aloft"
)

func TestAVersionSaysTheReleaseAndWhatIsKnownOfTheRest(t *testing.T) {
	t.Parallel()
	release := aloft.Version()
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(release) {
		t.Errorf("the file VERSION says %q", release)
	}
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "4bc73010123456789"}
	for _, c := range []struct {
		linked string
		info   debug.BuildInfo
		want   string
	}{
		{"v0.1.0+3.g4bc7301", debug.BuildInfo{}, "v0.1.0+3.g4bc7301"},
		{"", debug.BuildInfo{}, release + "+unknown"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, release + "+unknown"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "v0.0.0-20261128000000-4bc730101234"}, Settings: []debug.BuildSetting{revision}}, release + "+g4bc730101"},
		{"", debug.BuildInfo{Settings: []debug.BuildSetting{revision, {Key: "vcs.modified", Value: "true"}}}, release + "+g4bc730101.dirty"},
		{"", debug.BuildInfo{Main: debug.Module{Version: "v0.3.1", Sum: "h1:…"}}, "v0.3.1"},
	} {
		if got := versionOf(c.linked, &c.info).Version; got != c.want {
			t.Errorf("linked %q, %v: got %s, want %s", c.linked, c.info, got, c.want)
		}
	}
}
