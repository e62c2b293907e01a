package environment

import (
	"context"
	"fmt"

	"github.com/aloft-dev/aloft"
)

// Present is the environment that most attempts will run in, if it exists already: Present makes none.
// aloft.ErrNotFound: there is none, or each image may have its own environment.
func (r *Resolver) Present(ctx context.Context) (Environment, error) {
	if r.config.Python != "" {
		return r.Resolve(ctx, Request{})
	}
	for _, path := range r.programs("python3") {
		if e, err := r.describe(ctx, path); err == nil {
			return e.withReason(KindPath, "the first python3 on PATH that has flytekit", imageVersions{}, ""), nil
		}
	}
	return Environment{}, fmt.Errorf("find environment: no python3 on PATH has flytekit: %w", aloft.ErrNotFound)
}
