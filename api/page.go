package api

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/internal/room"
	"github.com/aloft-dev/aloft/store"
)

// pageTemplates are the pages that stand in for a console: flytekit prints a link to it for each execution.
var pageTemplates = template.Must(template.New("").Parse(`
{{define "head"}}<!doctype html><html lang="en"><meta charset="utf-8"><title>{{.}} · aloft</title>
<meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}pre{background:#f4f4f4;padding:1rem;overflow:auto;white-space:pre-wrap}</style>{{end}}
{{define "execution"}}{{template "head" .Execution.ID.Name}}
{{if .Running}}<meta http-equiv="refresh" content="3">{{end}}
<p><a href="/console/">{{.Execution.ID.Project}} / {{.Execution.ID.Domain}}</a></p>
<h1>{{.Execution.ID.Name}}: {{.Execution.Phase}}</h1>
<p>{{.Execution.Workflow.GetName}}, version {{.Execution.Workflow.GetVersion}}. Created {{.Execution.CreatedAt.UTC.Format "2006-01-02 15:04:05"}} UTC{{with .Took}}, took {{.}}{{end}}.</p>
{{with .Recovers}}<p>Recovers <a href="/console/projects/{{.Project}}/domains/{{.Domain}}/executions/{{.Name}}">{{.Name}}</a>, nodes taken over: {{$.Recovered}}</p>{{end}}
{{with .Execution.Waiting}}<p>Waiting: {{.}}</p>{{end}}
{{with .Execution.AbortCause}}<p>Terminated: {{.}}</p>{{end}}
{{with .Execution.Error}}<h2>{{.GetCode}}</h2><pre>{{.GetMessage}}</pre>{{end}}
<h2>Nodes</h2><table><tr><th>Node<th>Name<th>Phase<th>Time<th>Cache<th>Deck</tr>
{{range .Nodes}}<tr><td>{{.ID}}<td>{{.Name}}<td>{{.Phase}}<td>{{.Took}}<td>{{.Cache}}<td>{{with .Deck}}<a href="{{.}}">deck</a>{{end}}</tr>
{{if .Message}}<tr><td><td colspan="5"><pre>{{.Message}}</pre></tr>{{end}}{{end}}</table>
<p>In a terminal: <code>aloft status {{.Execution.ID.Name}} --follow</code>, <code>aloft logs {{.Execution.ID.Name}}</code></p>{{end}}
{{define "index"}}{{template "head" "executions"}}<h1>Executions</h1>
{{range .}}<h2>{{.Project}} / {{.Domain}}</h2><table>{{range .Executions}}<tr><td><a href="/console/projects/{{.ID.Project}}/domains/{{.ID.Domain}}/executions/{{.ID.Name}}">{{.ID.Name}}</a><td>{{.Workflow.GetName}}<td>{{.Phase}}<td>{{.CreatedAt.UTC.Format "2006-01-02 15:04:05"}}</tr>{{end}}</table>
{{else}}<p>None yet. Run one: <code>pyflyte run --remote example.py main</code></p>{{end}}{{end}}
{{define "problem"}}{{template "head" "not found"}}<h1>{{.}}</h1><p><a href="/console/">All executions</a></p>{{end}}
`))

type nodeRow struct {
	ID, Name, Phase, Took, Cache, Deck, Message string
}

// pageOf is the handler of a page. Like a call without effect, read runs under the guard and is run again when there was no room.
func (a *API) pageOf(name string, read func(ctx context.Context, r *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var data any
		failure := a.guard(r.Context(), "page of "+name, func() error {
			return room.Again(r.Context(), func() (err error) {
				data, err = read(r.Context(), r)
				return err
			})
		})
		if failure != nil {
			a.writePage(w, r, runtime.HTTPStatusFromCode(codes.Code(failure.Code())), "problem", failure.Message())
			return
		}
		a.writePage(w, r, http.StatusOK, name, data)
	}
}

func (a *API) readExecutionPage(ctx context.Context, r *http.Request) (any, error) {
	id := aloft.ExecutionID{Project: r.PathValue("project"), Domain: r.PathValue("domain"), Name: r.PathValue("name")}
	e, err := a.execution(ctx, id)
	if errors.Is(err, aloft.ErrNotFound) {
		err = fmt.Errorf("execution %s: %w", id, aloft.ErrNotFound) // a.execution says it in the words of Flyte's clients
	}
	if err != nil {
		return nil, err
	}
	nodes, err := a.Store.ListNodes(ctx, id, "", false, store.Query{SortBy: "created_at", Ascending: true, Limit: 1000})
	if err != nil {
		return nil, err
	}
	notes := cacheNotes{store: a.Store, execution: id}
	var rows []nodeRow
	recovered := 0
	for _, n := range nodes {
		if n.SpecNodeID == aloft.StartNode || n.SpecNodeID == aloft.EndNode {
			continue
		}
		if n.Phase == core.NodeExecution_RECOVERED {
			recovered++
		}
		row := nodeRow{ID: string(n.ID), Name: n.Name, Phase: n.Phase.String(), Took: a.took(n.StartedAt, n.EndedAt), Message: n.Error.GetMessage()}
		if row.Deck, err = a.Renderer.Link(n.DeckURI, callerOf(ctx).base, a.Now().Add(maxLinkLife)); err != nil {
			row.Deck = ""
		}
		if row.Cache, err = notes.of(ctx, n); err != nil {
			return nil, err
		}
		if n.Waiting != "" && !aloft.Terminal(n.Phase) {
			row.Cache = strings.TrimPrefix(row.Cache+"; "+n.Waiting, "; ")
		}
		rows = append(rows, row)
	}
	return map[string]any{
		"Execution": e, "Running": !aloft.Terminal(e.Phase), "Took": a.took(e.StartedAt, e.EndedAt), "Nodes": rows,
		"Recovers": executionStatus(e).GetRecovers(), "Recovered": recovered,
	}, nil
}

func (a *API) took(from, to time.Time) string {
	if from.IsZero() {
		return ""
	}
	if to.IsZero() {
		to = a.Now()
	}
	return to.Sub(from).Round(time.Millisecond).String()
}

// maxOnIndex is about how many executions the index page has, of all projects together.
const maxOnIndex = 500

// readIndexPage lists the newest executions of each project and domain.
func (a *API) readIndexPage(ctx context.Context, _ *http.Request) (any, error) {
	type section struct {
		Project, Domain string
		Executions      []*store.Execution
	}
	var sections []section
	listed := 0
	projects, err := a.Store.ListProjects(ctx, store.Query{Limit: 100, SortBy: "identifier", Ascending: true})
	if err != nil {
		return nil, err
	}
	for _, p := range projects {
		if p.GetState() != admin.Project_ACTIVE {
			continue
		}
		for _, d := range a.Registry.Domains {
			if listed >= maxOnIndex {
				return sections, nil
			}
			found, err := a.Store.ListExecutions(ctx, store.Query{Project: p.GetId(), Domain: d, Limit: 50})
			if err != nil {
				return nil, err
			}
			listed += len(found)
			if len(found) > 0 {
				sections = append(sections, section{p.GetId(), d, found})
			}
		}
	}
	return sections, nil
}

func (a *API) writePage(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	if err := pageTemplates.ExecuteTemplate(w, name, data); err != nil {
		a.Logger.DebugContext(r.Context(), "a page was not delivered", "error", err)
	}
}
