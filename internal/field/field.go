// Package field checks the fields of requests that several packages have to check: identifiers, labels, notifications. Packages
// api, registry and launch call it before anything else. It relies on nothing, and reports all mistakes at once in the words
// that Flyte's clients know ("missing project", "invalid value for name").
package field

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/legible"
)

// Problems collects all mistakes of one request. The zero value has none.
type Problems struct {
	errs []error
	away error // of the first check that could not be made, such as without the store
}

// Add notes a mistake.
func (p *Problems) Add(format string, args ...any) {
	p.errs = append(p.errs, errors.New(aloft.Messagef(format, args...)))
}

// Include notes an error of another check, with the errors that it wraps; nil is no mistake. An error that wraps
// aloft.ErrUnavailable or aloft.ErrUnreadable is no mistake of the request: the check could not be made.
func (p *Problems) Include(err error) {
	switch {
	case err == nil:
	case errors.Is(err, aloft.ErrUnavailable) || errors.Is(err, aloft.ErrUnreadable):
		if p.away == nil {
			p.away = err
		}
	default:
		p.errs = append(p.errs, err)
	}
}

// Missing notes an absent field.
func (p *Problems) Missing(field string) { p.Add("missing %s", field) }

// Need notes an empty text field.
func (p *Problems) Need(field, value string) {
	if value == "" {
		p.Missing(field)
	}
}

// Any says whether there is a mistake already.
func (p *Problems) Any() bool { return len(p.errs) > 0 || p.away != nil }

// Err is nil if there is no mistake, and otherwise wraps aloft.ErrInvalid and all included errors. If a check could not be
// made, Err is the error of that check alone: a client that is told of a mistake would not try again.
func (p *Problems) Err() error {
	if p.away != nil {
		return p.away
	}
	if len(p.errs) == 0 {
		return nil
	}
	return problems(p.errs)
}

type problems []error

func (p problems) Error() string {
	texts := make([]string, len(p))
	for i, err := range p {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the included errors before aloft.ErrInvalid: if a launch plan is not found and a label is wrong, the code is
// that of the launch plan.
func (p problems) Unwrap() []error { return append(slices.Clone(p), aloft.ErrInvalid) }

// Text checks a required text of an identifier.
func (p *Problems) Text(field, value string) {
	p.TextUpTo(aloft.MaxName, field, value)
	for _, r := range value {
		if r != 0 && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			p.Add("invalid value for %s: it contains %+q, a control character", field, r)
			return
		}
	}
}

// TextUpTo checks a required text of at most limit bytes.
func (p *Problems) TextUpTo(limit int, field, value string) {
	switch {
	case value == "":
		p.Missing(field)
	case len(value) > limit:
		p.Add("invalid value for %s: it has %d bytes, the limit is %d", field, len(value), limit)
	case strings.ContainsRune(value, 0):
		p.Add("invalid value for %s: it contains a NUL character", field)
	}
}

// Characters checks that a text, which may be empty, has at most limit characters.
func (p *Problems) Characters(limit int, field, value string) {
	if n := utf8.RuneCountInString(value); n > limit {
		p.Add("invalid value for %s: it has %d characters, the limit is %d", field, n, limit)
	}
}

// Identifier checks a complete identifier of the given resource type. If implied is true, an unspecified type is no mistake; it is
// not written into id.
func (p *Problems) Identifier(where string, id *core.Identifier, kind core.ResourceType, implied bool) {
	if id == nil {
		p.Missing(where)
		return
	}
	if id.GetResourceType() != kind && !(implied && id.GetResourceType() == core.ResourceType_UNSPECIFIED) {
		p.Add("invalid value for %s.resource_type: expected %s, got %s", where, kind, id.GetResourceType())
	}
	p.Text("project", id.GetProject())
	p.Text("domain", id.GetDomain())
	p.Text("name", id.GetName())
	p.Text("version", id.GetVersion())
}

// Execution checks an execution's identifier.
func (p *Problems) Execution(id *core.WorkflowExecutionIdentifier) {
	if id == nil {
		p.Missing("id")
		return
	}
	p.Text("project", id.GetProject())
	p.Text("domain", id.GetDomain())
	p.Text("name", id.GetName())
}

// Labels checks that labels are valid for a Kubernetes object, as Flyte does.
func (p *Problems) Labels(labels *admin.Labels) {
	values := labels.GetValues()
	if len(values) > aloft.MaxLabels {
		p.Add("invalid value for labels: there are %d, the limit is %d", len(values), aloft.MaxLabels)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		prefix, name, hasPrefix := strings.Cut(key, "/")
		if !hasPrefix {
			prefix, name = "", key
		}
		if !labelText(name) || name == "" || (hasPrefix && !dnsName(prefix)) {
			p.Add("invalid value for labels: the key %q is no label name (letters, digits, '-', '_', '.', at most %d characters, optionally after a DNS name and '/')", aloft.Excerpt(key), aloft.MaxLabelText)
		}
		if !labelText(values[key]) {
			p.Add("invalid value for labels: %q, the value of %q, is no label value (letters, digits, '-', '_', '.', at most %d characters)", aloft.Excerpt(values[key]), aloft.Excerpt(key), aloft.MaxLabelText)
		}
	}
}

// AtMost checks that n is not above the limit, and says whether that is so.
func (p *Problems) AtMost(limit int, field string, n int) bool {
	if n > limit {
		p.Add("invalid value for %s: there are %d, the limit is %d", field, n, limit)
	}
	return n <= limit
}

// Spec checks that a spec without its inputs is not larger than lists can repeat, and that no list in it has more elements than
// can be checked one by one.
func (p *Problems) Spec(where string, spec Described) {
	p.AtMost(aloft.MaxAnnotations, where+".annotations", len(spec.GetAnnotations().GetValues()))
	p.AtMost(aloft.MaxEnvironment, where+".envs", len(spec.GetEnvs().GetValues()))
	if n := proto.Size(spec); n > aloft.MaxSpecBytes {
		p.Add("invalid value for %s: it has %d bytes, the limit is %d: annotations, envs, labels, tags and notifications are in every list; "+
			"refer to what is large by URI, or give it as an input", where, n, aloft.MaxSpecBytes)
	}
}

// Legible checks that all clients can read a message that is registered or created: otherwise a list that contains it would
// fail as a whole. NaN and other values without a form in JSON are no mistake, because flytekit sends them; lists give them
// another form.
func (p *Problems) Legible(where string, m proto.Message) {
	data, err := proto.Marshal(m)
	if err != nil {
		p.Add("invalid value for %s: %v", where, err)
		return
	}
	seen := legible.Look(m.ProtoReflect().Descriptor(), data)
	if seen.Depth > aloft.MaxSpecDepth {
		p.Add("invalid value for %s: messages in it are nested deeper than %d levels, the limit: clients could not read it", where, aloft.MaxSpecDepth)
	}
	if seen.Time != "" {
		p.Add("invalid value for %s.%s: a time is between the years 1 and 9999; a duration has at most 10,000 years, and one sign", where, seen.Time)
	}
}

// Described is a spec of an execution or a launch plan.
type Described interface {
	proto.Message
	GetAnnotations() *admin.Annotations
	GetEnvs() *admin.Envs
}

// Tags checks the tags of an execution.
func (p *Problems) Tags(tags []string) {
	if !p.AtMost(aloft.MaxTags, "tags", len(tags)) {
		return
	}
	for _, tag := range tags {
		if n := utf8.RuneCountInString(tag); n > aloft.MaxTag {
			p.Add("invalid value for tags: %q has %d characters, the limit is %d", aloft.Excerpt(tag), n, aloft.MaxTag)
		}
	}
}

func labelText(s string) bool {
	if len(s) > aloft.MaxLabelText {
		return false
	}
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if !alphanumeric(s[i]) && !(inner && (s[i] == '-' || s[i] == '_' || s[i] == '.')) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func dnsName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !DNSLabel(part) {
			return false
		}
	}
	return true
}

// DNSLabel says whether s may be a part of a host name: lower-case letters, digits and '-', at most 63.
func DNSLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !(s[i] >= 'a' && s[i] <= 'z' || s[i] >= '0' && s[i] <= '9' || s[i] == '-') {
			return false
		}
	}
	return true
}

// RawOutput checks the prefix below which tasks write files. A folder of this machine is refused: files there would neither be
// synced to disk nor found from other machines.
func (p *Problems) RawOutput(where string, config *admin.RawOutputDataConfig) {
	prefix := config.GetOutputLocationPrefix()
	if prefix == "" {
		return
	}
	if n := len(prefix); n > aloft.MaxPrefix {
		p.Add("invalid value for %s.output_location_prefix: it has %d bytes, the limit is %d", where, n, aloft.MaxPrefix)
	} else if u, err := url.Parse(prefix); err != nil || u.Host == "" || u.Scheme == "" || u.Scheme == "file" || u.Scheme == "flyte" || u.Scheme == "aloft" {
		p.Add("invalid value for %s.output_location_prefix: %q is not a place in an object store such as s3://bucket/prefix; "+
			"leave it out, and files are kept beside the other data of the server", where, aloft.Excerpt(prefix))
	}
}

// Notifications checks that each notification has recipients and terminal phases.
func (p *Problems) Notifications(notifications []*admin.Notification) {
	if !p.AtMost(aloft.MaxNotification, "notifications", len(notifications)) {
		return
	}
	for i, n := range notifications {
		var recipients []string
		switch kind := n.GetType().(type) {
		case *admin.Notification_Email:
			recipients = kind.Email.GetRecipientsEmail()
		case *admin.Notification_PagerDuty:
			recipients = kind.PagerDuty.GetRecipientsEmail()
		case *admin.Notification_Slack:
			recipients = kind.Slack.GetRecipientsEmail()
		default:
			p.Add("missing notifications[%d].type", i)
			continue
		}
		p.AtMost(aloft.MaxNotification, fmt.Sprintf("notifications[%d].recipients_email", i), len(recipients))
		if len(recipients) == 0 {
			p.Missing(fmt.Sprintf("notifications[%d].recipients_email", i))
		}
		if len(n.GetPhases()) == 0 {
			p.Missing(fmt.Sprintf("notifications[%d].phases", i))
		}
		for _, phase := range n.GetPhases() {
			if !aloft.Terminal(phase) {
				p.Add("invalid value for notifications[%d].phases: %s is not a phase in which an execution ends", i, phase)
			}
		}
	}
}
