//go:build !linux

package folder

import "os"

func openBeneath(root, key string) (*os.File, error) { return openByParts(root, key) }
