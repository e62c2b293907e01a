// Package config has all settings: one struct with defaults, read from a file, ALOFT_… variables and flags, and checked in one
// place with all mistakes reported at once.
//
// It comes first: cmd/aloft loads the settings, and package server hands each package its part. No other package reads flags or the
// environment. All settings have defaults with which a server works, in one data folder below the home folder. aloft.example.yaml
// shows every key; a test parses it and compares it with the struct.
package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
)

// Config has all settings. A key is the name of a flag (--data-dir), of a line in the file (data-dir: …) and, in capitals, of an
// environment variable (ALOFT_DATA_DIR).
type Config struct {
	DataDir          string   `key:"data-dir" help:"folder for everything the server keeps"`
	Database         string   `key:"database" help:"PostgreSQL database, postgres://user:password@host:5432/name, which several servers may share; empty: SQLite in the data folder. Files stay in the data folder: servers that share a database share its folder blob, too"`
	Listen           string   `key:"listen" help:"address to listen on, host:port; port 0 takes any free one"`
	Auth             string   `key:"auth" help:"how people sign in; none: not at all, so that everybody who reaches the server may run commands as its user. It must be written out to listen beyond this machine; empty: none, for this machine alone"`
	PublicURL        string   `key:"public-url" help:"URL under which clients reach the server; empty: the one they used"`
	Python           string   `key:"python" help:"interpreter with flytekit for all tasks; empty: one is found or made for each image"`
	WorkerMode       string   `key:"worker-mode" help:"auto: tasks start from a warm interpreter where that is safe; cold: each in a fresh one"`
	CPU              float64  `key:"cpu" help:"cores that tasks may use together; 0: all of this machine"`
	Memory           string   `key:"memory" help:"memory that tasks may use together, such as 8Gi; empty: all of this machine"`
	RequestMemory    string   `key:"request-memory" help:"memory that requests to the server and their answers may take together, such as 512Mi, at least 64Mi; empty: 512Mi, or an eighth of this machine if that is less"`
	Slots            int      `key:"slots" help:"tasks that may run at once, whatever they ask for; 0: any number"`
	MaxParallelism   int      `key:"max-parallelism" help:"task nodes that one execution may run at once where neither it nor its launch plan says; 0: no limit"`
	TaskTimeout      string   `key:"task-timeout" help:"how long an attempt of a task may run that states no timeout, such as 48h"`
	QueueTimeout     string   `key:"queue-timeout" help:"how long an attempt may wait for its start, such as 12h; 0: for ever"`
	ExecutionTimeout string   `key:"execution-timeout" help:"how long an execution may last, such as 240h; 0: for ever"`
	RetryPolicies    []string `key:"retry-policies" help:"pauses before retries and memory after a death for want of it, such as 'error=SYSTEM backoff=10s max=10m'"`
	SystemRetries    string   `key:"system-retries" help:"how often an attempt is replaced that the system failed, and the pauses before, such as 'max=3 backoff=1s max-backoff=5m'"`
	WorkflowRetries  int      `key:"max-workflow-retries" help:"how often in a row a step of an execution is tried again while a service is away, before the execution is parked until the service is back"`
	MaxOutage        string   `key:"max-outage" help:"how long an execution waits for a service that is away before it fails, such as 72h; 0: for ever"`
	CacheMaxAge      string   `key:"cache-max-age" help:"how long after it was computed a cached result may be used, such as 720h; 0: for ever"`
	CacheMaxSize     string   `key:"cache-max-size" help:"bytes that the cached results of one project may have with their objects, such as 500Gi; empty: any number"`
	Projects         []string `key:"projects" help:"projects that are there from the beginning"`
	Domains          []string `key:"domains" help:"domains of every project"`
	Origins          []string `key:"origins" help:"web pages elsewhere that may call the server, by origin, such as https://dashboard.example.com; *: any. Each may run commands as the server's user"`
	Hosts            []string `key:"hosts" help:"names under which clients may reach the server, besides localhost, addresses, the host of public-url and the one of listen"`
	LocalPaths       bool     `key:"local-paths" help:"answer clients on this machine with paths for folders and tables, which flytekit cannot read by link"`
	TaskEnv          []string `key:"task-env" help:"environment variables for all tasks, such as HTTPS_PROXY=http://proxy:3128; a name alone passes on the server's own value"`
	StopTasks        bool     `key:"stop-tasks" help:"end running tasks when the server ends; otherwise they go on and the next server finds them"`
	LogLevel         string   `key:"log-level" help:"debug, info, warn or error"`
	LogFormat        string   `key:"log-format" help:"text or json"`

	// Defaults of the commands of a client.
	Server  string `key:"server" help:"address of the server, host:port or URL; where nothing names one, that of FLYTE_PLATFORM_URL"`
	Project string `key:"project" help:"project"`
	Domain  string `key:"domain" help:"domain"`
}

// clientKeys are the settings of clients: the commands of package cli have flags of their own for them.
var clientKeys = []string{"server", "project", "domain"}

// Default has the defaults of all settings. home is the user's home folder.
func Default(home string) Config {
	return Config{
		DataDir:          filepath.Join(home, ".aloft"),
		Listen:           "localhost:30080",
		WorkerMode:       "auto",
		MaxParallelism:   25,
		TaskTimeout:      "48h",
		QueueTimeout:     "0",
		ExecutionTimeout: "0",
		CacheMaxAge:      "0",
		RetryPolicies:    []string{},
		SystemRetries:    "max=3 backoff=1s max-backoff=5m",
		WorkflowRetries:  10,
		MaxOutage:        "0",
		Projects:         []string{"flytesnacks"},
		Domains:          []string{"development", "staging", "production"},
		Origins:          []string{},
		Hosts:            []string{},
		LocalPaths:       true,
		TaskEnv:          []string{},
		LogLevel:         "info",
		LogFormat:        "text",
		Server:           "localhost:30080",
		Project:          "flytesnacks",
		Domain:           "development",
	}
}

// Mistakes are all mistakes of a configuration, a sentence each, with the place where the setting was set.
type Mistakes []string

func (m Mistakes) Error() string { return "configuration: " + strings.Join(m, "; ") }

// Validate reports all settings that cannot work. The error is a Mistakes.
func (c Config) Validate() error {
	var m Mistakes
	wrong := func(format string, args ...any) { m = append(m, fmt.Sprintf(format, args...)) }
	if c.DataDir == "" {
		wrong("data-dir is empty: name a folder")
	}
	if c.Database != "" {
		// The URL is not quoted: there may be a password in it.
		if u, err := url.Parse(c.Database); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || strings.Trim(u.Path, "/") == "" {
			wrong("database is not a URL such as postgres://user:password@host:5432/name; letters such as @ and / in a password are written %%40 and %%2F")
		}
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if number, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		wrong("listen %q is not host:port with a port from 0 to 65535, such as localhost:30080", c.Listen)
	} else if _ = number; strings.ContainsAny(host, "/ ") {
		wrong("listen %q: %q is no host name or address", c.Listen, host)
	}
	switch {
	case c.Auth == "" && err == nil && !loopback(host):
		wrong("listen %q reaches beyond this machine, and there is no sign-in: everybody who can connect may run commands as this user; listen on localhost:%s, or, where you trust them all, write auth: none (--auth none, ALOFT_AUTH=none)", c.Listen, port)
	case c.Auth != "" && c.Auth != "none":
		wrong("auth %q is not known; none is all there is: no sign-in", c.Auth)
	}
	for _, origin := range c.Origins {
		if u, err := url.Parse(origin); origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ContainsAny(origin, "* ")) {
			wrong("origins: %q is not an origin as browsers send it, such as https://dashboard.example.com or http://localhost:3000, without a path", origin)
		}
	}
	for _, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, "/ *:@") {
			wrong("hosts: %q is not the name of a host, such as aloft.example.com, without scheme and port", h)
		}
	}
	if c.PublicURL != "" {
		if u, err := url.Parse(c.PublicURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			wrong("public-url %q is not a URL such as https://aloft.example.com", c.PublicURL)
		}
	}
	oneOf := func(key, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			wrong("%s %q is not one of %s", key, value, strings.Join(allowed, ", "))
		}
	}
	oneOf("worker-mode", c.WorkerMode, "auto", "cold")
	oneOf("log-level", c.LogLevel, "debug", "info", "warn", "error")
	oneOf("log-format", c.LogFormat, "text", "json")
	if c.CPU < 0 || c.CPU > 1e6 || c.CPU != c.CPU {
		wrong("cpu %v is not a number of cores", c.CPU)
	}
	if _, err := ParseBytes(c.Memory); err != nil {
		wrong("memory %v", err)
	}
	if n, err := ParseBytes(c.RequestMemory); err != nil {
		wrong("request-memory %v", err)
	} else if n != 0 && n < 64<<20 {
		wrong("request-memory %q is less than 64Mi, which a message may need", c.RequestMemory)
	}
	if c.Slots < 0 {
		wrong("slots %d is negative: 0 means any number", c.Slots)
	}
	if c.MaxParallelism < 0 || c.MaxParallelism > 1<<31-1 {
		wrong("max-parallelism %d is not between 0 (no limit) and %d", c.MaxParallelism, 1<<31-1)
	}
	limit := func(key, value string, none bool) {
		if d, err := time.ParseDuration(value); err != nil || d < 0 || d == 0 && !none {
			wrong("%s %q is no duration such as 90m or 48h", key, value)
		}
	}
	limit("task-timeout", c.TaskTimeout, false)
	limit("queue-timeout", c.QueueTimeout, true)
	limit("execution-timeout", c.ExecutionTimeout, true)
	limit("max-outage", c.MaxOutage, true)
	if c.WorkflowRetries < 1 || c.WorkflowRetries > 1000 {
		wrong("max-workflow-retries %d is not between 1 and 1000", c.WorkflowRetries)
	}
	if _, err := aloft.ParseSystemRetries(c.SystemRetries); err != nil {
		wrong("system-retries: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	limit("cache-max-age", c.CacheMaxAge, true)
	if _, err := ParseBytes(c.CacheMaxSize); err != nil {
		wrong("cache-max-size %v", err)
	}
	for _, text := range c.RetryPolicies {
		if _, err := aloft.ParseRetryPolicy(text, ParseBytes); err != nil {
			wrong("retry-policies: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	for _, line := range c.TaskEnv {
		name, _, _ := strings.Cut(line, "=")
		switch {
		case !variableName.MatchString(name):
			wrong("task-env: %q is neither NAME nor NAME=value", line)
		case name == "TMPDIR" || strings.HasPrefix(name, variablePrefix) || strings.HasPrefix(name, "FLYTE_INTERNAL_"):
			wrong("task-env: %s is set by aloft, for each attempt", name)
		}
	}
	names := func(key string, values []string) {
		if len(values) == 0 {
			wrong("%s is empty: at least one is needed", key)
		}
		for i, v := range values {
			if v == "" || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(v) > 63 || v[0] == '-' || v[len(v)-1] == '-' {
				wrong("%s: %q is not a name of lower-case letters, digits and '-', at most 63", key, v)
			}
			if slices.Contains(values[:i], v) {
				wrong("%s: %q is there twice", key, v)
			}
		}
	}
	names("projects", c.Projects)
	names("domains", c.Domains)
	if len(m) > 0 {
		return m
	}
	return nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// TaskVariables are the variables of task-env; a variable without a value gets that of the server's environment.
func (c Config) TaskVariables(environ []string) (map[string]string, error) {
	own := map[string]string{}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok {
			own[name] = value
		}
	}
	variables := map[string]string{}
	var m Mistakes
	for _, line := range c.TaskEnv {
		name, value, given := strings.Cut(line, "=")
		if !given {
			if value, given = own[name]; !given {
				m = append(m, fmt.Sprintf("task-env: the server's environment has no %s to pass on: set it there, or write %s=value", name, name))
			}
		}
		variables[name] = value
	}
	if len(m) > 0 {
		return nil, m
	}
	return variables, nil
}

// PasswordInDatabase says whether the URL of the database holds a password.
func (c Config) PasswordInDatabase() bool {
	u, err := url.Parse(c.Database)
	if err != nil || u.User == nil {
		return false
	}
	_, has := u.User.Password()
	return has || u.Query().Has("password")
}

// loopback says whether only this machine reaches the host of an address to listen on.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

var byteUnits = []struct {
	suffix string
	size   float64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"k", 1e3}, {"K", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1},
}

// ParseBytes reads an amount of memory as Kubernetes writes it: 512Mi, 8Gi, 2G. Empty is 0.
func ParseBytes(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	for _, unit := range byteUnits {
		if digits, ok := strings.CutSuffix(text, unit.suffix); ok {
			n, err := strconv.ParseFloat(digits, 64)
			if err != nil || n < 0 || n*unit.size > 1<<60 || strings.ContainsAny(digits, "xXpPeEiInN_") {
				break
			}
			return int64(n * unit.size), nil
		}
	}
	return 0, fmt.Errorf("%q is no amount such as 512Mi, 8Gi or 2G", text)
}

// Retries are the policies for retries. The configuration is valid.
func (c Config) Retries() []aloft.RetryPolicy {
	policies := make([]aloft.RetryPolicy, 0, len(c.RetryPolicies))
	for _, text := range c.RetryPolicies {
		if p, err := aloft.ParseRetryPolicy(text, ParseBytes); err == nil {
			policies = append(policies, p)
		}
	}
	return policies
}

// System is the policy for retries of attempts that failed by the system's fault. The configuration is valid.
func (c Config) System() aloft.SystemRetries {
	r, _ := aloft.ParseSystemRetries(c.SystemRetries)
	return r
}

// Limit reads a duration of the configuration, which is valid. 0 means no limit.
func Limit(text string) time.Duration {
	d, _ := time.ParseDuration(text)
	return d
}

// Level is the log level as a level of slog.
func (c Config) Level() slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// Logger is a logger with the level and the format of the configuration.
func (c Config) Logger(to *os.File) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level()}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// setting is one field of the struct, found by its key.
type setting struct {
	key, help string
	value     reflect.Value // addressable if the struct was
}

func settings(c *Config) []setting {
	v := reflect.ValueOf(c).Elem()
	all := make([]setting, v.NumField())
	for i := range all {
		tag := v.Type().Field(i).Tag
		all[i] = setting{tag.Get("key"), tag.Get("help"), v.Field(i)}
	}
	return all
}
