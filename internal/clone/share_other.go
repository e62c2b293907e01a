//go:build !linux

package clone

import "os"

func share(dst, src *os.File) bool { return false }

func NextData(_ *os.File, from, size int64) (start, end int64, err error) { return from, size, nil }
