package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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

// settings lists all values of a configuration, in the order of the schema. Routes and
// servers go by their names, so that a place in the file means nothing.
func (c *Config) settings() []setting {
	var all []setting
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		section, f := v.Type().Field(i).Tag.Get("toml"), v.Field(i)
		if section == "" || section == "-" {
			continue
		}
		switch f.Kind() {
		case reflect.Struct:
			all = append(all, tableSettings(section, section, f)...)
		case reflect.Map:
			for _, name := range sortedMapKeys(f) {
				if strings.HasPrefix(name, anonymous) {
					continue // the route says it all
				}
				thing := section + "." + name
				all = append(all, tableSettings(thing, thing, f.MapIndex(reflect.ValueOf(name)).Elem())...)
			}
		case reflect.Slice:
			for k := range f.Len() {
				v := f.Index(k).Elem()
				thing := section + "." + nameOf(v)
				all = append(all, tableSettings(thing, thing, v)...)
			}
		}
	}
	for i := range all {
		if all[i].key == "cluster.secret" {
			all[i].value = quote(c.Cluster.SecretRef)
		}
	}
	return all
}

// nameOf is what a table of an array goes by.
func nameOf(v reflect.Value) string {
	if c, ok := v.Interface().(Cert); ok {
		return c.Cert
	}
	return v.FieldByName("Name").String()
}

func tableSettings(thing, prefix string, v reflect.Value) []setting {
	all := []setting{{thing: thing, key: prefix}} // says that the thing is there
	for _, f := range fieldsOf(v) {
		key, value := prefix+"."+f.key, f.value
		if value.Kind() == reflect.Pointer {
			value = value.Elem()
		}
		switch {
		case value.Type() == reflect.TypeFor[Secret]():
			all = append(all, setting{thing: thing, key: key})
		case value.Type() == reflect.TypeFor[[]Server]():
			order := make([]string, value.Len())
			for i := range order {
				s := value.Index(i)
				order[i] = s.FieldByName("Addr").String()
				server := tableSettings(key+"."+order[i], key+"."+order[i], s)
				for k := range server {
					server[k].outer = thing
				}
				all = append(all, server...)
			}
			all = append(all, setting{thing: thing, key: key, value: "[" + join(order) + "]"})
		case value.Kind() == reflect.Struct && !whole(value):
			all = append(all, tableSettings(thing, key, value)...)
		default:
			all = append(all, setting{thing: thing, key: key, value: valueText(value)})
		}
	}
	return all
}

// whole says whether a struct is one value in the file.
func whole(v reflect.Value) bool {
	switch v.Interface().(type) {
	case netip.Prefix, netip.Addr, netip.AddrPort, Timing, Preempt, Weight, Access, Compress, PoolTLS, time.Time:
		return true
	}
	return false
}

// hash is 12 hexadecimal digits of a digest over what must be equal on every node of a
// cluster. The secret stays out: nodes that differ in it do not hear each other.
func (c *Config) hash() string {
	var lines []string
	for _, s := range c.settings() {
		switch section, _, _ := strings.Cut(s.key, "."); section {
		case "node", "admin", "log":
			continue
		}
		if s.key == "cluster.bind" || s.key == "cluster.secret" || s.key == "cluster.witness" || s.key == "cluster.fence" {
			continue
		}
		lines = append(lines, s.key+"\x00"+s.value+"\n")
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])[:12]
}

// Changes lists what differs between two configurations: a line for each key that has
// another value, and one for each thing that came or went.
func Changes(old, new *Config) []string {
	before, after := old.settings(), new.settings()
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
	c.Hash = c.hash()
	return &c, warnings
}

func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
