package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"proxyd/internal/config"
)

// termGap is by how much the term of a restored node is above that of the backup: more than
// any node has used since.
const termGap = 1_000_000

// A Target is where a node is made again.
type Target struct {
	Main    string            // the main file; "": where it was
	State   string            // node.state; "": where it was
	Name    string            // node.name; "": as it was
	Address string            // of the node in cluster.join, in the place of the one it had; "": the same
	Force   bool              // what is there is overwritten
	Secrets map[string][]byte // by their paths; those that are there stay
}

// Restored is what Restore did.
type Restored struct {
	Files   []string // that were written
	Missing []string // secrets that the archive does not have, nor the host
}

// Restore writes the files of a node. Nothing is written if anything is in the way, unless
// it is forced.
func (a *Archive) Restore(t Target) (*Restored, error) {
	if t.Main == "" {
		t.Main = a.Main
	}
	moved := t.State != "" && t.State != a.State
	if t.State == "" {
		t.State = a.State
	}
	files, err := a.files(t, moved)
	if err != nil {
		return nil, err
	}
	r := &Restored{}
	if !t.Force {
		for _, name := range slices.Sorted(maps.Keys(files)) {
			if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("%s is there already; --force overwrites it", name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := write(name, files[name], 0o640); err != nil {
			return r, err
		}
		r.Files = append(r.Files, name)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Secrets)) {
		to := a.place(t, name)
		if _, err := os.Lstat(to); err == nil && !t.Force {
			continue
		}
		if err := write(to, t.Secrets[name], 0o600); err != nil {
			return r, err
		}
		r.Files = append(r.Files, to)
	}
	for _, s := range a.Manifest.Secrets {
		name, isFile := strings.CutPrefix(s.Ref, "file:")
		if _, err := os.Lstat(a.place(t, name)); !isFile || err != nil {
			r.Missing = append(r.Missing, s.Ref)
		}
	}
	return r, nil
}

// place is where a secret goes: where it was, or with the state if it was there.
func (a *Archive) place(t Target, name string) string {
	if within, ok := strings.CutPrefix(name, strings.TrimSuffix(a.State, "/")+"/"); ok {
		return filepath.Join(t.State, within)
	}
	return name
}

// files are all but the secrets, by the places where they are written.
func (a *Archive) files(t Target, moved bool) (map[string][]byte, error) {
	out := map[string][]byte{}
	main := filepath.Base(a.Main)
	for name, text := range a.In(ConfigDir) {
		to := filepath.Join(filepath.Dir(t.Main), filepath.FromSlash(name))
		if name == main {
			to = t.Main
		}
		out[to] = text
	}
	text, there := out[t.Main]
	if !there {
		return nil, fmt.Errorf("backup: it has no %s/%s", ConfigDir, main)
	}
	state := ""
	if moved {
		state = t.State
	}
	if t.Address != "" {
		to, err := netip.ParseAddrPort(t.Address)
		if err != nil {
			return nil, fmt.Errorf("address %q: want ADDRESS:PORT", t.Address)
		}
		from, err := netip.ParseAddrPort(a.Address)
		if err != nil {
			return nil, errors.New("the node of this backup was in no cluster; there is no address to replace")
		}
		changed := false
		for name, text := range out {
			new, err := config.ReplaceVoter(text, from, to)
			if errors.Is(err, config.ErrNoVoter) {
				continue
			} else if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			out[name], changed = new, true
		}
		if !changed {
			return nil, fmt.Errorf("%v is not in cluster.join of this backup", from)
		}
		text = out[t.Main]
	}
	text, err := config.Rehome(text, t.Name, state, t.Address)
	if err != nil {
		return nil, err
	}
	out[t.Main] = text
	for name, text := range a.In(StateDir) {
		if name == "term" {
			term, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("backup: term: %w", err)
			}
			text = []byte(fmt.Sprintln(term + termGap))
		}
		out[filepath.Join(t.State, filepath.FromSlash(name))] = text
	}
	return out, nil
}

func write(name string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".restore-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
