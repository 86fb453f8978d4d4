package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A setting is one value of a configuration and its place: "pool.api.check.interval".
type setting struct {
	outer string // the named thing around it: "pool.api" of a server of that pool
	thing string // the thing it belongs to: "pool.api", or a section, or one server
	key   string
	value string
}

// A thing is a section of a configuration, or what has a name in one. Routes and servers
// go by their names, so that a place in the file means nothing.
type thing struct {
	name  string
	value reflect.Value
}

// things yields all of a configuration, in the order of the schema.
func (c *Config) things() iter.Seq[thing] {
	return func(yield func(thing) bool) {
		v := reflect.ValueOf(c).Elem()
		for i := range v.NumField() {
			section, f := v.Type().Field(i).Tag.Get("toml"), v.Field(i)
			if section == "" || section == "-" {
				continue
			}
			switch f.Kind() {
			case reflect.Struct:
				if !yield(thing{section, f}) {
					return
				}
			case reflect.Map:
				for _, name := range sortedMapKeys(f) {
					if strings.HasPrefix(name, anonymous) {
						continue // the route says it all
					}
					if !yield(thing{section + "." + name, f.MapIndex(reflect.ValueOf(name)).Elem()}) {
						return
					}
				}
			case reflect.Slice:
				for k := range f.Len() {
					v := f.Index(k).Elem()
					if !yield(thing{section + "." + nameOf(v), v}) {
						return
					}
				}
			}
		}
	}
}

// nameOf is what a table of an array goes by.
func nameOf(v reflect.Value) string {
	if c, ok := pointer(v).(*Cert); ok {
		return c.Cert
	}
	return v.FieldByName("Name").String()
}

// A listing is the settings of things as text, a line for each: "key\x00value\n". A file may
// have very many, of which most are never looked at by themselves.
type listing struct {
	text   []byte
	lines  []line
	secret string // what cluster.secret is given as
	tags   tags
}

// A line of a listing: where its key, its value and itself end in the text.
type line struct {
	outer, thing    string
	from, key, till int
}

func newListing(c *Config) *listing {
	return &listing{secret: c.Cluster.SecretRef, tags: tags{}}
}

// clear makes room for other things.
func (l *listing) clear() { l.text, l.lines = l.text[:0], l.lines[:0] }

// add lists the settings of a thing, or of a table in it whose keys begin with prefix.
func (l *listing) add(outer, thing, prefix string, v reflect.Value) {
	l.line(outer, thing, prefix, "", reflect.Value{}) // says that the thing is there
	for f := range l.tags.fields(v) {
		value := f.value
		if value.Kind() == reflect.Pointer {
			value = value.Elem()
		}
		switch {
		case value.Type() == reflect.TypeFor[Secret]():
			l.line(outer, thing, prefix, f.key, reflect.ValueOf(l.secret)) // there is one
		case value.Type() == reflect.TypeFor[[]Server]():
			for i := range value.Len() {
				s := value.Index(i)
				server := prefix + "." + f.key + "." + s.FieldByName("Addr").String()
				l.add(thing, server, server, s)
			}
			l.line(outer, thing, prefix, f.key, value)
		case value.Kind() == reflect.Struct && !whole(value):
			l.add(outer, thing, prefix+"."+f.key, value)
		default:
			l.line(outer, thing, prefix, f.key, value)
		}
	}
}

// line lists one setting. Of servers it has the addresses, in their order.
func (l *listing) line(outer, thing, prefix, key string, value reflect.Value) {
	n := line{outer: outer, thing: thing, from: len(l.text)}
	l.text = append(l.text, prefix...)
	if key != "" {
		l.text = append(append(l.text, '.'), key...)
	}
	n.key = len(l.text)
	l.text = append(l.text, 0)
	switch {
	case !value.IsValid():
	case value.Type() == reflect.TypeFor[[]Server]():
		l.text = append(l.text, '[')
		for i := range value.Len() {
			l.text = append(appendComma(l.text, i), value.Index(i).FieldByName("Addr").String()...)
		}
		l.text = append(l.text, ']')
	default:
		l.text = l.tags.append(l.text, value)
	}
	l.text = append(l.text, '\n')
	n.till = len(l.text)
	l.lines = append(l.lines, n)
}

// settings returns what is listed, by itself.
func (l *listing) settings() []setting {
	all := make([]setting, len(l.lines))
	for i, n := range l.lines {
		all[i] = setting{n.outer, n.thing, string(l.text[n.from:n.key]), string(l.text[n.key+1 : n.till-1])}
	}
	return all
}

// whole says whether a struct is one value in the file.
func whole(v reflect.Value) bool {
	switch pointer(v).(type) {
	case *netip.Prefix, *netip.Addr, *netip.AddrPort, *Timing, *Preempt, *Weight, *Access, *Compress, *PoolTLS, *time.Time:
		return true
	}
	return false
}

// hash is 12 hexadecimal digits of a digest over what must be equal on every node of a
// cluster. The secret stays out: nodes that differ in it do not hear each other.
func (c *Config) hash() string {
	l := newListing(c)
	lines := make([][]byte, 0, 16*len(c.Route)) // about as many as there are
	var room []byte
	for t := range c.things() {
		switch t.name {
		case "node", "admin", "log":
			continue
		}
		l.clear()
		l.add("", t.name, t.name, t.value)
		if cap(room)-len(room) < len(l.text) {
			room = make([]byte, 0, max(len(l.text), 256<<10)) // what was there stays in lines
		}
		start := len(room)
		room = append(room, l.text...)
		for _, n := range l.lines {
			switch string(l.text[n.from:n.key]) {
			case "cluster.bind", "cluster.secret", "cluster.witness", "cluster.fence":
				continue
			}
			lines = append(lines, room[start+n.from:start+n.till])
		}
	}
	slices.SortFunc(lines, bytes.Compare)
	sum := sha256.New()
	for _, line := range lines {
		sum.Write(line)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}

// Changes lists what differs between two configurations: a line for each key that has
// another value, and one for each thing that came or went.
func Changes(old, new *Config) []string {
	before, after := different(old, new)
	was, is := byKey(before), byKey(after)
	var lines []string
	for _, s := range before {
		if _, ok := is[s.key]; !ok {
			lines = appendChange(lines, s, is, "removed")
		}
	}
	for _, s := range after {
		value, ok := was[s.key]
		switch {
		case !ok:
			lines = appendChange(lines, s, was, "added")
		case value != s.value:
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", s.key, value, s.value))
		}
	}
	if old.Cluster.Secret != new.Cluster.Secret && old.Cluster.SecretRef == new.Cluster.SecretRef {
		lines = append(lines, "cluster.secret: another text")
	}
	return lines
}

// different returns the settings of the things that are not the same on both sides.
func different(old, new *Config) (before, after []setting) {
	was := map[string]reflect.Value{}
	for t := range old.things() {
		was[t.name] = t.value
	}
	same := map[string]bool{}
	a, b := newListing(old), newListing(new)
	for t := range new.things() {
		b.clear()
		b.add("", t.name, t.name, t.value)
		if v, ok := was[t.name]; ok {
			a.clear()
			a.add("", t.name, t.name, v)
			if same[t.name] = bytes.Equal(a.text, b.text); same[t.name] {
				continue
			}
		}
		after = append(after, b.settings()...)
	}
	for t := range old.things() {
		if !same[t.name] {
			a.clear()
			a.add("", t.name, t.name, t.value)
			before = append(before, a.settings()...)
		}
	}
	return before, after
}

// appendChange adds a line for what only one side has; of a whole thing, one for all.
func appendChange(lines []string, s setting, other map[string]string, how string) []string {
	if _, ok := other[s.thing]; !ok && s.key != s.thing {
		return lines
	}
	if _, ok := other[s.outer]; !ok && s.outer != "" {
		return lines
	}
	if s.value == "" {
		return append(lines, s.key+": "+how)
	}
	return append(lines, fmt.Sprintf("%s: %s %s", s.key, how, s.value))
}

func byKey(all []setting) map[string]string {
	m := make(map[string]string, len(all))
	for _, s := range all {
		m[s.key] = s.value
	}
	return m
}

// Fixed returns what can be put in force of a new configuration while the program runs,
// and a warning for each key that keeps its old value until a restart. Neither argument
// is changed.
func Fixed(old, new *Config) (*Config, []Problem) {
	c := *new
	var warnings []Problem
	keep := func(key string, from, to string) {
		if from != to {
			warnings = append(warnings, Problem{File: new.Name,
				Msg: fmt.Sprintf("warning: %s cannot change while proxyd runs; it stays %q until a restart", key, from)})
		}
	}
	keep("node.name", old.Node.Name, c.Node.Name)
	keep("node.state", old.Node.State, c.Node.State)
	keep("cluster.name", old.Cluster.Name, c.Cluster.Name)
	keep("cluster.bind", addrText(old.Cluster.Bind), addrText(c.Cluster.Bind))
	keep("admin.socket", old.Admin.Socket, c.Admin.Socket)
	c.Node.Name, c.Node.State = old.Node.Name, old.Node.State
	c.Cluster.Name, c.Cluster.Bind = old.Cluster.Name, old.Cluster.Bind
	c.Admin.Socket = old.Admin.Socket
	if c.Cluster.Name != new.Cluster.Name { // of all these, the one that nodes have in common
		c.Hash = c.hash()
	}
	return &c, warnings
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
