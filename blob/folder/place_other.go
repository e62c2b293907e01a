//go:build !linux

package folder

func ofTheKernel(string) bool { return false }
