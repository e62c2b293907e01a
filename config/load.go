package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/aloft-dev/aloft/internal/near"
)

// FlagSet is the part of a command's flag set that AddFlags needs.
type FlagSet interface {
	String(name, value, usage string) *string
	StringSlice(name string, value []string, usage string) *[]string
	Int(name string, value int, usage string) *int
	Float64(name string, value float64, usage string) *float64
	Bool(name string, value bool, usage string) *bool
}

// Flags are the settings that were given on the command line.
type Flags struct {
	file   *string
	values map[string]reflect.Value // pointers to the values of the flags, by key
}

// AddFlags adds a flag for each setting of the server to a command, with its default in the help.
func AddFlags(to FlagSet, defaults Config) *Flags {
	f := &Flags{
		file:   to.String("config", "", "file with settings (YAML); also ALOFT_CONFIG"),
		values: map[string]reflect.Value{},
	}
	for _, s := range settings(&defaults) {
		if slices.Contains(clientKeys, s.key) {
			continue
		}
		switch value := s.value.Interface().(type) {
		case string:
			f.values[s.key] = reflect.ValueOf(to.String(s.key, value, s.help))
		case []string:
			f.values[s.key] = reflect.ValueOf(to.StringSlice(s.key, value, s.help))
		case int:
			f.values[s.key] = reflect.ValueOf(to.Int(s.key, value, s.help))
		case float64:
			f.values[s.key] = reflect.ValueOf(to.Float64(s.key, value, s.help))
		case bool:
			f.values[s.key] = reflect.ValueOf(to.Bool(s.key, value, s.help))
		default:
			panic(fmt.Sprintf("setting %s has a type that no flag has", s.key))
		}
	}
	return f
}

const (
	variablePrefix = "ALOFT_"
	fileVariable   = "ALOFT_CONFIG"
)

// Variable is the name of the environment variable of a key.
func Variable(key string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

// flyteServer is the server that Flyte's own clients use by the environment, read as they do: with TLS unless
// FLYTE_PLATFORM_INSECURE says that it has none. Empty: the environment names none.
func flyteServer(environ []string) string {
	var server string
	insecure := false
	for _, line := range environ {
		switch name, value, _ := strings.Cut(line, "="); name {
		case "FLYTE_PLATFORM_URL":
			server = strings.TrimPrefix(strings.TrimSpace(value), "dns:///")
		case "FLYTE_PLATFORM_INSECURE":
			insecure = !slices.Contains([]string{"", "false", "0", "off", "no"}, strings.ToLower(value)) // flytekit, bool_transformer
		}
	}
	if server == "" || insecure || strings.Contains(server, "://") {
		return server
	}
	return "https://" + server
}

// Load reads the configuration. For each setting the first of these counts: a flag that was given (changed says so), a
// variable, the file, for the setting server also flyteServer, the default. All mistakes are reported at once. flags may be
// nil.
func Load(defaults Config, flags *Flags, changed func(flag string) bool, environ []string) (Config, error) {
	c := defaults
	if server := flyteServer(environ); server != "" {
		c.Server = server
	}
	var mistakes Mistakes
	k := koanf.New(keyDelimiter)
	variables := map[string]string{}
	for _, line := range environ {
		if name, value, ok := strings.Cut(line, "="); ok && strings.HasPrefix(name, variablePrefix) {
			variables[name] = value
		}
	}
	path := variables[fileVariable]
	if flags != nil && *flags.file != "" {
		path = *flags.file
	}
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return c, fmt.Errorf("read configuration %s: %w", path, plain(err))
		}
	}
	known := map[string]bool{}
	for _, s := range settings(&c) {
		known[s.key] = true
		if k.Exists(s.key) {
			if err := set(s, k.Get(s.key)); err != nil {
				mistakes = append(mistakes, fmt.Sprintf("%s in %s: %v", s.key, path, err))
			}
		}
		if text, ok := variables[Variable(s.key)]; ok && text != "" {
			if err := parse(s, text); err != nil {
				mistakes = append(mistakes, fmt.Sprintf("%s: %v", Variable(s.key), err))
			}
		}
		if flags != nil && flags.values[s.key].IsValid() && changed(s.key) {
			s.value.Set(flags.values[s.key].Elem())
		}
	}
	keys := slices.Sorted(maps.Keys(known))
	for _, key := range k.Keys() {
		if top, _, _ := strings.Cut(key, keyDelimiter); !known[top] {
			mistakes = append(mistakes, fmt.Sprintf("%s in %s: there is no such setting%s", top, path, meant(top, keys, "")))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, variablePrefix)), "_", "-")
		if value := variables[name]; value != "" && (!known[key] || Variable(key) != name) && !otherVariable(name, value) {
			mistakes = append(mistakes, fmt.Sprintf("%s: there is no such setting%s", name, meant(key, keys, Variable(""))))
		}
	}
	var invalid Mistakes
	if err := c.Validate(); errors.As(err, &invalid) {
		mistakes = append(mistakes, invalid...)
	}
	if len(mistakes) > 0 {
		return c, mistakes
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return c, fmt.Errorf("find data folder %s: %w", c.DataDir, err)
	}
	c.DataDir = dir
	return c, nil
}

// Meant suggests a setting for a name that is no setting: one with a similar name, or one that other programs call so; "" if
// there is none.
func Meant(key string, keys []string) string {
	switch key {
	case "port", "host", "address", "addr", "bind":
		if slices.Contains(keys, "listen") {
			return "listen"
		}
	}
	if slices.Contains(keys, key) { // a variable that is written in other letters
		return key
	}
	return near.Name(key, keys)
}

// meant is the end of the message about an unknown setting, in a file (prefix is empty) or in the environment.
func meant(key string, keys []string, prefix string) string {
	found := Meant(key, keys)
	switch {
	case found == "":
		return " (config/aloft.example.yaml shows all)"
	case prefix != "":
		found = Variable(found)
	}
	return "; did you mean " + found + "?"
}

// otherVariable says whether a variable with the prefix ALOFT_ has another use than a setting: the file to read, a task's mark,
// variables of the project's tests, and those that Kubernetes sets for a service that is called aloft.
func otherVariable(name, value string) bool {
	rest := strings.TrimPrefix(name, variablePrefix)
	for _, prefix := range []string{"TEST_", "HOSTILE_", "POSTGRES_DIR", "SQLSTORE_TEST_", "SERVICE_HOST", "SERVICE_PORT", "PORT_"} {
		if strings.HasPrefix(rest, prefix) {
			return true
		}
	}
	return name == fileVariable || rest == "ATTEMPT_MARK" || rest == "PORT" && strings.Contains(value, "://")
}

// keyDelimiter separates levels of a key for koanf. The settings have no levels, so no key contains it.
const keyDelimiter = "\x00"

func plain(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// set sets a setting to a value that the YAML parser returns.
func set(s setting, value any) error {
	switch v := value.(type) {
	case nil:
		return nil // a key without a value: the default stays
	case string:
		return parse(s, v)
	case []any:
		if s.value.Kind() != reflect.Slice {
			return errors.New("a list where one value is expected")
		}
		list := make([]string, len(v))
		for i, e := range v {
			list[i] = fmt.Sprint(e)
		}
		s.value.Set(reflect.ValueOf(list))
		return nil
	case map[string]any:
		return errors.New("a group where one value is expected")
	default:
		return parse(s, fmt.Sprint(v))
	}
}

func parse(s setting, text string) error {
	var value any
	var err error
	switch s.value.Interface().(type) {
	case string:
		value = text
	case []string:
		list := []string{}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
		value = list
	case int:
		if value, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
	case float64:
		if value, err = strconv.ParseFloat(text, 64); err != nil {
			return fmt.Errorf("%q is no number", text)
		}
	case bool:
		if value, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	}
	s.value.Set(reflect.ValueOf(value))
	return nil
}

// SearchPath is the PATH of the process.
func SearchPath() string { return os.Getenv("PATH") }

// Home is the folder below which the data folder is by default: the user's home, or the current folder for users without one.
func Home() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return "."
	}
	return home
}
