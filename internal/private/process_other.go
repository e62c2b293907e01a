//go:build !linux

package private

// Process does nothing on this system: it shows environment and memory only to root and to debuggers of the same user.
func Process() error { return nil }
