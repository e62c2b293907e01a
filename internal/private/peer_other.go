//go:build !linux && !darwin

package private

import "os"

// peerUser trusts the modes of socket and folder, which let nobody else in.
func peerUser(int) (int, error) { return os.Geteuid(), nil }
