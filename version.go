package aloft

import (
	_ "embed"
	"strings"
)

//go:embed VERSION
var version string

// Version is the version of the last release, such as v0.1.0: the source is that release or comes after it.
func Version() string { return "v" + strings.TrimSpace(version) }
