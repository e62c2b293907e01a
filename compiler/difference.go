package compiler

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	maxDifferences     = 100 // lines
	maxDifferenceValue = 200 // bytes of one value
)

// Difference lists the places in which two messages differ, a line each: the path in their JSON form, the value before and the
// value now. Elements of a list that have ids are compared by id, others by position. It is empty for equal messages, and stops
// after maxDifferences lines.
func Difference(before, after proto.Message) string {
	d := &difference{}
	d.compare("", jsonValue(before), jsonValue(after))
	if d.more > 0 {
		d.lines = append(d.lines, fmt.Sprintf("and %d more differences", d.more))
	}
	return strings.Join(d.lines, "\n")
}

// jsonValue is the JSON form of a message. A message without one, such as with a time out of range, is represented by its size.
func jsonValue(m proto.Message) any {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	b, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Sprintf("a message of %d bytes without JSON form", proto.Size(m))
	}
	decoder := json.NewDecoder(strings.NewReader(string(b)))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return string(b)
	}
	return v
}

type difference struct {
	lines []string
	more  int
}

func (d *difference) line(path, was, is string) {
	if len(d.lines) >= maxDifferences {
		d.more++
		return
	}
	if path == "" {
		path = "."
	}
	d.lines = append(d.lines, path+": "+was+" → "+is)
}

// absentValue stands for a field that is absent; null is a value.
type absentValue struct{}

func (d *difference) compare(path string, before, after any) {
	switch b := before.(type) {
	case map[string]any:
		if a, ok := after.(map[string]any); ok {
			d.objects(b, a, func(key string) string {
				if path == "" {
					return key
				}
				return path + "." + key
			})
			return
		}
	case []any:
		if a, ok := after.([]any); ok {
			byID, okBefore := withIDs(b)
			aByID, okAfter := withIDs(a)
			if okBefore && okAfter {
				d.objects(byID, aByID, func(key string) string { return path + "[" + key + "]" })
				if len(byID) == len(aByID) && sameKeys(byID, aByID) && !slices.Equal(ids(b), ids(a)) {
					d.line(path, show(ids(b)), show(ids(a)))
				}
				return
			}
			for i := range max(len(b), len(a)) {
				d.compare(path+"["+strconv.Itoa(i)+"]", at(b, i), at(a, i))
			}
			return
		}
	}
	if was, is := show(before), show(after); was != is || !equalScalars(before, after) {
		d.line(path, was, is)
	}
}

func (d *difference) objects(before, after map[string]any, name func(string) string) {
	keys := maps.Clone(before)
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		d.compare(name(key), get(before, key), get(after, key))
	}
}

func get(m map[string]any, key string) any {
	if v, ok := m[key]; ok {
		return v
	}
	return absentValue{}
}

func at(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return absentValue{}
}

// withIDs is a list of objects by their ids; false if an element has no id or two have the same.
func withIDs(list []any) (map[string]any, bool) {
	byID := make(map[string]any, len(list))
	for _, e := range list {
		object, _ := e.(map[string]any)
		id, ok := object["id"].(string)
		if !ok || byID[id] != nil {
			return nil, false
		}
		byID[id] = object
	}
	return byID, len(list) > 0
}

func ids(list []any) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i], _ = e.(map[string]any)["id"].(string)
	}
	return out
}

func sameKeys(a, b map[string]any) bool {
	for key := range a {
		if _, ok := b[key]; !ok {
			return false
		}
	}
	return true
}

// equalScalars compares two values as they are, because two long texts may look equal once they are cut (show).
func equalScalars(a, b any) bool {
	switch a.(type) {
	case string, bool, json.Number, nil, absentValue:
		return a == b
	}
	return true
}

func show(v any) string {
	if _, ok := v.(absentValue); ok {
		return "absent"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if len(b) > maxDifferenceValue {
		return strings.ToValidUTF8(string(b[:maxDifferenceValue]), "") + "…"
	}
	return string(b)
}
