package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"sort"
)

// DigestBelow is the digest and the size of what a URI with this key means: an object's own, or for a folder the digest of its
// listing ("<digest> <path below the folder>" and a line feed, for each) and the bytes of all. below are the objects there, in
// the order of List.
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

// Below is the part of objects, which are in the order of List, that a URI with this key means: the object itself, or all that
// are below the folder.
func Below(objects []Object, key Key) []Object {
	first := sort.Search(len(objects), func(i int) bool { return objects[i].Key.compare(key) >= 0 })
	rest := objects[first:]
	n := sort.Search(len(rest), func(i int) bool { return !rest[i].Key.Within(key) })
	return rest[:n:n]
}
