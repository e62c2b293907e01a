package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// importList is a zygote's account of all that it has imported: flytekit and the preloaded modules.
type importList struct {
	Names   []string `json:"names"`   // top-level modules that the zygote found on sys.path, or looked for in vain
	Folders []string `json:"folders"` // with the files of imported modules, and with files that Python's site module reads
	Files   []string `json:"files"`   // other files that flytekit's import looked at and that were there
	Missing []string `json:"missing"` // other files that flytekit's import looked for in vain
	Changed string   `json:"changed"` // a file of a module that is younger than the zygote; empty: none
}

// imports are the imports of a zygote, to tell when a fresh interpreter would import something else.
type imports struct {
	names   map[string]bool
	changes *folderWatch
	files   []fileStamp // absolute
	local   []string    // paths relative to the working folder of an attempt; no such file was there
}

// fileStamp is the state of a file, to tell whether the file has changed.
type fileStamp struct {
	path     string
	there    bool
	modified time.Time
	size     int64
}

func stampOf(path string) fileStamp {
	s := fileStamp{path: path}
	if info, err := os.Stat(path); err == nil {
		s.there = true
		if !info.IsDir() {
			s.modified, s.size = info.ModTime(), info.Size()
		}
	}
	return s
}

// watchImports begins to watch the files of a zygote's imports for changes.
func watchImports(list importList) (*imports, error) {
	changes, err := watchFolders(list.Folders)
	if err != nil {
		return nil, err
	}
	i := &imports{names: map[string]bool{}, changes: changes}
	for _, name := range list.Names {
		i.names[name] = true
	}
	for _, path := range slices.Concat(list.Files, list.Missing) {
		if filepath.IsAbs(path) {
			i.files = append(i.files, stampOf(path))
		} else {
			i.local = append(i.local, path)
		}
	}
	if list.Changed != "" {
		changes.note(list.Changed)
	}
	return i, nil
}

func (i *imports) close() {
	if i != nil {
		i.changes.close()
	}
}

// stale says which file has changed since it was imported; empty: none.
func (i *imports) stale() string {
	if path := i.changes.firstChange(); path != "" {
		return path + " has changed"
	}
	for _, s := range i.files {
		if now := stampOf(s.path); now != s {
			return s.path + " has changed"
		}
	}
	return ""
}

// whyDifferent says why a fresh interpreter would import something else for this attempt; empty: it would not.
func (i *imports) whyDifferent(env map[string]string, workDir string) string {
	for _, path := range i.local {
		if stampOf(filepath.Join(workDir, path)).there {
			return fmt.Sprintf("flytekit reads %s in the working folder at its import", path)
		}
	}
	if env["PYTHONPATH"] == "" {
		return ""
	}
	for _, dir := range filepath.SplitList(env["PYTHONPATH"]) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(workDir, dir)
		}
		entries, err := os.ReadDir(dir)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return fmt.Sprintf("what can be imported from %s on PYTHONPATH is not known", dir)
		}
		for _, entry := range entries {
			name, _, _ := strings.Cut(entry.Name(), ".")
			if i.names[name] && importable(entry, name) {
				return fmt.Sprintf("its code has a module %s of its own, which flytekit's import would find first", name)
			}
			if ext := filepath.Ext(entry.Name()); ext == ".dist-info" || ext == ".egg-info" || ext == ".egg" {
				return fmt.Sprintf("%s on PYTHONPATH may have plugins of flytekit", entry.Name())
			}
		}
	}
	return ""
}

// importable says whether an entry of a folder may be a module: a folder, or a file with an ending of Python's.
func importable(entry os.DirEntry, name string) bool {
	rest := strings.TrimPrefix(entry.Name(), name)
	return rest == "" && !entry.Type().IsRegular() || slices.Contains([]string{".py", ".pyc", ".so"}, filepath.Ext(rest))
}
