package worker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A running interpreter, or a library it has loaded, honours some variables only when it starts. Variables of this kind that many
// tasks share are part of a warm worker's key; those that are rare or tied to one process make an attempt cold.

var startupNames = []string{
	"HOME", "LANG", "LANGUAGE", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONOPTIMIZE",
	"FLYTE_SDK_RICH_TRACEBACKS", "_F_P_WRITE_CHUNK_SIZE", "_F_TE_MAX_COROS",
}

var startupPrefixes = []string{
	"LC_", "OMP_", "OPENBLAS_", "GOTO_", "MKL_", "BLIS_", "NUMEXPR_", "KMP_", "MALLOC_", "GRPC_", "FSSPEC_", "ARROW_",
	"PROTOCOL_BUFFERS_",
}

func isStartup(name string) bool {
	return slices.Contains(startupNames, name) ||
		slices.ContainsFunc(startupPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// startupVariables is the part of an attempt's variables that a warm worker must have been started with: the known ones,
// and those that a module of its learnt list was seen to read while it was imported.
func startupVariables(env map[string]string, learntReads []string) map[string]string {
	part := map[string]string{}
	for name, value := range env {
		if isStartup(name) || slices.Contains(learntReads, name) {
			part[name] = value
		}
	}
	return part
}

// coldVariable says why these variables need a fresh interpreter; empty: they do not.
func coldVariable(env map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch {
		case strings.HasPrefix(name, "FLYTE_SDK_") && strings.HasSuffix(name, "LOGGING_LEVEL") && !slices.Contains([]string{"30", "40", "50"}, env[name]):
			return fmt.Sprintf("flytekit logs its own import with %s=%s", name, env[name])
		case name == "PYTHONPATH", name == "PYTHONUNBUFFERED", isStartup(name):
		case strings.HasPrefix(name, "PYTHON") && !strings.Contains(name, "_"), strings.HasPrefix(name, "LD_"),
			name == "GLIBC_TUNABLES", name == "PYTHON_GIL", name == "PYTHON_JIT", name == "PYTHON_CPU_COUNT":
			return fmt.Sprintf("variable %s is honoured only by a fresh interpreter", name)
		}
	}
	return ""
}
