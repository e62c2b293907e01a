package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// importList is what a zygote says of all that it has imported, flytekit and what was preloaded.
type importList struct {
	Names   []string `json:"names"`   // top-level modules that it found on sys.path, or looked for in vain
	Folders []string `json:"folders"` // where the files of its modules are, and those that site reads
	Files   []string `json:"files"`   // other files that flytekit's import looked at and that were there
	Missing []string `json:"missing"` // and that were not there
	Changed string   `json:"changed"` // a file of a module that is younger than the zygote; empty: none
}

// imports knows when what a zygote has imported is not what a fresh interpreter would import.
type imports struct {
	names   map[string]bool
	changes *changes
	files   []fileStamp // absolute
	local   []string    // relative to the working folder; they were not there
}

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

// watchImports begins to look for changes of what was imported.
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

// stale says what has changed since it was imported; empty: nothing.
func (i *imports) stale() string {
	if path := i.changes.seen(); path != "" {
		return path + " has changed"
	}
	for _, s := range i.files {
		if now := stampOf(s.path); now != s {
			return s.path + " has changed"
		}
	}
	return ""
}

// differ says what a fresh interpreter of an attempt would import otherwise; empty: nothing.
func (i *imports) differ(env map[string]string, workDir string) string {
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

// importable says whether an entry of a folder may be a module: a folder, or a file that Python takes for one.
func importable(entry os.DirEntry, name string) bool {
	rest := strings.TrimPrefix(entry.Name(), name)
	return rest == "" && !entry.Type().IsRegular() || slices.Contains([]string{".py", ".pyc", ".so"}, filepath.Ext(rest))
}
