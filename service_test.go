package aloft_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/aloft-dev/aloft"
)

func TestBlameNamesTheServiceNearestToTheFault(t *testing.T) {
	t.Parallel()
	full := fmt.Errorf("write object x: no space: %w", aloft.ErrUnavailable)
	blamed := fmt.Errorf("keep outputs: %w", aloft.Blame(aloft.ServiceBlob, full))
	again := aloft.Blame(aloft.ServiceDatabase, blamed)
	if service, reason := aloft.ServiceOf(again); service != aloft.ServiceBlob || reason != full.Error() {
		t.Errorf("blamed is %q for %q", service, reason)
	}
	if !errors.Is(again, aloft.ErrUnavailable) {
		t.Error("it is not unavailable any more")
	}
	for _, innocent := range []error{nil, aloft.ErrNotFound, errors.New("a mistake of ours")} {
		if got := aloft.Blame(aloft.ServiceBlob, innocent); got != innocent { //nolint:errorlint // it is to be the very same
			t.Errorf("%v became %v", innocent, got)
		}
	}
}
