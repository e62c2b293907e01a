package server

import (
	"runtime/debug"

	"github.com/aloft-dev/aloft/api"
)

// BuildVersion completes the version that the linker was told with what the Go tools wrote into the program.
func BuildVersion(linked string) api.Version {
	v := api.Version{Version: linked, Build: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Build = s.Value
		case "vcs.time":
			v.BuildTime = s.Value
		}
	}
	return v
}
