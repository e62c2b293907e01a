//go:build !linux

package worker

// folderWatch is needed only where there are warm workers: on Linux.
type folderWatch struct{}

func watchFolders([]string) (*folderWatch, error) { return &folderWatch{}, nil }

func (*folderWatch) note(string)         {}
func (*folderWatch) firstChange() string { return "" }
func (*folderWatch) close()              {}
