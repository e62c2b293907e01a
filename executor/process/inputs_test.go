package process_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/executor"
	"github.com/aloft-dev/aloft/executor/process"
	"github.com/aloft-dev/aloft/idl/flyteidl/core"
)

func collection(all ...*core.Literal) *core.Literal {
	return &core.Literal{Value: &core.Literal_Collection{Collection: &core.LiteralCollection{Literals: all}}}
}

func text(s string) *core.Literal {
	return scalar(&core.Scalar{Value: &core.Scalar_Primitive{Primitive: &core.Primitive{Value: &core.Primitive_StringValue{StringValue: s}}}})
}

func mapOf(all map[string]*core.Literal) *core.Literal {
	return &core.Literal{Value: &core.Literal_Map{Map: &core.LiteralMap{Literals: all}}}
}

func scalar(s *core.Scalar) *core.Literal {
	return &core.Literal{Value: &core.Literal_Scalar{Scalar: s}}
}

// everyKind is inputs that refer to stored objects in all ways there are.
func (w *world) everyKind(t *testing.T) *core.LiteralMap {
	t.Helper()
	one := w.put(t, "one.txt", strings.NewReader("stored")).URI()
	for _, name := range []string{"dir/a", "dir/deep/er/b"} {
		w.put(t, name, strings.NewReader("stored"))
	}
	dir := "aloft://blob/upload/p/d/x/dir"
	packed := "\x81\xa4path\xd9" + string([]byte{byte(len(one))}) + one
	return &core.LiteralMap{Literals: map[string]*core.Literal{
		"file": file(one), "again": file(one), "dir": file(dir), "slash": file(dir + "/"),
		"list":    collection(file(one), file(dir), collection(file(one))),
		"map":     mapOf(map[string]*core.Literal{"k": file(one)}),
		"union":   scalar(&core.Scalar{Value: &core.Scalar_Union{Union: &core.Union{Value: file(one)}}}),
		"frame":   scalar(&core.Scalar{Value: &core.Scalar_StructuredDataset{StructuredDataset: &core.StructuredDataset{Uri: dir}}}),
		"schema":  scalar(&core.Scalar{Value: &core.Scalar_Schema{Schema: &core.Schema{Uri: dir}}}),
		"text":    text(one),
		"nothing": text("aloft://blob/nothing/there"),
		"literal": {Value: &core.Literal_OffloadedMetadata{OffloadedMetadata: &core.LiteralOffloadedMetadata{Uri: one}}},
		"struct": scalar(&core.Scalar{Value: &core.Scalar_Generic{Generic: &structpb.Struct{Fields: map[string]*structpb.Value{
			"path": structpb.NewStringValue(one), "other": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue(dir)}})}}}}),
		"packed": scalar(&core.Scalar{Value: &core.Scalar_Binary{Binary: &core.Binary{Tag: "msgpack", Value: []byte(packed)}}}),
	}}
}

// uploads is all that is stored of uploads, with modes.
func (w *world) uploads(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for entry, err := range w.blob.List(t.Context(), "upload") {
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(w.blob.Path(entry.Key))
		if err != nil {
			t.Fatal(err)
		}
		all[string(entry.Key)] = fmt.Sprintf("%v %v %s", info.Mode(), info.ModTime(), read(t, w.blob.Path(entry.Key)))
	}
	return all
}

// Nothing that a task does with its inputs changes a stored object.
func TestATaskMayDoWhatItLikesWithItsInputs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inputs := w.everyKind(t)
	before := w.uploads(t)
	const copies = 17 // each reference has its own
	for i, does := range []string{"echo changed >> $f", ": > $f", "rm $f", "mv $f $PWD/mine", "chmod 777 $f; echo changed > $f", "touch -t 200001010000 $f", "ln -f $f $PWD/other; echo changed >> $PWD/other"} {
		b := w.open(t, noPython{}, w.blob)
		job := shell(fmt.Sprintf("a%d", i), "")
		job.Inputs = inputs
		job.Template.GetContainer().Command[2] = fmt.Sprintf(`set -e; test -z "$(grep -a -o %s {{.input}})"; ls %s.in > {{.outputPrefix}}/copies
			find %s.in -type f > $TMPDIR/files; for f in $(cat $TMPDIR/files); do [ -w $f ] && test $(cat $f) = stored; %s; done; rm -rf %s.in/*`,
			filepath.Join(w.data, "blob", "upload"), "$PWD", "$PWD", does, "$PWD")
		if o := w.run(t, b, job); o.GetFailure() != nil {
			t.Errorf("%s: %v", does, o.GetFailure())
		}
		if got := len(strings.Fields(read(t, filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "copies")))); got != copies {
			t.Errorf("%s: it was given %d copies, want %d", does, got, copies)
		}
		if diff := cmp.Diff(before, w.uploads(t)); diff != "" {
			t.Fatalf("%s: what is stored changed (-before +after):\n%s", does, diff)
		}
		if err := b.Forget(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(w.data, "attempts", "*")); len(left) > 0 {
			t.Errorf("%s: after the attempt is forgotten there are %v", does, left)
		}
	}
}

// A task that looks for stored objects finds them, and cannot change them; its own folders it can.
func TestATaskThatGoesLookingForStoredObjectsCannotChangeThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, "one.txt", strings.NewReader("stored"))
	w.put(t, "dir/a", strings.NewReader("stored"))
	before := w.uploads(t)
	b := w.open(t, noPython{}, w.blob)
	saved := shell("a", "mkdir -p {{.checkpointOutputPrefix}} {{.rawOutputDataPrefix}}/x; echo saved > {{.checkpointOutputPrefix}}/_dst_cp; echo made > {{.rawOutputDataPrefix}}/x/made; exit 1")
	if o := w.run(t, b, saved); o.GetFailure() == nil {
		t.Fatal(o)
	}
	if b.Mounts() != "yes" {
		t.Skipf("objects cannot be made read-only here: %s", b.Mounts())
	}
	own := w.blob.Path(blob.Key(saved.ID.RunKey()))
	looks := shell("b", fmt.Sprintf(`cd %s; for f in $(find upload -type f); do chmod 777 $f; echo changed > $f; rm $f; mv $f $f.moved; touch $f; done; rm -r upload run/p raw/*; mkdir new;
		cat %s/_flytecheckpoints/_dst_cp; ls -d %s/_flytecheckpoints; exit 0`, w.blob.Path(""), own, own))
	if o := w.run(t, b, looks); o.GetFailure() != nil {
		t.Errorf("it failed: %v", o.GetFailure())
	}
	if diff := cmp.Diff(before, w.uploads(t)); diff != "" {
		t.Errorf("what is stored changed (-before +after):\n%s", diff)
	}
	for _, path := range []string{own + "/_flytecheckpoints/_dst_cp", w.blob.Path(blob.Key("raw/"+saved.ID.RawOutputKey())) + "/x/made"} {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("what another attempt left: %v", err)
		}
	}
	if err := b.Forget(t.Context(), looks); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.blob.Path(blob.Key("raw/" + looks.ID.RawOutputKey()))); !os.IsNotExist(err) {
		t.Errorf("the folder in which it wrote nothing stays: %v", err)
	}
}

func TestAnInputThatIsReturnedIsTheStoredObjectOnlyWhileItIsAsItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one := w.put(t, "one.txt", strings.NewReader("stored"))
	w.put(t, "dir/a", strings.NewReader("stored"))
	w.put(t, "dir/b", strings.NewReader("stored"))
	const dir = blob.Key("upload/p/d/x/dir")
	for i, test := range []struct {
		does, path string
		want       string // URI; empty: a new object
		content    map[string]string
	}{
		{"true", "{{file}}", one.URI(), nil},
		{"true", "file://{{file}}", one.URI(), nil},
		{"true", "{{dir}}", dir.URI(), nil},
		{"true", "{{dir}}/a", dir.URI() + "/a", nil},
		{"echo -n changed > {{file}}", "{{file}}", "", map[string]string{"": "changed"}},
		{"echo -n changed > {{dir}}/a", "{{dir}}", "", map[string]string{"/a": "changed", "/b": "stored"}},
		{"echo -n new > {{dir}}/new", "{{dir}}", "", map[string]string{"/a": "stored", "/b": "stored", "/new": "new"}},
		{"echo -n new > {{dir}}/new", "{{dir}}/a", dir.URI() + "/a", nil},
		{"echo -n new > {{dir}}/new; rm {{dir}}/a", "{{dir}}", "", map[string]string{"/b": "stored", "/new": "new"}},
		{"rm {{dir}}/a", "{{dir}}", "", map[string]string{"/b": "stored"}},
		{"rm {{dir}}/a; mkdir {{dir}}/a", "{{dir}}", "", map[string]string{"/b": "stored"}},
	} {
		job := shell(fmt.Sprintf("a%d", i), "", "o")
		// Objects are numbered in the order of their keys: 0 is the folder.
		of := strings.NewReplacer("{{dir}}", filepath.Join(w.data, "attempts", process.FolderName("p_d_e_"+string(job.ID.Node)+"_0")+".in", "0-0", "dir"),
			"{{file}}", filepath.Join(w.data, "attempts", process.FolderName("p_d_e_"+string(job.ID.Node)+"_0")+".in", "1-0", "one.txt"))
		job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"file": file(one.URI()), "dir": file(dir.URI())}}
		out := w.outputs(t, map[string]*core.Literal{"o": file(of.Replace(test.path))})
		job.Template.GetContainer().Command[2] = of.Replace("set -e; "+test.does) + "; cp " + out + " {{.outputPrefix}}/outputs.pb"
		o := w.run(t, w.open(t, noPython{}, w.blob), job)
		uri := o.GetOutputs().GetValue().GetLiterals()["o"].GetScalar().GetBlob().GetUri()
		if test.want != "" && uri != test.want {
			t.Errorf("%s, returning %s: got %s, want %s", test.does, test.path, uri, test.want)
		}
		if len(o.GetObjects()) != 1 || o.GetObjects()[0].GetUri() != uri {
			t.Errorf("%s, returning %s: objects %v, want the digest of %s", test.does, test.path, o.GetObjects(), uri)
		}
		if test.want != "" {
			continue
		}
		key, err := blob.ParseURI(uri)
		if err != nil || !key.Within(blob.Key("raw/"+job.ID.RawOutputKey())) {
			t.Errorf("%s, returning %s: got %s, want an output of its own", test.does, test.path, uri)
			continue
		}
		got := map[string]string{}
		for entry := range w.blob.List(t.Context(), key) {
			got[string(entry.Key)[len(key):]] = read(t, w.blob.Path(entry.Key))
		}
		if diff := cmp.Diff(test.content, got); diff != "" {
			t.Errorf("%s, returning %s (-want +got):\n%s", test.does, test.path, diff)
		}
	}
}

func TestAnInputThatIsGoneOrDamagedIsTheSystemsFailureAndNamesIt(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(path string) error{
		"removed": os.Remove,
		"changed": func(path string) error {
			return errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, []byte("overwritten"), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			job := shell("a", "exit 0")
			key := blob.Key("raw/ab/e-n0-0/x/data.txt")
			if _, err := w.blob.Put(t.Context(), key, strings.NewReader("stored"), blob.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"well": integer(1), "in": collection(file(key.URI()))}}
			if err := damage(w.blob.Path(key)); err != nil {
				t.Fatal(err)
			}
			f := w.run(t, w.open(t, noPython{}, w.blob), job).GetFailure()
			if f.GetError().GetKind() != core.ExecutionError_SYSTEM || f.GetError().GetCode() != executor.CodeInputLost || f.GetRecoverable() {
				t.Fatalf("got %v, want a failure of the system that is not tried again", f)
			}
			for _, want := range []string{"input in: what e-n0-0 returned: ", string(key), "aloft recover"} {
				if !strings.Contains(f.GetError().GetMessage(), want) {
					t.Errorf("the failure does not say %q: %s", want, f.GetError().GetMessage())
				}
			}
		})
	}
}

// A string that is a value by itself may be no location. Beside a dataclass that has the same text it says nothing of that one.
func TestAFileOfADataclassIsLostAlsoWhereAStringNamesItToo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	const gone = "aloft://blob/raw/ab/e-n0-0/x/data.txt"
	dataclass := scalar(&core.Scalar{Value: &core.Scalar_Generic{Generic: &structpb.Struct{Fields: map[string]*structpb.Value{"path": structpb.NewStringValue(gone)}}}})
	for name, c := range map[string]struct {
		inputs map[string]*core.Literal
		want   string
	}{
		"text":      {map[string]*core.Literal{"s": text(gone)}, ""},
		"dataclass": {map[string]*core.Literal{"d": dataclass}, executor.CodeInputLost},
		"both":      {map[string]*core.Literal{"d": dataclass, "s": text(gone)}, executor.CodeInputLost},
		"file":      {map[string]*core.Literal{"f": file(gone + "/"), "s": text(gone)}, executor.CodeInputLost},
	} {
		job := shell(name, "exit 0")
		job.Inputs = &core.LiteralMap{Literals: c.inputs}
		if got := w.run(t, b, job).GetFailure().GetError().GetCode(); got != c.want {
			t.Errorf("%s: got code %q, want %q", name, got, c.want)
		}
	}
}

// A folder that lost one of its files is as lost as a file.
func TestAFolderThatLacksAFileIsAnInputThatIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.open(t, noPython{}, w.blob)
	made := shell("a", "", "o")
	out := w.outputs(t, map[string]*core.Literal{"o": file(w.blob.Path(blob.Key("raw/"+made.ID.RawOutputKey())) + "/dir")})
	made.Template.GetContainer().Command[2] = "set -e; d={{.rawOutputDataPrefix}}/dir; mkdir -p $d; echo 1 > $d/1; echo 2 > $d/2; cp " + out + " {{.outputPrefix}}/outputs.pb"
	outputs := w.run(t, b, made).GetOutputs().GetValue()
	if outputs == nil {
		t.Fatal("it returned nothing")
	}
	for _, removed := range []string{"", "2"} {
		job := shell("b"+removed, "ls {{.inputs.o}}")
		job.Inputs = outputs
		if removed != "" {
			if err := os.Remove(filepath.Join(w.blob.Path(blob.Key("raw/"+made.ID.RawOutputKey())), "dir", removed)); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.run(t, b, job).GetFailure().GetError().GetCode(); got != map[string]string{"": "", "2": executor.CodeInputLost}[removed] {
			t.Errorf("removed %q: got code %q", removed, got)
		}
	}
}

// flytekit names a folder that it uploads with one file by the location of that file. A file that is given by the same
// location is a file.
func TestAFolderThatIsNamedByItsOnlyFileIsAFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	given := w.put(t, "only.txt", strings.NewReader("given"))
	job := shell("a", `cd {{.inputs.in}}; ls -A > {{.outputPrefix}}/ls; cat only.txt {{.inputs.file}} {{.inputs.text}} >> {{.outputPrefix}}/ls`)
	in := file(given.URI())
	in.GetScalar().GetBlob().Metadata.Type.Dimensionality = core.BlobType_MULTIPART
	job.Inputs = &core.LiteralMap{Literals: map[string]*core.Literal{"in": in, "file": file(given.URI()), "text": text(given.URI())}}
	if o := w.run(t, w.open(t, noPython{}, w.blob), job); o.GetOutputs() == nil {
		t.Fatalf("outcome %v", o)
	}
	if got, want := read(t, filepath.Join(w.blob.Path(blob.Key(job.ID.RunKey())), "ls")), "only.txt\ngivengivengiven"; got != want {
		t.Errorf("the folder has %q, want %q", got, want)
	}
}
