package aloft

import (
	_ "embed"
	"strings"
)

//go:embed VERSION
var version string

// Version is that of the last release, such as v0.1.0: what this is, or what it comes after.
func Version() string { return "v" + strings.TrimSpace(version) }
