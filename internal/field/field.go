// Package field checks the fields of requests that several stations have to check: identifiers, labels, notifications. It
// is used by api, registry and launch before they do anything, relies on nothing, and reports all mistakes at once in the
// words that Flyte's clients know ("missing project", "invalid value for name").
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

// Problems are all mistakes of one request. The zero value is none.
type Problems struct {
	errs []error
	away error // the first check that could not be made
}

// Add notes a mistake.
func (p *Problems) Add(format string, args ...any) {
	p.errs = append(p.errs, errors.New(aloft.Messagef(format, args...)))
}

// Include notes an error that another check returned, with what it wraps; nil is no mistake. One that wraps
// aloft.ErrUnavailable or aloft.ErrUnreadable says nothing about the request: the check could not be made.
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

// Err is nil when nothing is wrong, and otherwise wraps aloft.ErrInvalid and all that was included. When a check could not
// be made it is that error alone: a client that is told of a mistake does not try again.
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

// Unwrap gives what was included first: a launch plan that is not found decides the code even if a label is wrong, too.
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

// TextUpTo checks a required text that may have so many bytes.
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

// Characters checks that a text, which may be empty, has at most so many characters.
func (p *Problems) Characters(limit int, field, value string) {
	if n := utf8.RuneCountInString(value); n > limit {
		p.Add("invalid value for %s: it has %d characters, the limit is %d", field, n, limit)
	}
}

// Identifier checks a complete identifier of the given kind. An unspecified kind is taken for the one that is meant where
// implied is true; it is not written into id.
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

// Labels checks that labels could be those of a Kubernetes object, as Flyte does.
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

// AtMost checks that there are not more than so many of something, and says whether that is so.
func (p *Problems) AtMost(limit int, field string, n int) bool {
	if n > limit {
		p.Add("invalid value for %s: there are %d, the limit is %d", field, n, limit)
	}
	return n <= limit
}

// Spec checks that what describes an execution or a launch plan is not larger than lists can repeat, and has not more of
// anything than can be looked at one by one. What is given as inputs is no part of that.
func (p *Problems) Spec(where string, spec Described) {
	p.AtMost(aloft.MaxAnnotations, where+".annotations", len(spec.GetAnnotations().GetValues()))
	p.AtMost(aloft.MaxEnvironment, where+".envs", len(spec.GetEnvs().GetValues()))
	if n := proto.Size(spec); n > aloft.MaxSpecBytes {
		p.Add("invalid value for %s: it has %d bytes, the limit is %d: annotations, envs, labels, tags and notifications are in every list; "+
			"refer to what is large by URI, or give it as an input", where, n, aloft.MaxSpecBytes)
	}
}

// Legible checks that clients can read what is registered or created, wherever an answer has it: of one that they cannot, a
// whole list would break. NaN and the like are no mistake, because flytekit sends them: lists give them another form.
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

// Tags checks the tags of an execution, which is found by them.
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

// RawOutput checks the prefix below which tasks write files. The folders of this machine are not for it: what a task writes
// there would neither be synced nor found from anywhere else.
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

// Notifications checks that each says whom to tell, and of which last phases.
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
