package cli

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	aloftv1 "github.com/aloft-dev/aloft/idl/aloft/v1"
)

func TestDoctorSaysOfPythonWhatTheServerKnows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		info     *aloftv1.GetServerInfoResponse
		want     string
		problems int
	}{
		{&aloftv1.GetServerInfoResponse{Python: "/opt/python3"}, "ok    python: the server runs tasks with /opt/python3", 0},
		{&aloftv1.GetServerInfoResponse{PythonProblem: "/opt/python3 has no flytekit"}, "TO DO python: /opt/python3 has no flytekit", 1},
		{&aloftv1.GetServerInfoResponse{Version: "v1"}, "note  python: no python3 on the server's PATH has flytekit: the first task of an image has an environment made, which takes minutes; or name one with `aloft serve --python PATH`", 0},
		{&aloftv1.GetServerInfoResponse{Environments: []*aloftv1.EnvironmentInfo{{}}, Python: "/opt/python3"}, "", 0},
	} {
		var out bytes.Buffer
		d := &diagnosis{out: &out}
		d.python(t.Context(), c.info)
		if got := strings.TrimSpace(out.String()); got != c.want || d.problems != c.problems {
			t.Errorf("%v: %q with %d problems, want %q", c.info, got, d.problems, c.want)
		}
	}
}

func TestDoctorSaysWhichServiceIsAwayAlsoWhereTheDatabaseCountsNothing(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := &diagnosis{out: &out}
	d.server(&client{}, &aloftv1.GetServerInfoResponse{
		Remains: []string{"the folder x cannot be removed"}, Database: "sqlite x", Away: []*aloftv1.ServiceInfo{{Name: "the database", AwaySince: timestamppb.Now(), Reason: "its disk has not answered for 30s"}},
	}, nil)
	if !strings.Contains(out.String(), "TO DO the database is away since") || strings.Contains(out.String(), "0 executions") || strings.Contains(out.String(), "no executor") || d.problems != 2 || !strings.Contains(out.String(), "TO DO left over: the folder x cannot be removed") {
		t.Errorf("it says, with %d problems:\n%s", d.problems, &out)
	}
}
