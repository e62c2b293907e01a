package server

import (
	"runtime/debug"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/api"
)

// BuildVersion is the version of the program: linked, which the linker was given, and what the Go tools wrote into the program.
func BuildVersion(linked string) api.Version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return versionOf(linked, info)
}

// versionOf is v0.1.0 for a program that is known to be that release. Any other program has a suffix after a plus: the commit, or
// "unknown".
func versionOf(linked string, info *debug.BuildInfo) api.Version {
	v := api.Version{Version: linked, Build: "unknown"}
	after := "+unknown"
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && s.Value != "":
			v.Build = s.Value
			after = "+g" + s.Value[:min(9, len(s.Value))]
		case s.Key == "vcs.time":
			v.BuildTime = s.Value
		}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.modified" && s.Value == "true" {
			after += ".dirty"
		}
	}
	switch {
	case linked != "":
	case info.Main.Sum != "": // go install …@version: the module proxy vouches for it
		v.Version = info.Main.Version
	default:
		v.Version = aloft.Version() + after
	}
	return v
}
