package process

import (
	"context"

	"github.com/aloft-dev/aloft/bundle"
)

// Bundles is Code from a cache of unpacked archives.
type Bundles struct{ Cache *bundle.Cache }

// Copy copies the archive's files. A notebook's archive is the one file pkl.gz, which its resolver opens by that name in
// the working folder.
func (b Bundles) Copy(ctx context.Context, uri, dst string) (omitted []string, err error) {
	dir, err := b.Cache.Open(ctx, uri)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Omitted, dir.PrivateCopy(dst)
}
