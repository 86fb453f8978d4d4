package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"time"
)

// Effective returns the configuration as TOML with every default, secrets as their
// references. Parse of it gives an equal configuration.
func (c *Config) Effective() string {
	var b strings.Builder
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		section := v.Type().Field(i).Tag.Get("toml")
		if section == "" || section == "-" {
			continue
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			writeTable(&b, "["+section+"]", f, c)
		case reflect.Map:
			for _, name := range sortedMapKeys(f) {
				if !strings.HasPrefix(name, anonymous) {
					writeTable(&b, "["+section+"."+bareKey(name)+"]", f.MapIndex(reflect.ValueOf(name)).Elem(), c)
				}
			}
		case reflect.Slice:
			for k := range f.Len() {
				writeTable(&b, "[["+section+"]]", f.Index(k).Elem(), c)
			}
		}
	}
	return b.String()
}

func writeTable(b *strings.Builder, header string, v reflect.Value, c *Config) {
	fields := fieldsOf(v)
	if len(fields) == 0 {
		return // [acme] of a file that has none
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	b.WriteString(header + "\n")
	width := 0
	for _, f := range fields {
		width = max(width, len(f.key))
	}
	for _, f := range fields {
		text := quote(c.Cluster.SecretRef)
		if f.value.Type() != reflect.TypeFor[Secret]() {
			text = valueText(f.value)
		}
		fmt.Fprintf(b, "%-*s = %s\n", width, f.key, text)
	}
}

// A field is one key of a table that has something to say.
type field struct {
	key   string
	value reflect.Value
}

// fieldsOf lists the fields of a struct in the order of the schema, without those that
// are not given and have no default.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		key, f := v.Type().Field(i).Tag.Get("toml"), v.Field(i)
		if key == "" || key == "-" || unset(v, key, f) {
			continue
		}
		fields = append(fields, field{key, f})
	}
	return fields
}

// unset says whether a field is left out of a table that lists what is in force.
func unset(table reflect.Value, key string, f reflect.Value) bool {
	switch v := f.Interface().(type) {
	case string:
		isOff := table.Type() == reflect.TypeFor[Admin]() && key == "listen" || key == "request_id"
		anonymousPool := key == "pool" && strings.HasPrefix(v, anonymous)
		return v == "" && !isOff || anonymousPool
	case Secret:
		return v == ""
	case time.Duration:
		return v == 0 && table.Type() == reflect.TypeFor[Track]()
	case netip.AddrPort:
		return !v.IsValid()
	case Headers:
		return f.IsZero()
	case []string:
		// The lists that have a default are shown when they are empty.
		return len(v) == 0 && key != "upgrade" && key != "on" && key != "redact"
	}
	switch f.Kind() {
	case reflect.Pointer:
		return f.IsNil()
	case reflect.Slice, reflect.Map:
		return f.Len() == 0
	}
	return false
}

// valueText writes a value as TOML.
func valueText(f reflect.Value) string {
	switch v := f.Interface().(type) {
	case time.Duration:
		return quote(formatDuration(v))
	case Size, Share, netip.Prefix, netip.Addr, netip.AddrPort:
		return quote(fmt.Sprint(v))
	case string:
		return quote(v)
	case Unknown:
		if v != "close" {
			return string(v)
		}
		return quote(string(v))
	case Timing:
		if v.Preset != "" {
			return quote(v.Preset)
		}
	case Preempt:
		if !v.On {
			return "false"
		}
		return quote(formatDuration(v.After))
	case Weight:
		if v.Veto {
			return quote("veto")
		}
		return fmt.Sprint(-v.Less)
	case Access:
		if v.Off {
			return "false"
		}
	case Compress:
		if v.Off {
			return "false"
		}
	case PoolTLS:
		if v.Off {
			return "false"
		}
	}
	switch f.Kind() {
	case reflect.Bool, reflect.Int:
		return fmt.Sprint(f.Interface())
	case reflect.Pointer:
		return valueText(f.Elem())
	case reflect.Slice:
		return listText(f)
	case reflect.Map:
		words := []string{}
		for _, name := range sortedMapKeys(f) {
			words = append(words, bareKey(name)+" = "+valueText(f.MapIndex(reflect.ValueOf(name))))
		}
		return "{ " + join(words) + " }"
	case reflect.Struct:
		words := []string{}
		for _, f := range fieldsOf(f) {
			words = append(words, f.key+" = "+valueText(f.value))
		}
		return "{ " + join(words) + " }"
	}
	panic("config: no way to write a " + f.Type().String())
}

func listText(f reflect.Value) string {
	words := make([]string, f.Len())
	for i := range words {
		words[i] = valueText(f.Index(i))
	}
	if f.Type().Elem().Kind() == reflect.Struct && f.Type() != reflect.TypeFor[[]netip.Prefix]() && f.Type() != reflect.TypeFor[[]netip.Addr]() && f.Type() != reflect.TypeFor[[]netip.AddrPort]() {
		return "[\n  " + strings.Join(words, ",\n  ") + ",\n]"
	}
	return "[" + join(words) + "]"
}

// quote writes a basic string of TOML 1.0.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// bareKey writes a name as a key; names with a dot need quotes.
func bareKey(name string) string {
	for i := range len(name) {
		if !bareByte(name[i]) {
			return quote(name)
		}
	}
	return name
}

func sortedMapKeys(m reflect.Value) []string {
	names := make(map[string]bool, m.Len())
	for _, k := range m.MapKeys() {
		names[k.String()] = true
	}
	return sortedKeys(names)
}
