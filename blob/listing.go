package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"sort"
)

// DigestBelow is the digest and the size of the object or folder with this key. The digest of a folder is that of its listing: a
// line "<digest> <path below the folder>" for each object. below are the objects at or below the key, in the order of List.
func DigestBelow(key Key, below []Object) (digest string, size int64) {
	if len(below) == 1 && below[0].Key == key {
		return below[0].SHA256, below[0].Size
	}
	hash := sha256.New()
	var line []byte
	for _, o := range below {
		line = append(line[:0], o.SHA256...)
		line = append(line, ' ')
		line = append(line, o.Key.below(key)...)
		line = append(line, '\n')
		hash.Write(line)
		size += o.Size
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil)), size
}

// Below is the part of objects (in the order of List) that is at or below a key: the object itself, or all objects of the folder.
func Below(objects []Object, key Key) []Object {
	first := sort.Search(len(objects), func(i int) bool { return objects[i].Key.compare(key) >= 0 })
	rest := objects[first:]
	n := sort.Search(len(rest), func(i int) bool { return !rest[i].Key.Within(key) })
	return rest[:n:n]
}
