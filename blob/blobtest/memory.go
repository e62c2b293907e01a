package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aloft-dev/aloft"
	"github.com/aloft-dev/aloft/blob"
)

// Memory is a blob.Local for simulations: quick, and forgetful. What a fake task writes with WriteInPlace can be read at
// once, but Crash drops it unless it was adopted before. So a simulation finds code that reports outputs before they are durable
// (promise P2). Memory reads no clock: the time of an object is the number of its write.
type Memory struct {
	mu      sync.Mutex
	objects map[blob.Key]memoryObject
	folders map[blob.Key]string // digests of what was below each folder when it was adopted
	writes  int64
}

type memoryObject struct {
	content []byte
	blob.Attributes
	durable bool
}

var _ blob.Local = (*Memory)(nil)

func NewMemory() *Memory {
	return &Memory{objects: map[blob.Key]memoryObject{}, folders: map[blob.Key]string{}}
}

// memoryRoot begins the paths of objects: no such folder exists.
const memoryRoot = "/memory/blob/"

func (m *Memory) object(content []byte, durable bool) memoryObject {
	d := blob.NewDigest()
	d.Write(content)
	m.writes++
	o := memoryObject{content, d.Attributes(), durable}
	o.ModTime = time.Unix(m.writes, 0)
	return o
}

// WriteInPlace writes an object as a task does that writes a file by its path.
func (m *Memory) WriteInPlace(key blob.Key, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[key] = m.object(bytes.Clone(content), false)
}

// Crash is a power cut: objects that were neither put nor adopted are gone.
func (m *Memory) Crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, o := range m.objects {
		if !o.durable {
			delete(m.objects, key)
		}
	}
}

// Durable says whether an object would survive a power cut now.
func (m *Memory) Durable(key blob.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.objects[key].durable
}

// Corrupt changes an object's bytes and leaves its recorded attributes.
func (m *Memory) Corrupt(key blob.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.objects[key]
	o.content = append(bytes.Clone(o.content), '!')
	m.objects[key] = o
}

func (m *Memory) Put(ctx context.Context, key blob.Key, r io.Reader, o blob.PutOptions) (blob.Attributes, error) {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return blob.Attributes{}, err
	}
	var content bytes.Buffer
	for buf := make([]byte, 32<<10); ; {
		if err := ctx.Err(); err != nil {
			return blob.Attributes{}, &blob.ReadError{Err: err}
		}
		n, err := r.Read(buf)
		content.Write(buf[:n])
		if err == io.EOF {
			break
		} else if err != nil {
			return blob.Attributes{}, fmt.Errorf("put object %s: %w", key, &blob.ReadError{Err: err})
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	made := m.object(content.Bytes(), true)
	if err := o.Check(key, made.Attributes); err != nil {
		return blob.Attributes{}, err
	}
	for other := range m.objects {
		if other != key && (other.Within(key) || key.Within(other)) {
			return blob.Attributes{}, fmt.Errorf("put object %s: %w: %s is there, and one cannot be below the other", key, aloft.ErrExists, other)
		}
	}
	old, exists := m.objects[key]
	switch {
	case exists && (o.IfAbsent || (!o.Overwrite && old.SHA256 != made.SHA256)):
		return blob.Attributes{}, fmt.Errorf("put object %s: %w", key, aloft.ErrExists)
	case exists && !o.Overwrite:
		old.durable = true
		made = old
	}
	delete(m.folders, key) // there may have been a folder with this key
	m.objects[key] = made
	return made.Attributes, nil
}

func (m *Memory) find(key blob.Key) (memoryObject, error) {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return memoryObject{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[key]
	if !ok {
		return o, fmt.Errorf("object %s: %w", key, aloft.ErrNotFound)
	}
	return o, nil
}

func (m *Memory) Get(ctx context.Context, key blob.Key, rng blob.Range) (io.ReadCloser, error) {
	if rng.Offset < 0 || rng.Length < 0 {
		return nil, fmt.Errorf("get object %s: %w: negative range", key, aloft.ErrInvalid)
	}
	o, err := m.find(key)
	if err != nil {
		return nil, err
	}
	content := o.content[min(rng.Offset, int64(len(o.content))):]
	if rng.Length > 0 {
		content = content[:min(rng.Length, int64(len(content)))]
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

func (m *Memory) Stat(ctx context.Context, key blob.Key) (blob.Attributes, error) {
	o, err := m.find(key)
	return o.Attributes, err
}

func (m *Memory) Check(ctx context.Context, key blob.Key) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.check(key)
}

// check compares contents, and the files of a folder, with their records.
func (m *Memory) check(key blob.Key) error {
	was, adopted := m.folders[key]
	keys := m.keys(key)
	if len(keys) == 0 && !adopted {
		return fmt.Errorf("object %s: %w", key, aloft.ErrNotFound)
	}
	for _, k := range keys {
		d, o := blob.NewDigest(), m.objects[k]
		d.Write(o.content)
		if d.Attributes().SHA256 != o.SHA256 {
			return fmt.Errorf("object %s was changed: %w", k, aloft.ErrConflict)
		}
	}
	if now, _ := blob.DigestBelow(key, m.below(keys)); adopted && now != was {
		return fmt.Errorf("object %s: a file in it was removed, added or exchanged: %w", key, aloft.ErrConflict)
	}
	return nil
}

func (m *Memory) below(keys []blob.Key) (objects []blob.Object) {
	for _, key := range keys {
		objects = append(objects, blob.Object{Key: key, Attributes: m.objects[key].Attributes})
	}
	return objects
}

func (m *Memory) keys(prefix blob.Key) (keys []blob.Key) {
	for key := range m.objects {
		if key.Within(prefix) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b blob.Key) int {
		return slices.Compare(strings.Split(string(a), "/"), strings.Split(string(b), "/"))
	})
	return keys
}

func (m *Memory) List(ctx context.Context, prefix blob.Key) iter.Seq2[blob.Entry, error] {
	return func(yield func(blob.Entry, error) bool) {
		m.mu.Lock()
		keys := m.keys(prefix)
		m.mu.Unlock()
		for _, key := range keys {
			o, err := m.find(key)
			if errors.Is(err, aloft.ErrNotFound) {
				continue
			}
			if !yield(blob.Entry{Key: key, Size: o.Size, ModTime: o.ModTime}, err) {
				return
			}
		}
	}
}

func (m *Memory) Delete(ctx context.Context, key blob.Key) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

func (m *Memory) Path(key blob.Key) string { return memoryRoot + string(key) }

func (m *Memory) KeyOf(path string) (blob.Key, bool) {
	rest, ok := strings.CutPrefix(path, memoryRoot)
	if !ok {
		return "", false
	}
	key, err := blob.ParseKey(rest)
	return key, err == nil
}

func (m *Memory) Adopt(ctx context.Context, prefix blob.Key) ([]blob.Object, error) {
	if _, err := blob.ParseKey(string(prefix)); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := m.keys(prefix)
	folders := map[blob.Key]bool{}
	for folder := range m.folders { // also adopted folders in which no file is left
		if folder.Within(prefix) {
			folders[folder] = true
		}
	}
	for _, key := range keys {
		o := m.objects[key]
		o.durable = true
		m.objects[key] = o
		for folder := path.Dir(string(key)); blob.Key(folder).Within(prefix); folder = path.Dir(folder) {
			folders[blob.Key(folder)] = true
		}
	}
	for folder := range folders {
		m.folders[folder], _ = blob.DigestBelow(folder, m.below(m.keys(folder)))
	}
	return m.below(keys), nil
}

func (m *Memory) Private(ctx context.Context, key blob.Key, dst string) error {
	if _, err := blob.ParseKey(string(key)); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(key); err != nil {
		return err
	}
	for _, k := range m.keys(key) {
		at := dst + strings.TrimPrefix(string(k), string(key))
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, m.objects[k].content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
