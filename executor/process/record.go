package process

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
	"github.com/aloft-dev/aloft/environment"
)

// record keeps what an environment is, with its whole list of packages, under the digest that every attempt run in it
// carries: enough to tell years later what a result was computed with. It is written once for each digest, before the
// first attempt starts.
func (b *Backend) record(ctx context.Context, env environment.Environment) error {
	b.mu.Lock()
	recorded := b.recorded[env.Digest]
	b.mu.Unlock()
	if recorded || env.Digest == "" {
		return nil
	}
	content, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return fmt.Errorf("encode environment: %w", err)
	}
	// The same packages may be found at another place or for another reason: the latest description is kept.
	if _, err := b.config.Blob.Put(ctx, EnvironmentKey(env.Digest), bytes.NewReader(content), blob.PutOptions{Overwrite: true}); err != nil {
		return aloft.Blame(aloft.ServiceBlob, fmt.Errorf("record environment %s: %w", env.Interpreter, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.recorded == nil {
		b.recorded = map[string]bool{}
	}
	b.recorded[env.Digest] = true
	return nil
}

// EnvironmentKey is where the description of an environment is kept, as JSON.
func EnvironmentKey(digest string) blob.Key {
	return blob.Key("environment/" + strings.TrimPrefix(digest, "sha256:") + ".json")
}
