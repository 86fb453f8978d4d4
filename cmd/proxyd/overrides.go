package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/dataplane/upstream"
	"proxyd/internal/ha/state"
)

// overrideKind is the kind of the shared entries that say what operators want of servers
// and routes.
const overrideKind = "override"

// forgetAfter is how long it is known that an override was taken back: longer than a node
// may be away that still has it.
const forgetAfter = 30 * 24 * time.Hour

// overrides is what operators want of servers and routes. It is kept in the shared state,
// where the last writer wins, and in a file, so that it outlives this process. A disk that
// fails costs the second alone. node.mu guards it.
type overrides struct {
	file   string
	shared *shared
	// dropped are entries whose server or route left the configuration, by the stamp that
	// they had then: they mean nothing any more, even when the name comes back. Other nodes
	// may have another configuration, so this is between a node and its file.
	dropped map[string]state.Stamp
	inForce map[string]bool // by key
	unsaved error           // why the file is not up to date
}

// kept is one entry in the file.
type kept struct {
	Key     string           `json:"key"`
	Value   control.Override `json:"value"`
	Deleted bool             `json:"deleted,omitempty"`
	Expires time.Time        `json:"expires,omitzero"`
	Term    uint64           `json:"term"`
	Seq     uint64           `json:"seq"`
	Node    string           `json:"node"`
	Dropped bool             `json:"dropped,omitempty"`
}

// openOverrides reads what is kept in dir. A file that cannot be read is moved aside; the
// error says so, and what is returned is usable and empty.
func openOverrides(dir string, s *shared) (*overrides, error) {
	o := &overrides{file: filepath.Join(dir, "overrides.json"), shared: s, dropped: map[string]state.Stamp{}, inForce: map[string]bool{}}
	text, err := os.ReadFile(o.file)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	var all []kept
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		aside := o.file + ".bad"
		return o, fmt.Errorf("overrides of an earlier life are lost (the file is moved to %s): %w", aside, errors.Join(err, os.Rename(o.file, aside)))
	}
	var entries []state.Entry
	for _, k := range all {
		e := state.Entry{Kind: overrideKind, Key: k.Key, Deleted: k.Deleted, Expires: k.Expires, Stamp: state.Stamp{Term: k.Term, Seq: k.Seq, Node: k.Node}}
		if !k.Deleted {
			if e.Value, err = json.Marshal(k.Value); err != nil {
				return o, err
			}
		}
		entries = append(entries, e)
		if k.Dropped {
			o.dropped[k.Key] = e.Stamp
		} else {
			o.inForce[k.Key] = !k.Deleted
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store.Merge(entries)
	return o, nil
}

// serverKey and routeKey name entries.
func serverKey(name proxy.ServerName) string {
	return entryKey("server/" + name.Pool + "/" + name.Server)
}
func routeKey(route string) string { return entryKey("route/" + route) }

// entryKey makes a name that is longer than an entry's may be a digest of it; the value
// says whom it is about.
func entryKey(key string) string {
	if len(key) <= state.MaxName {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "sha256/" + hex.EncodeToString(sum[:])
}

// wanted returns every override that is not taken back, for servers and routes that c has,
// by key.
func (o *overrides) wanted(c *config.Config) map[string]control.Override {
	has := map[string]bool{}
	for name, pool := range c.Pool {
		for _, s := range pool.Server {
			has[serverKey(proxy.ServerName{Pool: name, Server: s.Addr})] = true
		}
	}
	for _, r := range c.Route {
		has[routeKey(r.Name)] = true
	}
	out := map[string]control.Override{}
	o.shared.mu.Lock()
	defer o.shared.mu.Unlock()
	for _, e := range o.shared.store.Kind(overrideKind, time.Now()) {
		if stamp, ok := o.dropped[e.Key]; !has[e.Key] || ok && stamp == e.Stamp {
			continue
		}
		var v control.Override
		// What another version wrote and this one cannot read is left out.
		if json.Unmarshal(e.Value, &v) == nil {
			out[e.Key] = v
		}
	}
	return out
}

// drop forgets what was in force and is not in wanted any more because its server or
// route has gone, and returns the keys.
func (o *overrides) drop(wanted map[string]control.Override) []string {
	var gone []string
	o.shared.mu.Lock()
	defer o.shared.mu.Unlock()
	for key, was := range o.inForce {
		if _, still := wanted[key]; still || !was {
			continue
		}
		if e, ok := o.shared.store.Get(overrideKind, key, time.Now()); ok {
			o.dropped[key] = e.Stamp
			gone = append(gone, key)
		}
	}
	o.inForce = map[string]bool{}
	for key := range wanted {
		o.inForce[key] = true
	}
	slices.Sort(gone)
	return gone
}

// put notes an override; one that says nothing is taken back.
func (o *overrides) put(key string, v control.Override) error {
	if v.Mode == "" && v.Weight == 0 && v.Status == 0 {
		return o.shared.remove(0, overrideKind, key, time.Now().Add(forgetAfter))
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return o.shared.put(0, overrideKind, key, text, time.Time{})
}

// save writes the file anew.
func (o *overrides) save() error {
	o.shared.mu.Lock()
	now := time.Now()
	o.shared.store.Expire(now)
	all := []kept{}
	for _, e := range o.shared.store.All() {
		if e.Kind != overrideKind {
			continue
		}
		k := kept{Key: e.Key, Deleted: e.Deleted, Expires: e.Expires, Term: e.Stamp.Term, Seq: e.Stamp.Seq, Node: e.Stamp.Node}
		if stamp, ok := o.dropped[e.Key]; ok {
			k.Dropped = stamp == e.Stamp
		}
		if e.Deleted || json.Unmarshal(e.Value, &k.Value) == nil {
			all = append(all, k)
		}
	}
	o.shared.mu.Unlock()
	text, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = replaceFile(o.file, append(text, '\n'), 0o640)
	}
	if err != nil {
		err = fmt.Errorf("overrides are in force and not kept over a restart: %w", err)
	}
	o.unsaved = err
	return err
}

// replaceFile puts a file in the place of another: at every instant, and after a crash,
// there is the old one or the new one.
func replaceFile(path string, text []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// steering is what the data plane is told.
func steering(wanted map[string]control.Override) proxy.Steering {
	s := proxy.Steering{Servers: map[proxy.ServerName]proxy.ServerOverride{}, Routes: map[string]proxy.Maintenance{}}
	for _, o := range wanted {
		if o.Route != "" {
			s.Routes[o.Route] = proxy.Maintenance{Status: o.Status, RetryAfter: time.Duration(o.RetryAfter) * time.Second, Allow: o.Allow}
			continue
		}
		mode, _ := upstream.ParseMode(o.Mode)
		s.Servers[proxy.ServerName{Pool: o.Pool, Server: o.Server}] = proxy.ServerOverride{Mode: mode, Weight: o.Weight}
	}
	return s
}

// list returns overrides for an operator, servers first.
func list(wanted map[string]control.Override) []control.Override {
	out := []control.Override{}
	for _, o := range wanted {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b control.Override) int {
		return strings.Compare(a.Route+"\x00"+a.Pool+"\x00"+a.Server, b.Route+"\x00"+b.Pool+"\x00"+b.Server)
	})
	return out
}
