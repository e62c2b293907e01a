package process

import (
	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// FolderName is for tests that look into the folder of an attempt.
var FolderName = folderName

// WrittenKey is for tests of attempts that an earlier release has started.
func (b *Backend) WrittenKey(id aloft.AttemptID) blob.Key { return b.writtenKey(id) }
