package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func load(t *testing.T, arguments, environ []string) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	added := AddFlags(flags, Default("/home/me"))
	if err := flags.Parse(arguments); err != nil {
		t.Fatalf("parse %v: %v", arguments, err)
	}
	return Load(Default("/home/me"), added, flags.Changed, environ)
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "aloft.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheExampleShowsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	got, err := load(t, []string{"--config", "aloft.example.yaml"}, nil)
	if err != nil {
		t.Fatalf("the example does not load: %v", err)
	}
	if diff := cmp.Diff(Default("/home/me"), got); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
	text, err := os.ReadFile("aloft.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	var c Config
	for _, s := range settings(&c) {
		i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, s.key+":") })
		if i < 0 {
			t.Errorf("the example does not show %s", s.key)
			continue
		}
		if !strings.HasPrefix(lines[i-1], "# ") && s.key != "project" && s.key != "domain" {
			t.Errorf("the example shows %s without a sentence", s.key)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	t.Parallel()
	if err := Default("/home/me").Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryFieldHasAKeyAndASentence(t *testing.T) {
	t.Parallel()
	var c Config
	for i, s := range settings(&c) {
		if s.key == "" || s.help == "" {
			t.Errorf("field %s has key %q and help %q, want both", reflect.TypeOf(c).Field(i).Name, s.key, s.help)
		}
	}
}

func TestAFlagComesBeforeAVariableAndThatBeforeTheFile(t *testing.T) {
	t.Parallel()
	path := write(t, "slots: 1\nmax-parallelism: 1\ncpu: 1\ndomains: [a, b]\n")
	got, err := load(t,
		[]string{"--slots", "3"},
		[]string{"ALOFT_CONFIG=" + path, "ALOFT_SLOTS=2", "ALOFT_MAX_PARALLELISM=2", "ALOFT_PROJECTS=x, y", "SLOTS=9"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default("/home/me")
	want.Slots, want.MaxParallelism, want.CPU, want.Domains, want.Projects = 3, 2, 1, []string{"a", "b"}, []string{"x", "y"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestTheServerOfFlytesClientsIsAskedWhereNothingElseNamesOne(t *testing.T) {
	t.Parallel()
	const plain = "FLYTE_PLATFORM_INSECURE=true"
	file := "ALOFT_CONFIG=" + write(t, "server: file:1\n")
	for _, c := range []struct {
		environ []string
		want    string
	}{
		{nil, "localhost:30080"},
		{[]string{"FLYTE_PLATFORM_URL=", plain}, "localhost:30080"},
		{[]string{"FLYTE_PLATFORM_URL=localhost:30081", plain}, "localhost:30081"},
		{[]string{"FLYTE_PLATFORM_URL=dns:///flyte:81", "FLYTE_PLATFORM_INSECURE=1"}, "flyte:81"},
		{[]string{"FLYTE_PLATFORM_URL=flyte.example.com"}, "https://flyte.example.com"}, // without FLYTE_PLATFORM_INSECURE flytekit uses TLS
		{[]string{"FLYTE_PLATFORM_URL=flyte:81", "FLYTE_PLATFORM_INSECURE=False"}, "https://flyte:81"},
		{[]string{"FLYTE_PLATFORM_URL=http://flyte:81"}, "http://flyte:81"},
		{[]string{"FLYTE_PLATFORM_URL=flyte:81", file}, "file:1"},
		{[]string{"FLYTE_PLATFORM_URL=flyte:81", "ALOFT_SERVER=variable:1", file}, "variable:1"},
	} {
		if got, err := load(t, nil, c.environ); err != nil || got.Server != c.want {
			t.Errorf("%v: %s is asked (%v), want %s", c.environ, got.Server, err, c.want)
		}
	}
}

func TestAllMistakesAreReportedAtOnceWithTheirPlace(t *testing.T) {
	t.Parallel()
	path := write(t, "slots: many\nlisten: 30080\nlog-lvl: debug\nmemory: lots\ncpu: [1, 2]\ncache-max-age: old\ncache-max-size: large\n")
	_, err := load(t, []string{"--config", path}, []string{"ALOFT_LOCAL_PATHS=perhaps", "ALOFT_DOMAINS=Upper,a,a"})
	if err == nil {
		t.Fatal("loaded, want an error")
	}
	for _, want := range []string{"slots in " + path, "listen", "log-lvl in " + path, "memory", "cache-max-age", "cache-max-size", "cpu in " + path, "ALOFT_LOCAL_PATHS", `"Upper"`, `"a" is there twice`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %q: %v", want, err)
		}
	}
}

func TestAVariableThatIsNoSettingIsRefused(t *testing.T) {
	t.Parallel()
	_, err := load(t, nil, []string{"ALOFT_SLOTSS=3", "ALOFT_PORT=8080", "ALOFT_data_dir=/x", "ALOFT_COLOUR=red"})
	want := "configuration: ALOFT_COLOUR: there is no such setting (config/aloft.example.yaml shows all); " +
		"ALOFT_PORT: there is no such setting; did you mean ALOFT_LISTEN?; " +
		"ALOFT_SLOTSS: there is no such setting; did you mean ALOFT_SLOTS?; " +
		"ALOFT_data_dir: there is no such setting; did you mean ALOFT_DATA_DIR?"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := load(t, nil, []string{
		"ALOFT_TEST_BINARY=x", "ALOFT_ATTEMPT_MARK=x", "ALOFT_EMPTY=", "MY_ALOFT_SLOTS=x",
		"ALOFT_PORT=tcp://10.0.0.1:30080", "ALOFT_PORT_30080_TCP_ADDR=10.0.0.1", "ALOFT_SERVICE_HOST=10.0.0.1", "ALOFT_SERVICE_PORT_GRPC=30080",
	}); err != nil {
		t.Errorf("variables of others are refused: %v", err)
	}
	if _, err := load(t, []string{"--config", write(t, "lisen: localhost:1\n")}, nil); err == nil || !strings.Contains(err.Error(), "there is no such setting; did you mean listen?") {
		t.Errorf("got %v, want a hint at listen", err)
	}
}

func TestAMissingFileIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := load(t, []string{"--config", "/nowhere/aloft.yaml"}, nil); err == nil || !strings.Contains(err.Error(), "/nowhere/aloft.yaml") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestTasksGetTheVariablesThatAreNamed(t *testing.T) {
	t.Parallel()
	c, err := load(t, []string{"--task-env", "MODE=a=b,REGION", "--task-env", "EMPTY="}, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.TaskVariables([]string{"REGION=eu", "MODE=of the server", "SECRET=x"})
	if diff := cmp.Diff(map[string]string{"MODE": "a=b", "REGION": "eu", "EMPTY": ""}, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
	if _, err := c.TaskVariables(nil); err == nil || !strings.Contains(err.Error(), "has no REGION to pass on") {
		t.Errorf("got %v, want an error that names REGION", err)
	}
	_, err = load(t, []string{"--task-env", "TMPDIR=/x,ALOFT_DATABASE,a b"}, nil)
	for _, want := range []string{"TMPDIR is set by aloft", "ALOFT_DATABASE is set by aloft", `"a b" is neither NAME nor NAME=value`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %q: %v", want, err)
		}
	}
}

func TestBytesAreReadAsKubernetesWritesThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "1024": 1024, "512Mi": 512 << 20, "1.5Gi": 3 << 29, "2G": 2e9, "64k": 64000} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"-1", "8 GB", "Gi", "0x10", "NaN", "1e400", "9999999Ti"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

func TestTheDatabaseIsAURLWhosePasswordIsNeverRepeated(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"mysql://me:geheim@db/aloft", "postgres://me:ge/heim@db/aloft%zz", "host=db password=geheim", "postgres://me:geheim@db"} {
		_, err := load(t, []string{"--database", text}, nil)
		if err == nil || !strings.Contains(err.Error(), "database is not a URL such as postgres://") || strings.Contains(err.Error(), "heim") {
			t.Errorf("--database %s: %v", text, err)
		}
	}
	c, err := load(t, nil, []string{"ALOFT_DATABASE=postgresql://me:geheim@db:5432/aloft?sslmode=disable"})
	if err != nil || c.Database != "postgresql://me:geheim@db:5432/aloft?sslmode=disable" {
		t.Errorf("got %q, %v", c.Database, err)
	}
}

// TestWithoutSignInTheServerListensToThisMachineAlone is attack 1: the loopback is the only boundary there is.
func TestWithoutSignInTheServerListensToThisMachineAlone(t *testing.T) {
	t.Parallel()
	for _, listen := range []string{"localhost:1", "127.0.0.1:1", "127.1.2.3:0", "[::1]:1", "[::ffff:127.0.0.1]:1", "aloft.localhost:1"} {
		if _, err := load(t, []string{"--listen", listen}, nil); err != nil {
			t.Errorf("--listen %s: %v", listen, err)
		}
	}
	for _, listen := range []string{"0.0.0.0:1", ":1", "[::]:1", "192.168.1.5:1", "box.lan:1", "localhost.evil.example:1"} {
		_, err := load(t, []string{"--listen", listen}, nil)
		if err == nil || !strings.Contains(err.Error(), "--auth none") || !strings.Contains(err.Error(), "localhost:1") {
			t.Errorf("--listen %s: %v, want a refusal that names both ways out", listen, err)
		}
		if _, err := load(t, []string{"--listen", listen}, []string{"ALOFT_AUTH=none"}); err != nil {
			t.Errorf("--listen %s with auth none: %v", listen, err)
		}
	}
	if _, err := load(t, []string{"--auth", "oidc"}, nil); err == nil || !strings.Contains(err.Error(), `auth "oidc" is not known`) {
		t.Errorf("--auth oidc: %v", err)
	}
}

func TestOriginsAndHostsAreWrittenAsBrowsersSendThem(t *testing.T) {
	t.Parallel()
	for _, good := range [][]string{{"--origins", "https://mine.example"}, {"--origins", "http://localhost:3000,*"}, {"--hosts", "box.lan,aloft"}} {
		if _, err := load(t, good, nil); err != nil {
			t.Errorf("%v: %v", good, err)
		}
	}
	for _, bad := range [][]string{{"--origins", "mine.example"}, {"--origins", "https://mine.example/"}, {"--origins", "null"}, {"--origins", "https://*.example"},
		{"--hosts", "http://box.lan"}, {"--hosts", "box.lan:30080"}, {"--hosts", "*"}} {
		if _, err := load(t, bad, nil); err == nil || !strings.Contains(err.Error(), bad[0][2:]+": ") {
			t.Errorf("%v: %v, want a mistake that names the setting", bad, err)
		}
	}
}
