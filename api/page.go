package api

import (
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/idl/flyteidl/admin"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
	"github.com/aloft-dev/aloft/store"
)

// flytekit prints a link to the console for each execution. Until there is a console the link leads to this page.
var pages = template.Must(template.New("").Parse(`
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

func (a *API) executionPage(w http.ResponseWriter, r *http.Request) {
	id := aloft.ExecutionID{Project: r.PathValue("project"), Domain: r.PathValue("domain"), Name: r.PathValue("name")}
	e, err := a.execution(r.Context(), id)
	if errors.Is(err, aloft.ErrNotFound) {
		err = fmt.Errorf("execution %s: %w", id, aloft.ErrNotFound) // which Flyte's clients read in words of their own
	}
	if err != nil {
		a.problemPage(w, r, err)
		return
	}
	nodes, err := a.Store.ListNodes(r.Context(), id, "", false, store.Query{SortBy: "created_at", Ascending: true, Limit: 1000})
	if err != nil {
		a.problemPage(w, r, err)
		return
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
		if row.Deck, err = a.Renderer.Link(n.DeckURI, callerOf(r.Context()).base, a.Now().Add(maxLinkLife)); err != nil {
			row.Deck = ""
		}
		if row.Cache, err = notes.of(r.Context(), n); err != nil {
			a.problemPage(w, r, err)
			return
		}
		if n.Waiting != "" && !aloft.Terminal(n.Phase) {
			row.Cache = strings.TrimPrefix(row.Cache+"; "+n.Waiting, "; ")
		}
		rows = append(rows, row)
	}
	a.page(w, r, http.StatusOK, "execution", map[string]any{
		"Execution": e, "Running": !aloft.Terminal(e.Phase), "Took": a.took(e.StartedAt, e.EndedAt), "Nodes": rows,
		"Recovers": executionStatus(e).GetRecovers(), "Recovered": recovered,
	})
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

// indexPage lists the newest executions of each project and domain.
func (a *API) indexPage(w http.ResponseWriter, r *http.Request) {
	type section struct {
		Project, Domain string
		Executions      []*store.Execution
	}
	var sections []section
	projects, err := a.Store.ListProjects(r.Context(), store.Query{Limit: 100, SortBy: "identifier", Ascending: true})
	if err != nil {
		a.problemPage(w, r, err)
		return
	}
	for _, p := range projects {
		if p.GetState() != admin.Project_ACTIVE {
			continue
		}
		for _, d := range a.Registry.Domains {
			found, err := a.Store.ListExecutions(r.Context(), store.Query{Project: p.GetId(), Domain: d, Limit: 50})
			if err != nil {
				a.problemPage(w, r, err)
				return
			}
			if len(found) > 0 {
				sections = append(sections, section{p.GetId(), d, found})
			}
		}
	}
	a.page(w, r, http.StatusOK, "index", sections)
}

func (a *API) problemPage(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusServiceUnavailable
	if errors.Is(err, aloft.ErrNotFound) {
		status = http.StatusNotFound
	}
	a.page(w, r, status, "problem", err.Error())
}

func (a *API) page(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	w.Header().Set("Cross-Origin-Opener-Policy", "same-origin")
	w.WriteHeader(status)
	if err := pages.ExecuteTemplate(w, name, data); err != nil {
		a.Logger.DebugContext(r.Context(), "a page was not delivered", "error", err)
	}
}
