package cert

import (
	"io/fs"
	"log/slog"
	"maps"
)

// A Trust is what the files of a configuration say about other sides of TLS: whose word is
// believed of them, and what they are shown of us. It never changes: Look makes another.
type Trust struct {
	roots  map[string]*Roots
	pairs  map[Pair]*Certificate
	faults map[string]fault // by file, of those that have changed and are not good
}

// LoadTrust reads authorities and certificates. Empty names are passed over.
func (d Disk) LoadTrust(roots []string, pairs []Pair) (*Trust, error) {
	t := &Trust{roots: map[string]*Roots{}, pairs: map[Pair]*Certificate{}, faults: map[string]fault{}}
	for _, name := range roots {
		if name == "" || t.roots[name] != nil {
			continue
		}
		r, err := d.LoadRoots(name)
		if err != nil {
			return nil, err
		}
		t.roots[name] = r
	}
	for _, p := range pairs {
		if p.Cert == "" || t.pairs[p] != nil {
			continue
		}
		c, err := d.Load(p)
		if err != nil {
			return nil, err
		}
		t.pairs[p] = c
	}
	return t, nil
}

// Roots returns the authorities of a file that was read; nil of none. A nil Trust has none.
func (t *Trust) Roots(name string) *Roots {
	if t == nil {
		return nil
	}
	return t.roots[name]
}

// Pair is Roots for a certificate.
func (t *Trust) Pair(p Pair) *Certificate {
	if t == nil {
		return nil
	}
	return t.pairs[p]
}

// Empty reports that there is no file.
func (t *Trust) Empty() bool { return len(t.roots)+len(t.pairs) == 0 }

// Look returns t with the files read again that have changed, or t itself. Of a file that
// is not good what was read before stays, and log is told once.
func (d Disk) Look(t *Trust, log *slog.Logger) *Trust {
	next := &Trust{roots: maps.Clone(t.roots), pairs: maps.Clone(t.pairs), faults: maps.Clone(t.faults)}
	changed := false
	look := func(file string, was [2]stamp, load func() error) {
		now := [2]stamp{d.stamp(was[0].name), d.stamp(was[1].name)}
		if same(now, was) {
			delete(next.faults, file)
			return
		}
		if f, known := next.faults[file]; known && same(now, f.stamps) {
			return
		}
		changed = true
		if err := load(); err != nil {
			next.faults[file] = fault{err.Error(), now}
			log.Warn("a changed file is not taken into use, what was in it before serves on", "file", file, "error", err)
			return
		}
		delete(next.faults, file)
		log.Info("a changed file is in use", "file", file)
	}
	for name, r := range t.roots {
		look(name, [2]stamp{r.stamp, r.stamp}, func() error {
			again, err := d.LoadRoots(name)
			if err == nil {
				next.roots[name] = again
			}
			return err
		})
	}
	for p, c := range t.pairs {
		look(p.Cert, c.stamps, func() error {
			again, err := d.Load(p)
			if err == nil {
				next.pairs[p] = again
			}
			return err
		})
	}
	if !changed {
		return t
	}
	return next
}

func (d Disk) stamp(name string) stamp {
	var info fs.FileInfo
	if found, err := d.Stat(name); err == nil {
		info = found
	}
	return stamp{name, info}
}
