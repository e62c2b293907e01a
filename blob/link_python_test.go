package blob_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aloft-dev/aloft/blob"
)

// The facts about clients in the doc of blob.Handler, each with a test that fails when a client changes.
func TestLinksOpenInAnUnmodifiedFlytekit(t *testing.T) {
	t.Parallel()
	python := os.Getenv("ALOFT_TEST_PYTHON")
	if python == "" {
		t.Skip("ALOFT_TEST_PYTHON names no Python with flytekit")
	}
	b := newBench(t)
	for key, content := range map[blob.Key]string{
		"raw/file/my file.txt":      "text",
		"raw/file/report.html":      `<html><a href="sub/page">a link</a></html>`,
		"raw/folder/a.txt":          "A",
		"raw/folder/http.log":       "H",
		"raw/folder/odd %41#?&.txt": "O",
		"raw/folder/with space.txt": "S",
		"raw/folder/sub/b.txt":      "B",
		"raw/table.csv/.csv":        "x,y\n1,2\n3,4\n",
	} {
		b.put(t, key, content)
	}
	table := exec.Command(python, "-c", "import pandas, sys; pandas.DataFrame({'x': [1, 2, 3]}).to_parquet(sys.argv[1])", b.store.Path("raw/made.parquet"))
	if out, err := table.CombinedOutput(); err != nil {
		t.Fatalf("make a table: %v\n%s", err, out)
	}
	made, err := os.ReadFile(b.store.Path("raw/made.parquet"))
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, "raw/table/00000", string(made))

	server := httptest.NewServer(b.handler)
	defer server.Close()
	link := func(key blob.Key) string {
		l, err := b.renderer.Link(key.URI(), server.URL, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	native := func(key blob.Key) string {
		n, err := b.renderer.Native(key.URI())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	links, _ := json.Marshal(map[string]any{
		"file": link("raw/file/my file.txt"), "html": link("raw/file/report.html"), "parquet": link("raw/table"),
		"csv": link("raw/table.csv"), "folder": link("raw/folder"),
		"native": []string{native("upload/p/d/AB======/a.txt"), native("upload/p/d/AB======/b.txt")},
	})
	cmd := exec.Command(python, "client.py", string(links))
	cmd.Dir = "testdata"
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("client: %v\n%s", err, stderr.String())
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("client printed %q: %v", out, err)
	}
	download, _ := got["download"].(string)
	delete(got, "download")
	if !strings.Contains(download, "Is a directory") {
		t.Errorf("downloading a whole folder gave %q; if it works now, the doc of Handler should say so", download)
	}
	want := map[string]any{
		"file": "text", "html": `<html><a href="sub/page">a link</a></html>`,
		"parquet": []any{1.0, 2.0, 3.0}, "csv": []any{1.0, 3.0},
		"crawl":   []any{"a.txt", "http.log", "odd %2541%23%3F%26.txt", "sub/b.txt", "with space.txt"},
		"listdir": map[string]any{"a.txt": "A", "http.log": "H", "odd %2541%23%3F%26.txt": "O", "": nil, "with space.txt": "S"},
		"common":  native("upload/p/d/AB======"),
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("%s: got %#v, want %#v", name, got[name], want[name])
		}
	}
}
