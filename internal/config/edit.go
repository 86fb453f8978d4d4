package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// ErrNothing is wrapped by an Edit about a thing that is not there.
var ErrNothing = errors.New("there is no such thing")

// An Edit is one change at run time. Exactly one of its fields is set.
type Edit struct {
	Put    *Snippet // its pools, policies, routes and listeners, each in the place of what has its name
	Add    *NewServer
	Remove *Thing // it is gone, whoever gave it
	Drop   *Thing // what was changed at run time about it is forgotten
	Clear  bool   // all that was changed at run time is forgotten
}

// A Snippet is a text in the language of the configuration.
type Snippet struct{ Name, Text string }

// A NewServer is added to a pool.
type NewServer struct {
	Pool, Addr string
	Weight     int // 0: the default
	Backup     bool
}

// A Thing is a pool, policy, route or listener by its name, or a server by POOL/ADDR.
type Thing struct{ Kind, Name string }

// shown returns t by the name under which it is shown: case means nothing in an address.
func (t Thing) shown() Thing {
	if pool, addr, ok := strings.Cut(t.Name, "/"); ok && t.Kind == "server" {
		t.Name = pool + "/" + shownAddr(addr)
	}
	return t
}

// changesHead begins the file of changes.
const changesHead = `# What was changed at run time, by hactl. proxyd lays it over its configuration file at every
# start and reload: [remove] first, then what follows is added. It may be edited while proxyd
# is stopped, and removed: then the configuration file alone counts.

`

// Edit returns the file of changes as it is after e, and the configuration that is in
// force with it. Nothing is written.
func (t Texts) Edit(e Edit) (text []byte, c *Config, err error) { return thisHost().Edit(t, e) }

// Edit is the method of Texts on a host given by the caller.
func (h Host) Edit(t Texts, e Edit) (text []byte, c *Config, err error) {
	j, err := h.joinBase(t)
	if err != nil {
		return nil, nil, err
	}
	if err := j.readChanges(t); err != nil {
		return nil, nil, err
	}
	over := overlay{base: j.tree, tree: map[string]any{}}
	if j.over != nil && !e.Clear {
		over.tree = j.over.tree
	}
	switch {
	case e.Put != nil:
		err = over.put(h, t, *e.Put)
	case e.Add != nil:
		err = over.addServer(*e.Add)
	case e.Remove != nil:
		err = over.remove(*e.Remove)
	case e.Drop != nil:
		err = over.drop(*e.Drop)
	case !e.Clear:
		err = errors.New("nothing to change is given")
	}
	if err != nil {
		return nil, nil, err
	}
	if t.Changes, err = over.encode(); err != nil {
		return nil, nil, err
	}
	if j, err = h.join(t); err != nil {
		return nil, nil, err
	}
	if e.Remove != nil && e.Remove.Kind == "listener" && len(tableAt(j.tree, "listener")) == 0 {
		return nil, nil, fmt.Errorf("listener %q is the last one; without any, proxyd listens on :80", e.Remove.Name)
	}
	c, err = j.config()
	return t.Changes, c, err
}

// An overlay is a file of changes in the making.
type overlay struct {
	base map[string]any // what it is laid over
	tree map[string]any
}

// put takes the things of a snippet in. Their problems have places in the snippet.
func (o *overlay) put(h Host, t Texts, s Snippet) error {
	j := &joiner{host: h}
	more, err := j.read(s.Name, []byte(s.Text))
	if err != nil {
		return err
	}
	if len(more.tree) == 0 {
		return Problems{{File: s.Name, Line: 1, Col: 1, Msg: "there is nothing in it; write [pool.NAME], [policy.NAME], [[route]] or [listener.NAME]"}}
	}
	for _, kind := range sortedKeys(more.tree) {
		switch things, ok := more.tree[kind].(map[string]any); {
		case !slices.Contains(changeable(), kind):
			j.report(more.places.at(to(kind)).key, "%s cannot be changed at run time; that is for %s", kind, strings.Join(changeable(), ", "))
		case kind == "route":
			routes, _ := elements(more.tree[kind])
			for i, raw := range routes {
				table, _ := raw.(map[string]any)
				name, _ := table["name"].(string)
				if name == "" {
					j.report(more.places.at(to(kind).at(i)).key, "a route that is put needs a name, by which it can be replaced and removed")
					continue
				}
				o.replace(kind, name)
			}
		case ok:
			for name := range things {
				o.replace(kind, name)
			}
		}
	}
	if len(j.problems) > 0 {
		return j.problems.sorted(j.names())
	}
	// The whole as it will be, with the snippet in hand, so that what is wrong with it is
	// said with its place in the snippet.
	if t.Changes, err = o.encode(); err != nil {
		return err
	}
	trial, err := h.join(t)
	if err != nil {
		return err
	}
	laid, err := trial.read(s.Name, []byte(s.Text))
	if err != nil {
		return err
	}
	trial.layOver(laid)
	if _, err := trial.config(); err != nil {
		return err
	}
	for kind, things := range more.tree {
		if kind == "route" {
			have, _ := elements(o.tree[kind])
			routes, _ := elements(things)
			o.tree[kind] = slices.Concat(have, routes)
			continue
		}
		named, _ := things.(map[string]any)
		for name, thing := range named {
			o.table(kind)[name] = thing
		}
	}
	return nil
}

// replace makes room for a thing of that name.
func (o *overlay) replace(kind, name string) {
	o.forget(kind, name)
	if o.baseHas(kind, name) {
		o.note(kind, name)
	}
}

func (o *overlay) addServer(s NewServer) error {
	s.Addr = shownAddr(s.Addr)
	mine := tableAt(o.tree, "pool", s.Pool)
	inFile := o.baseHas("pool", s.Pool) && !o.noted("pool", s.Pool)
	if mine == nil && !inFile {
		return fmt.Errorf("pool %q: %w", s.Pool, ErrNothing)
	}
	name := s.Pool + "/" + s.Addr
	plain := s.Weight == 0 && !s.Backup
	removed := o.noted("server", name)
	if removed && plain && inFile {
		o.unnote("server", name)
		return nil
	}
	if inFile && o.baseHas("server", name) && !removed || has(mine, s.Addr) {
		return fmt.Errorf("pool %q has the server %s already", s.Pool, s.Addr)
	}
	if mine == nil {
		mine = map[string]any{}
		o.table("pool")[s.Pool] = mine
	}
	server := map[string]any{"addr": s.Addr}
	if s.Weight != 0 {
		server["weight"] = int64(s.Weight)
	}
	if s.Backup {
		server["backup"] = true
	}
	list, _ := elements(mine["server"])
	mine["server"] = slices.Concat(list, []any{server})
	return nil
}

func (o *overlay) remove(t Thing) error {
	t = t.shown()
	if t.Kind != "server" && !slices.Contains(changeable(), t.Kind) {
		return fmt.Errorf("%s cannot be removed at run time; that is for server, %s", t.Kind, strings.Join(changeable(), ", "))
	}
	dropped := o.forget(t.Kind, t.Name)
	inFile := o.baseHas(t.Kind, t.Name) && !o.noted(t.Kind, t.Name)
	if inFile {
		o.note(t.Kind, t.Name)
	}
	if !dropped && !inFile {
		return fmt.Errorf("%s %q: %w", t.Kind, t.Name, ErrNothing)
	}
	return nil
}

func (o *overlay) drop(t Thing) error {
	t = t.shown()
	noted := o.noted(t.Kind, t.Name)
	o.unnote(t.Kind, t.Name)
	if !o.forget(t.Kind, t.Name) && !noted {
		return fmt.Errorf("%s %q was not changed at run time: %w", t.Kind, t.Name, ErrNothing)
	}
	return nil
}

// forget drops what the overlay adds under a name, and reports whether there was any.
func (o *overlay) forget(kind, name string) bool {
	j := joiner{tree: o.tree, places: newPlaces()}
	return j.removeOne(kind, name)
}

// baseHas reports whether what the overlay is laid over has a thing.
func (o *overlay) baseHas(kind, name string) bool {
	switch kind {
	case "route":
		routes, _ := elements(o.base["route"])
		return slices.Contains(routeNames(routes), name)
	case "server":
		pool, addr, _ := strings.Cut(name, "/")
		return has(tableAt(o.base, "pool", pool), shownAddr(addr))
	}
	_, ok := tableAt(o.base, kind)[name]
	return ok
}

// has reports whether the table of a pool has a server.
func has(pool map[string]any, addr string) bool {
	if text, single := pool["servers"].(string); single {
		return shownAddr(text) == addr
	}
	for _, key := range []string{"servers", "server"} {
		list, _ := elements(pool[key])
		for _, e := range list {
			if serverAddr(e) == addr {
				return true
			}
		}
	}
	return false
}

// note, noted and unnote are about the lists of [remove].
func (o *overlay) note(kind, name string) {
	if !o.noted(kind, name) {
		list, _ := elements(o.table("remove")[kind])
		o.table("remove")[kind] = slices.Concat(list, []any{name})
	}
}

func (o *overlay) noted(kind, name string) bool {
	list, _ := elements(tableAt(o.tree, "remove")[kind])
	return slices.Contains(list, any(name))
}

func (o *overlay) unnote(kind, name string) {
	if o.noted(kind, name) {
		list, _ := elements(o.table("remove")[kind])
		o.table("remove")[kind] = slices.DeleteFunc(slices.Clone(list), func(e any) bool { return e == name })
	}
}

// table returns a table of the overlay, made if need be.
func (o *overlay) table(key string) map[string]any {
	t, ok := o.tree[key].(map[string]any)
	if !ok {
		t = map[string]any{}
		o.tree[key] = t
	}
	return t
}

// encode writes the overlay, without what is empty.
func (o *overlay) encode() ([]byte, error) {
	out := map[string]any{}
	for key, v := range o.tree {
		switch v := v.(type) {
		case map[string]any:
			full := map[string]any{}
			for name, thing := range v {
				list, isList := elements(thing)
				table, isTable := thing.(map[string]any)
				switch only := len(table) == 0; {
				case isList && len(list) == 0:
				case isTable && only && key == "pool" && o.baseHas(key, name) && !o.noted(key, name):
				default:
					full[name] = thing
				}
			}
			if len(full) > 0 {
				out[key] = full
			}
		default:
			list, ok := elements(v)
			if !ok {
				out[key] = v
				continue
			}
			tables := make([]map[string]any, 0, len(list))
			for _, e := range list {
				if table, ok := e.(map[string]any); ok {
					tables = append(tables, table)
				}
			}
			if len(tables) > 0 {
				out[key] = tables
			}
		}
	}
	b := bytes.NewBufferString(changesHead)
	e := toml.NewEncoder(b)
	e.Indent = ""
	if err := e.Encode(out); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
