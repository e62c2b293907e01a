package literal

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// schemaWithin says whether every value of the JSON schema up is a value of the JSON schema down, by their types, properties,
// items, enumerations and alternatives. Other parts of schemas are ignored, as in Flyte. If one of the two is empty, the answer
// is yes.
func schemaWithin(up, down *structpb.Struct) bool {
	if len(up.GetFields()) == 0 || len(down.GetFields()) == 0 || proto.Equal(up, down) {
		return true
	}
	c := &schemaComparison{up: up, down: down, steps: maxSchemaSteps}
	return c.within(structpb.NewStructValue(up), structpb.NewStructValue(down), 0)
}

// maxSchemaSteps bounds the comparison of schemas that refer to themselves through many alternatives. A step is about one key, name
// or value that is compared.
const maxSchemaSteps = 500_000

type schemaComparison struct {
	up, down *structpb.Struct // the roots, for "#/definitions/…"
	steps    int
}

func (c *schemaComparison) within(u, d *structpb.Value, depth int) bool {
	if c.steps--; c.steps < 0 || depth > MaxDepth {
		return true
	}
	u, d = deref(c.up, u), deref(c.down, d)
	if b, ok := d.GetKind().(*structpb.Value_BoolValue); ok {
		return b.BoolValue
	}
	us, ds := u.GetStructValue().GetFields(), d.GetStructValue().GetFields()
	if us == nil || ds == nil {
		return true
	}
	if c.steps -= cost(us) + cost(ds); c.steps < 0 {
		return true
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		if alternatives := us[key].GetListValue().GetValues(); len(alternatives) > 0 {
			for _, a := range alternatives {
				if !c.within(a, d, depth+1) {
					return false
				}
			}
			return true
		}
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		if alternatives := ds[key].GetListValue().GetValues(); len(alternatives) > 0 {
			return slices.ContainsFunc(alternatives, func(a *structpb.Value) bool { return c.within(u, a, depth+1) })
		}
	}
	return typesWithin(us, ds) && valuesWithin(us, ds) && c.propertiesWithin(us, ds, depth) && c.itemsWithin(us, ds, depth)
}

// cost is how many steps one schema takes without the schemas that are nested in it.
func cost(s map[string]*structpb.Value) int {
	n := 0
	for _, key := range []string{"required", "type", "enum"} {
		for _, v := range s[key].GetListValue().GetValues() {
			n += 1 + len(v.GetStringValue())/16
		}
	}
	return n + len(s["properties"].GetStructValue().GetFields()) + len(s["const"].GetStringValue())/16 + len(s["type"].GetStringValue())/16
}

// deref follows a "$ref" into the definitions of root, the document of the schema.
func deref(root *structpb.Struct, v *structpb.Value) *structpb.Value {
	for range MaxDepth {
		ref, ok := v.GetStructValue().GetFields()["$ref"]
		if !ok || !strings.HasPrefix(ref.GetStringValue(), "#") {
			return v
		}
		if len(ref.GetStringValue()) > 1_000 {
			break
		}
		target := structpb.NewStructValue(root)
		for part := range strings.SplitSeq(strings.Trim(ref.GetStringValue(), "#/"), "/") {
			if part == "" {
				continue
			}
			part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
			target, ok = target.GetStructValue().GetFields()[part]
			if !ok {
				return structpb.NewBoolValue(true)
			}
		}
		v = target
	}
	return structpb.NewBoolValue(true)
}

func words(v *structpb.Value) []string {
	if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return []string{s.StringValue}
	}
	var out []string
	for _, e := range v.GetListValue().GetValues() {
		out = append(out, e.GetStringValue())
	}
	return out
}

func typesWithin(u, d map[string]*structpb.Value) bool {
	ut, dt := words(u["type"]), words(d["type"])
	if len(ut) == 0 || len(dt) == 0 {
		return true
	}
	for _, t := range ut {
		if !slices.Contains(dt, t) && !(t == "integer" && slices.Contains(dt, "number")) {
			return false
		}
	}
	return true
}

func values(s map[string]*structpb.Value) []*structpb.Value {
	if c, ok := s["const"]; ok {
		return []*structpb.Value{c}
	}
	return s["enum"].GetListValue().GetValues()
}

func valuesWithin(u, d map[string]*structpb.Value) bool {
	uv, dv := values(u), values(d)
	if len(dv) == 0 {
		return true
	}
	if len(uv) == 0 {
		return false
	}
	// A map, because two long enumerations must not cost the product of their lengths. Lists and objects are not compared.
	allowed := make(map[any]bool, len(dv))
	for _, v := range dv {
		p, ok := plainValue(v)
		if !ok {
			return true
		}
		allowed[p] = true
	}
	for _, v := range uv {
		if p, ok := plainValue(v); ok && !allowed[p] {
			return false
		}
	}
	return true
}

func plainValue(v *structpb.Value) (any, bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, true
	case *structpb.Value_NumberValue:
		return k.NumberValue, true
	case *structpb.Value_BoolValue:
		return k.BoolValue, true
	case *structpb.Value_NullValue:
		return nil, true
	}
	return nil, false
}

func (c *schemaComparison) propertiesWithin(u, d map[string]*structpb.Value, depth int) bool {
	up, dp := u["properties"].GetStructValue().GetFields(), d["properties"].GetStructValue().GetFields()
	if len(up) > 0 || len(dp) > 0 {
		required := make(map[string]bool)
		for _, name := range words(u["required"]) {
			required[name] = true
		}
		for _, name := range words(d["required"]) {
			if !required[name] {
				return false
			}
		}
	}
	rest := d["additionalProperties"]
	for name, pu := range up {
		pd, ok := dp[name]
		if !ok {
			pd = rest
		}
		if pd != nil && !c.within(pu, pd, depth+1) {
			return false
		}
	}
	if ua := u["additionalProperties"]; ua.GetStructValue() != nil && rest.GetStructValue() != nil {
		return c.within(ua, rest, depth+1)
	}
	return true
}

func (c *schemaComparison) itemsWithin(u, d map[string]*structpb.Value, depth int) bool {
	if u["items"].GetStructValue() == nil || d["items"].GetStructValue() == nil {
		return true
	}
	return c.within(u["items"], d["items"], depth+1)
}
