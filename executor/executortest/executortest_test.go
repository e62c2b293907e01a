package executortest_test

import (
	"testing"

	"github.com/aloft-dev/aloft/executor/executortest"
)

func TestTheBackEndInMemoryIsABackEnd(t *testing.T) {
	t.Parallel()
	executortest.Run(t, func(*testing.T) executortest.World { return executortest.NewMemory() })
}
