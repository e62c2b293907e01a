package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// from is a request that a page of an origin makes, with the headers that the browser sets.
func from(origin, site, mode, dest string) entry {
	return entry{method: "GET", path: "/api/v1/version", host: "localhost:30080", origin: origin, site: site, mode: mode, dest: dest}
}

func (e entry) post(path, contentType string) entry {
	r := &http.Request{Header: http.Header{"Content-Type": {contentType}}, URL: &url.URL{Path: path}}
	canonical(r)
	e.method, e.path, e.format, e.body = "POST", path, formatOf(r), true
	return e
}

func (e entry) at(path string) entry {
	e.path = path
	return e
}

func (e entry) of(host string) entry {
	e.host = host
	return e
}

func TestTheGate(t *testing.T) {
	t.Parallel()
	const (
		create   = "/api/v1/executions"
		call     = "/flyteidl.service.AdminService/CreateExecution"
		evil     = "https://evil.example"
		json     = "application/json"
		plain    = "text/plain"
		cross    = "cross-site"
		page     = "/console/projects/p/domains/d/executions/e"
		link     = "/blob/token/raw/x"
		https    = "https://aloft.example.com"
		mine     = "https://mine.example"
		ours     = "http://localhost:30080"
		neighbor = "http://localhost:3000"
	)
	program := entry{method: "GET", path: "/api/v1/version", host: "localhost:30080"}
	native := program.post(call, "application/grpc+proto")
	native.http2 = true
	webPage := native
	webPage.origin = evil
	preflight := func(origin string) entry {
		e := from(origin, cross, "cors", "empty")
		e.method, e.requestedMethod = "OPTIONS", "POST"
		return e
	}
	head := from("", cross, "navigate", "document").at(page)
	head.method = "HEAD"
	empty := program.post(create, "")
	empty.body = false
	remove := program.post(create+"/p/d/n", json)
	remove.method = "DELETE"
	own := Config{PublicURL: https + "/aloft", Hosts: []string{"Box.lan", "0.0.0.0"}}
	allowed := Config{Origins: []string{mine, neighbor}}
	all := Config{Origins: []string{"*"}}

	for _, test := range []struct {
		name   string
		config Config
		entry  entry
		want   int // status of the refusal; 0: it enters
	}{
		// Programs have neither Origin nor Sec-Fetch headers.
		{"a program reads", own, program, 0},
		{"a program posts JSON", own, program.post(create, json), 0},
		{"a program posts JSON with a charset", own, program.post(create, "Application/JSON; charset=utf-8"), 0},
		{"a program posts a message", own, program.post(create, "application/octet-stream"), 0},
		{"a program posts without a body", own, empty, 0},
		{"a program deletes with a body", own, remove, 0},
		{"a program uploads any type by its link", own, program.post(link, "image/png"), 0},
		{"a program calls by Connect", own, program.post(call, json), 0},
		{"a program calls by gRPC", own, native, 0},
		{"a program of HTTP/1.0", own, program.of(""), 0},

		// Bodies of REST that a page can send without asking.
		{"text", own, program.post(create, plain), 415},
		{"text that claims JSON", own, program.post(create, "text/plain; application/json"), 415},
		{"a form", own, program.post(create, "application/x-www-form-urlencoded"), 415},
		{"a form with files", own, program.post("/config/v1/flyte_client", "multipart/form-data; boundary=x"), 415},
		{"no type", own, program.post("/me", ""), 415},
		{"text of a page of ours", own, from(ours, "same-origin", "cors", "empty").post(create, plain), 415},

		// Pages of ours.
		{"our page reads", own, from("", "same-origin", "cors", "empty"), 0},
		{"our page posts", own, from(ours, "same-origin", "cors", "empty").post(create, json), 0},
		{"our page frames a deck", own, from("", "same-origin", "navigate", "iframe").at(link), 0},
		{"our page without a referrer", own, from("null", "same-origin", "same-origin", "empty").post(create, json), 0},
		{"our page in an old browser", own, from(ours, "", "", "").post(call, json), 0},
		{"the address bar", own, from("", "none", "navigate", "document").at(page), 0},
		{"our page behind a proxy that changes the host", own, from(https, "", "", "").of("127.0.0.1:30080").post(call, json), 0},
		{"the same in a new browser", own, from(https, "same-origin", "cors", "empty").of("127.0.0.1:30080").post(call, json), 0},

		// Pages elsewhere: nothing but links.
		{"a link in a chat", own, from("", cross, "navigate", "document").at(page), 0},
		{"a link to data", own, from("", cross, "navigate", "document").at(link), 0},
		{"what is behind a link", own, head, 0},
		{"a link from the neighbour", own, from("", "same-site", "navigate", "document").at(page), 0},
		{"fetch", own, from(evil, cross, "cors", "empty"), 403},
		{"fetch without cors", own, from("", cross, "no-cors", "empty"), 403},
		{"fetch of a page", own, from(evil, cross, "cors", "empty").at(page), 403},
		{"fetch of our health", own, from("", cross, "no-cors", "empty").at("/healthcheck"), 403},
		{"fetch of a link", own, from(evil, cross, "cors", "empty").at(link), 403},
		{"a call that reads", own, from("", cross, "no-cors", "empty").at(call + "?connect=v1&encoding=json&message=%7b%7d"), 403},
		{"post of text", own, from(evil, cross, "no-cors", "empty").post(create, plain), 403},
		{"post of JSON", own, from(evil, cross, "cors", "empty").post(create, json), 403},
		{"post by Connect", own, from(evil, cross, "cors", "empty").post(call, json), 403},
		{"post by gRPC-Web", own, from(evil, cross, "cors", "empty").post(call, "application/grpc-web+proto"), 403},
		{"post of an old browser", own, from(evil, "", "", "").post(create, json), 403},
		{"reading of an old browser", own, from(evil, "", "", ""), 403},
		{"a form that posts", own, from(evil, cross, "navigate", "document").post(create, "application/x-www-form-urlencoded"), 403},
		{"a form without a referrer", own, from("null", cross, "navigate", "document").post(create, plain), 403},
		{"an image", own, from("", cross, "no-cors", "image").at(page), 403},
		{"a script", own, from("", cross, "no-cors", "script"), 403},
		{"a frame", own, from("", cross, "navigate", "iframe").at(page), 403},
		{"an object", own, from("", cross, "navigate", "object").at(page), 403},
		{"a web socket", own, from(evil, cross, "websocket", "empty"), 403},
		{"a web socket of an old browser", own, from(evil, "", "", ""), 403},
		{"events", own, from(evil, cross, "cors", "empty"), 403},
		{"another port of this machine", own, from(neighbor, "same-site", "cors", "empty"), 403},
		{"another port in an old browser", own, from(neighbor, "", "", "").post(create, json), 403},
		{"another scheme", own, from("https://localhost:30080", cross, "cors", "empty").post(create, json), 403},
		{"a file", own, from("null", cross, "cors", "empty"), 403},
		{"a sandboxed deck in an old browser", own, from("null", "", "", "").post(create, json), 403},
		{"the address bar with an origin", own, from(evil, "none", "cors", "empty").post(create, json), 403},
		{"a value that does not exist yet", own, from("", "near-site", "cors", "empty"), 403},
		{"a page that could speak HTTP/2", own, webPage, 403},
		{"a preflight", own, preflight(evil), 403},
		{"a preflight of nothing", own, preflight("null"), 403},

		// The setting origins.
		{"an allowed page", allowed, from(mine, cross, "cors", "empty").post(create, json), 0},
		{"an allowed neighbour", allowed, from(neighbor, "same-site", "cors", "empty").post(create, json), 0},
		{"an allowed page asks first", allowed, preflight(mine), 0},
		{"an allowed page posts text", allowed, from(mine, cross, "no-cors", "empty").post(create, plain), 415},
		{"an image on an allowed page, which tells no origin", allowed, from("", cross, "no-cors", "image"), 403},
		{"another than the allowed", allowed, from(evil, cross, "cors", "empty").post(create, json), 403},
		{"another asks first", allowed, preflight(evil), 403},
		{"one that begins like the allowed", allowed, from(mine+".evil.example", cross, "cors", "empty"), 403},
		{"the allowed with another port", allowed, from(mine+":8443", cross, "cors", "empty"), 403},
		{"any page", all, from(evil, cross, "cors", "empty").post(create, json), 0},
		{"an image on any page", all, from("", cross, "no-cors", "image"), 0},
		{"a page without a name is not any", all, from("null", cross, "cors", "empty").post(create, json), 403},

		// The host.
		{"localhost without a port", own, program.of("localhost"), 0},
		{"a name below localhost", own, program.of("aloft.LocalHost.:30080"), 0},
		{"an address", own, program.of("192.168.1.5:30080"), 0},
		{"an address of version 6", own, program.of("[fe80::1]:30080"), 0},
		{"the host of public-url", own, program.of("aloft.example.com"), 0},
		{"a host of the setting", own, program.of("BOX.lan:30080"), 0},
		{"another host", own, program.of("evil.example:30080"), 421},
		{"a name that looks like an address", own, program.of("127.0.0.1.evil.example"), 421},
		{"a name that begins like localhost", own, program.of("localhost.evil.example:30080"), 421},
		{"another host, of a page that is ours by name", own, from("http://evil.example:30080", "same-origin", "cors", "empty").of("evil.example:30080").post(create, json), 421},
		{"another host, of a page that cannot say so", own, from("http://evil.example:30080", "", "", "").of("evil.example:30080").post(call, json), 421},
		{"another host, by a link", own, from("", "none", "navigate", "document").of("evil.example:30080").at(page), 421},
		{"another host, even for any page", all, program.of("evil.example:30080"), 421},
		{"gRPC names any host", own, native.of("evil.example:30080"), 0},
		{"gRPC-Web does not", own, program.post(call, "application/grpc-web+proto").of("evil.example:30080"), 421},
		{"nor does what a page could send", own, webPage.of("evil.example:30080"), 421},
	} {
		got := 0
		v := newGate(test.config).decide(test.entry)
		if v.refusal != nil {
			got = v.refusal.status
		}
		if got != test.want {
			t.Errorf("%s: status %d (%+v), want %d", test.name, got, v.refusal, test.want)
		}
		if v.refusal != nil && v.refusal.status == http.StatusForbidden && (v.reader != "" || !strings.Contains(v.refusal.reason, "origins")) {
			t.Errorf("%s: %q may read %q, want a refusal that nobody reads and that names the setting", test.name, v.reader, v.refusal.reason)
		}
		if v.refusal != nil && v.refusal.status == http.StatusMisdirectedRequest && (v.knownHost || !strings.Contains(v.refusal.reason, "hosts")) {
			t.Errorf("%s: the refusal %q does not name the setting", test.name, v.refusal.reason)
		}
	}
	if v := newGate(own).decide(native.of("evil.example")); v.knownHost {
		t.Error("links are made of a host that gRPC alone may name")
	}
	if v := newGate(all).decide(from(evil, cross, "cors", "empty")); v.reader != "*" {
		t.Errorf("any page may read as %q, want *, which no browser combines with credentials", v.reader)
	}
}
