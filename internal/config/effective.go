package config

import (
	"fmt"
	"iter"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Effective returns the configuration as TOML with every default, secrets as their
// references. Parse of it gives an equal configuration.
func (c *Config) Effective() string {
	var b strings.Builder
	t := tags{}
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		section := v.Type().Field(i).Tag.Get("toml")
		if section == "" || section == "-" {
			continue
		}
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			t.writeTable(&b, "["+section+"]", f, c)
		case reflect.Map:
			for _, name := range sortedMapKeys(f) {
				if !strings.HasPrefix(name, anonymous) {
					t.writeTable(&b, "["+section+"."+bareKey(name)+"]", f.MapIndex(reflect.ValueOf(name)).Elem(), c)
				}
			}
		case reflect.Slice:
			for k := range f.Len() {
				t.writeTable(&b, "[["+section+"]]", f.Index(k).Elem(), c)
			}
		}
	}
	return b.String()
}

func (t tags) writeTable(b *strings.Builder, header string, v reflect.Value, c *Config) {
	fields := slices.Collect(t.fields(v))
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
			text = t.text(f.value)
		}
		fmt.Fprintf(b, "%-*s = %s\n", width, f.key, text)
	}
}

// A field is one key of a table that has something to say.
type field struct {
	key   string
	value reflect.Value
}

// fields yields the fields of a struct in the order of the schema, without those that
// are not given and have no default.
func (t tags) fields(v reflect.Value) iter.Seq[field] {
	return func(yield func(field) bool) {
		for i, key := range t.of(v.Type()) {
			if f := v.Field(i); key != "" && !unset(v, key, f) && !yield(field{key, f}) {
				return
			}
		}
	}
}

// pointer returns one to what f holds. An interface of f itself would be a copy of it each time.
func pointer(f reflect.Value) any {
	if !f.CanAddr() { // of a map
		p := reflect.New(f.Type())
		p.Elem().Set(f)
		f = p.Elem()
	}
	return f.Addr().Interface()
}

// unset says whether a field is left out of a table that lists what is in force.
func unset(table reflect.Value, key string, f reflect.Value) bool {
	switch v := pointer(f).(type) {
	case *string:
		isOff := table.Type() == reflect.TypeFor[Admin]() && key == "listen" || key == "request_id"
		anonymousPool := key == "pool" && strings.HasPrefix(*v, anonymous)
		return *v == "" && !isOff || anonymousPool
	case *Secret:
		return *v == ""
	case *time.Duration:
		return *v == 0 && table.Type() == reflect.TypeFor[Track]()
	case *netip.AddrPort:
		return !v.IsValid()
	case *Headers:
		return f.IsZero()
	case *[]string:
		// The lists that have a default are shown when they are empty.
		return len(*v) == 0 && key != "upgrade" && key != "on" && key != "redact"
	}
	switch f.Kind() {
	case reflect.Pointer:
		return f.IsNil()
	case reflect.Slice, reflect.Map:
		return f.Len() == 0
	}
	return false
}

// text writes a value as TOML.
func (t tags) text(f reflect.Value) string { return string(t.append(nil, f)) }

// append appends a value as TOML.
func (t tags) append(b []byte, f reflect.Value) []byte {
	switch v := pointer(f).(type) {
	case *time.Duration:
		return appendQuoted(b, formatDuration(*v))
	case *Size:
		return appendQuoted(b, v.String())
	case *Share:
		return appendQuoted(b, v.String())
	case *netip.Prefix:
		return appendQuoted(b, v.String())
	case *netip.Addr:
		return appendQuoted(b, v.String())
	case *netip.AddrPort:
		return appendQuoted(b, v.String())
	case *string:
		return appendQuoted(b, *v)
	case *Unknown:
		if *v != "close" {
			return append(b, *v...)
		}
		return appendQuoted(b, string(*v))
	case *Timing:
		if v.Preset != "" {
			return appendQuoted(b, v.Preset)
		}
	case *Preempt:
		if !v.On {
			return append(b, "false"...)
		}
		return appendQuoted(b, formatDuration(v.After))
	case *Weight:
		if v.Veto {
			return appendQuoted(b, "veto")
		}
		return strconv.AppendInt(b, int64(-v.Less), 10)
	case *Access:
		if v.Off {
			return append(b, "false"...)
		}
	case *Compress:
		if v.Off {
			return append(b, "false"...)
		}
	case *PoolTLS:
		if v.Off {
			return append(b, "false"...)
		}
	}
	switch f.Kind() {
	case reflect.Bool:
		return strconv.AppendBool(b, f.Bool())
	case reflect.Int:
		return strconv.AppendInt(b, f.Int(), 10)
	case reflect.Pointer:
		return t.append(b, f.Elem())
	case reflect.Slice:
		return t.appendList(b, f)
	case reflect.Map:
		b = append(b, "{ "...)
		for i, name := range sortedMapKeys(f) {
			b = append(appendComma(b, i), bareKey(name)+" = "...)
			b = t.append(b, f.MapIndex(reflect.ValueOf(name)))
		}
		return append(b, " }"...)
	case reflect.Struct:
		b = append(b, "{ "...)
		i := 0
		for f := range t.fields(f) {
			b = append(appendComma(b, i), f.key+" = "...)
			b = t.append(b, f.value)
			i++
		}
		return append(b, " }"...)
	}
	panic("config: no way to write a " + f.Type().String())
}

// appendComma parts the words of a list.
func appendComma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ", "...)
	}
	return b
}

func (t tags) appendList(b []byte, f reflect.Value) []byte {
	tables := f.Type().Elem().Kind() == reflect.Struct && f.Type() != reflect.TypeFor[[]netip.Prefix]() && f.Type() != reflect.TypeFor[[]netip.Addr]() && f.Type() != reflect.TypeFor[[]netip.AddrPort]()
	b = append(b, '[')
	for i := range f.Len() {
		switch {
		case tables && i > 0:
			b = append(b, ",\n  "...)
		case tables:
			b = append(b, "\n  "...)
		default:
			b = appendComma(b, i)
		}
		b = t.append(b, f.Index(i))
	}
	if tables {
		b = append(b, ",\n"...)
	}
	return append(b, ']')
}

// quote writes a basic string of TOML 1.0.
func quote(s string) string { return string(appendQuoted(nil, s)) }

func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ' || r == 0x7f:
			b = fmt.Appendf(b, `\u%04X`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
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
