package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"
)

// A decoder fills a Config, which holds the defaults already, from the tree that the
// TOML library read. It goes on after a problem, so that all are reported at once.
type decoder struct {
	host     Host
	sources  []*source
	places   *places
	problems Problems
	refused  map[path]bool // places whose value was refused, and all around them
	gone     map[path]bool // places whose own value could not be read

	withLength map[path]bool // places of addresses that are written with a length

	certified []string            // names of the certificates in files
	patterns  int                 // regular expressions so far
	overlap   overlap             // what they have in common
	labels    map[string][]string // of the routes and tracks, for messages
	secretRef string              // what stands in the file for cluster.secret
	tags      tags
}

func (d *decoder) report(at position, p path, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.sources[at.file].name, Line: int(at.line), Col: int(at.col), Msg: fmt.Sprintf(format, args...)})
	for q := p; q != root; q = q.parent() {
		d.refused[q] = true
	}
}

// spoilt says whether a value, one inside it or one around it was refused. What is said
// of it then would only repeat that.
func (d *decoder) spoilt(p path) bool {
	if len(d.refused)+len(d.gone) == 0 {
		return false
	}
	if d.refused[p] {
		return true
	}
	for q := p; q != root; q = q.parent() {
		if d.gone[q] {
			return true
		}
	}
	return false
}

// bad reports a value.
func (d *decoder) bad(p path, format string, args ...any) {
	d.report(d.where(p), p, "%s", d.in(p)+fmt.Sprintf(format, args...))
}

// where is the place of a value, or of the nearest table around it that the file has.
func (d *decoder) where(p path) position {
	if at, ok := d.places.get(p); ok {
		return at.value
	}
	for p != root {
		p = p.parent()
		if at, ok := d.places.get(p); ok {
			return at.key
		}
	}
	return position{line: 1, col: 1}
}

// given says whether the file has the key, and nothing was wrong with its value.
func (d *decoder) given(p path) bool {
	_, ok := d.places.get(p)
	return ok && !d.spoilt(p)
}

// unreadable reports a value that is lost.
func (d *decoder) unreadable(p path, format string, args ...any) {
	d.gone[p] = true
	d.bad(p, format, args...)
}

// table fills a struct from a table of the file.
func (d *decoder) table(p path, table map[string]any, dst reflect.Value) {
	in := p.pattern()
	unbuilt := unbuiltKeys(in)
	for _, name := range sortedKeys(table) {
		q := p.key(name)
		if slices.Contains(unbuilt, name) {
			d.report(d.places.at(q).key, q, "key %q%s is not built yet in this version", name, p.inTable())
			continue
		}
		i := d.tags.field(dst.Type(), name)
		if i < 0 {
			d.unknown(q, name, dst.Type())
			continue
		}
		d.value(q, table[name], dst.Field(i))
	}
}

// value fills what dst is, a field or an element, from one value of the file.
func (d *decoder) value(p path, raw any, dst reflect.Value) {
	if why := unbuiltValue(p, raw); why != "" {
		d.report(d.where(p), p, "%s", d.in(p)+why)
		return
	}
	switch v := dst.Addr().Interface().(type) {
	case *time.Duration:
		set(d, p, raw, v, `a duration such as "5s"`, parseDuration)
	case *Size:
		set(d, p, raw, v, `a size such as "10MiB"`, parseSize)
	case *Share:
		set(d, p, raw, v, `a share such as "20%"`, parseShare)
	case *netip.Prefix:
		if s, _ := raw.(string); strings.Contains(s, "/") {
			d.withLength[p] = true
		}
		set(d, p, raw, v, `an address such as "10.0.0.0/8"`, parsePrefix)
	case *netip.Addr:
		set(d, p, raw, v, `an address such as "10.0.0.1"`, parseHostAddr)
	case *netip.AddrPort:
		set(d, p, raw, v, `an address such as "10.0.0.11" or "10.0.0.11:7946"`, parseNodeAddr)
	case *Secret:
		d.secretRef, _ = raw.(string)
		set(d, p, raw, v, `"file:/path" or "env:NAME"`, d.host.secret)
	case *Timing:
		d.timing(p, raw, v)
	case *Preempt:
		d.preempt(p, raw, v)
	case *Command:
		d.command(p, raw, v)
	case *Weight:
		d.weight(p, raw, v)
	case *Access:
		d.access(p, raw, v)
	case *Redirect:
		d.redirect(p, raw, v)
	case *Compress:
		d.compress(p, raw, v)
	case *PoolTLS:
		d.poolTLS(p, raw, v)
	case *Unknown:
		*v = Unknown(fmt.Sprint(raw))
		if *v != "404" && *v != "421" && *v != "close" {
			d.unreadable(p, `needs 404, 421 or "close", not %s`, kindOf(raw))
		}
	default:
		d.kind(p, raw, dst)
	}
}

// kind fills values that need no words of their own.
func (d *decoder) kind(p path, raw any, dst reflect.Value) {
	switch dst.Kind() {
	case reflect.String:
		if s, ok := d.text(p, raw); ok {
			dst.SetString(s)
		}
	case reflect.Bool:
		b, ok := raw.(bool)
		if !ok {
			d.unreadable(p, "needs true or false, not %s", kindOf(raw))
			return
		}
		dst.SetBool(b)
	case reflect.Int:
		n, ok := raw.(int64)
		if !ok || n != int64(int32(n)) {
			d.unreadable(p, "needs a whole number without quotes, not %s", kindOf(raw))
			return
		}
		dst.SetInt(n)
	case reflect.Pointer:
		if dst.IsNil() {
			dst.Set(newDefault(dst.Type()))
		}
		d.value(p, raw, dst.Elem())
	case reflect.Struct:
		table, ok := raw.(map[string]any)
		if !ok {
			d.unreadable(p, "needs a table { }, not %s", kindOf(raw))
			return
		}
		d.table(p, table, dst)
	case reflect.Map:
		if dst.Type().Elem().Kind() == reflect.Pointer {
			d.named(p, raw, dst)
		} else {
			d.words(p, raw, dst)
		}
	case reflect.Slice:
		d.list(p, raw, dst)
	default:
		panic("config: no way to decode a " + dst.Type().String())
	}
}

// named fills a map of named things, such as [pool.*].
func (d *decoder) named(p path, raw any, dst reflect.Value) {
	tables, ok := raw.(map[string]any)
	if !ok {
		d.unreadable(p, "is a set of named tables: write [%s.NAME]", p.last())
		return
	}
	for _, name := range sortedKeys(tables) {
		q := p.key(name)
		table, ok := tables[name].(map[string]any)
		if !ok {
			d.report(d.places.at(q).key, q, "%q in [%s] is not a table: write [%s.NAME] and the keys below it", name, p.last(), p.last())
			continue
		}
		if err := checkName(name); err != nil {
			d.report(d.places.at(q).key, q, "name of [%s.%s]: %v", p.last(), name, err)
			continue
		}
		v := newDefault(dst.Type().Elem())
		v.Elem().FieldByName("Name").SetString(name)
		d.table(q, table, v.Elem())
		dst.SetMapIndex(reflect.ValueOf(name), v)
	}
}

// words fills a map of plain values, whose keys are words of the user: { a = 95, b = 5 }.
func (d *decoder) words(p path, raw any, dst reflect.Value) {
	table, ok := raw.(map[string]any)
	if !ok {
		d.unreadable(p, "needs a table { }, not %s", kindOf(raw))
		return
	}
	out := reflect.MakeMapWithSize(dst.Type(), len(table))
	for _, name := range sortedKeys(table) {
		v := reflect.New(dst.Type().Elem()).Elem()
		d.value(p.key(name), table[name], v)
		out.SetMapIndex(reflect.ValueOf(name), v)
	}
	dst.Set(out)
}

// list fills a slice. What replaces a default list replaces all of it.
func (d *decoder) list(p path, raw any, dst reflect.Value) {
	items, ok := elements(raw)
	if s, single := raw.(string); single && (dst.Type().Elem().Kind() == reflect.String || dst.Type() == reflect.TypeFor[[]netip.Prefix]() || dst.Type() == reflect.TypeFor[[]netip.Addr]()) {
		items, ok = []any{s}, true
		d.places.put(p.at(0), d.places.at(p))
	}
	if !ok {
		d.unreadable(p, "needs a list [ ], not %s", kindOf(raw))
		return
	}
	out := reflect.MakeSlice(dst.Type(), 0, len(items))
	for i, item := range items {
		var v reflect.Value
		switch elem := dst.Type().Elem(); {
		case elem.Kind() == reflect.Pointer:
			v = newDefault(elem)
		case elem == reflect.TypeFor[Server]():
			v = newDefault(reflect.PointerTo(elem))
		default:
			v = reflect.New(elem)
		}
		d.value(p.at(i), item, v.Elem())
		if dst.Type().Elem().Kind() != reflect.Pointer {
			v = v.Elem()
		}
		out = reflect.Append(out, v)
	}
	if len(items) == 0 {
		out = reflect.Zero(dst.Type())
	}
	dst.Set(out)
}

// set reads a value that stands in a string.
func set[T any](d *decoder, p path, raw any, dst *T, needs string, parse func(string) (T, error)) {
	s, ok := raw.(string)
	if !ok {
		d.unreadable(p, "needs %s in quotes, not %s", needs, kindOf(raw))
		return
	}
	v, err := parse(s)
	if err != nil {
		d.unreadable(p, "%v", err)
		return
	}
	*dst = v
}

func (d *decoder) text(p path, raw any) (string, bool) {
	s, ok := raw.(string)
	if !ok {
		d.unreadable(p, "needs a text in quotes, not %s", kindOf(raw))
	}
	return s, ok
}

func (d *decoder) timing(p path, raw any, t *Timing) {
	switch v := raw.(type) {
	case string:
		preset, ok := timingPresets()[v]
		if !ok {
			d.unreadable(p, `%q is no preset: fast, normal, slow, or { heartbeat = "40ms", lease = "240ms", guard = "30ms" }`, v)
			return
		}
		*t = preset
	case map[string]any:
		t.Preset = ""
		d.table(p, v, reflect.ValueOf(t).Elem())
	default:
		d.unreadable(p, "needs a preset (fast, normal, slow) or a table { }, not %s", kindOf(raw))
	}
}

func (d *decoder) preempt(p path, raw any, dst *Preempt) {
	switch v := raw.(type) {
	case bool:
		if v {
			d.unreadable(p, `needs how long the preferred node must be well first, such as "5m", or false`)
		}
	case string:
		after, err := parseDuration(v)
		if err != nil {
			d.unreadable(p, "%v, or false", err)
			return
		}
		*dst = Preempt{On: true, After: after}
	default:
		d.unreadable(p, `needs false or a duration such as "5m", not %s`, kindOf(raw))
	}
}

// command makes a line of the shell a program and its arguments too.
func (d *decoder) command(p path, raw any, dst *Command) {
	if line, ok := raw.(string); ok {
		*dst = nil
		if strings.TrimSpace(line) != "" {
			*dst = Command{"/bin/sh", "-c", line}
		}
		return
	}
	var argv []string
	d.list(p, raw, reflect.ValueOf(&argv).Elem())
	*dst = argv
}

func (d *decoder) weight(p path, raw any, dst *Weight) {
	switch n, ok := raw.(int64); {
	case raw == "veto":
		*dst = Weight{Veto: true}
	case ok && n >= -99 && n <= -1:
		*dst = Weight{Less: int(-n)}
	default:
		d.unreadable(p, `needs a number from -99 to -1, or "veto", not %s`, kindOf(raw))
	}
}

func (d *decoder) access(p path, raw any, a *Access) {
	switch v := raw.(type) {
	case bool:
		a.Off = !v
	case map[string]any:
		d.table(p, v, reflect.ValueOf(a).Elem())
	default:
		d.unreadable(p, `needs false or { format = "json", output = "stdout" }, not %s`, kindOf(raw))
	}
}

func (d *decoder) compress(p path, raw any, c *Compress) {
	switch v := raw.(type) {
	case bool:
		c.Off = !v
	case map[string]any:
		d.table(p, v, reflect.ValueOf(c).Elem())
	default:
		d.unreadable(p, `needs true, false or { types = ["text/*"], min = "1KiB", with = ["zstd", "br", "gzip"] }, not %s`, kindOf(raw))
	}
}

func (d *decoder) poolTLS(p path, raw any, t *PoolTLS) {
	switch v := raw.(type) {
	case bool:
		t.Off = !v
	case map[string]any:
		d.table(p, v, reflect.ValueOf(t).Elem())
	default:
		d.unreadable(p, `needs true, false or { ca = "/etc/proxyd/internal-ca.pem", name = "api.internal" }, not %s`, kindOf(raw))
	}
}

func (d *decoder) redirect(p path, raw any, r *Redirect) {
	switch v := raw.(type) {
	case string:
		r.To = v
		d.places.put(p.key("to"), d.places.at(p))
	case map[string]any:
		d.table(p, v, reflect.ValueOf(r).Elem())
	default:
		d.unreadable(p, `needs "https", an absolute URL or { to, status }, not %s`, kindOf(raw))
	}
}

// newDefault returns a pointer to a new value of a type of the schema, with its
// defaults.
func newDefault(pointer reflect.Type) reflect.Value {
	switch pointer {
	case reflect.TypeFor[*Track]():
		return reflect.ValueOf(defaultTrack())
	case reflect.TypeFor[*VIP]():
		return reflect.ValueOf(defaultVIP())
	case reflect.TypeFor[*Listener]():
		return reflect.ValueOf(defaultListener())
	case reflect.TypeFor[*Cert]():
		return reflect.ValueOf(defaultCert())
	case reflect.TypeFor[*EAB]():
		return reflect.ValueOf(defaultEAB())
	case reflect.TypeFor[*ACMEDNS]():
		return reflect.ValueOf(defaultACMEDNS())
	case reflect.TypeFor[*Pool]():
		return reflect.ValueOf(defaultPool())
	case reflect.TypeFor[*Server]():
		return reflect.ValueOf(defaultServer())
	case reflect.TypeFor[*Check]():
		return reflect.ValueOf(defaultCheck())
	case reflect.TypeFor[*PoolTLS]():
		return reflect.ValueOf(&PoolTLS{Min: "1.2"})
	case reflect.TypeFor[*bool]():
		return reflect.ValueOf(new(bool))
	case reflect.TypeFor[*Route]():
		return reflect.ValueOf(defaultRoute())
	case reflect.TypeFor[*Respond]():
		return reflect.ValueOf(defaultRespond())
	case reflect.TypeFor[*Redirect]():
		return reflect.ValueOf(defaultRedirect())
	case reflect.TypeFor[*Queue]():
		return reflect.ValueOf(defaultQueue())
	case reflect.TypeFor[*Sticky]():
		return reflect.ValueOf(defaultSticky())
	case reflect.TypeFor[*Eject]():
		return reflect.ValueOf(defaultEject())
	case reflect.TypeFor[*Breaker]():
		return reflect.ValueOf(defaultBreaker())
	case reflect.TypeFor[*Policy]():
		return reflect.ValueOf(defaultPolicy())
	case reflect.TypeFor[*Expires]():
		return reflect.ValueOf(defaultExpires())
	case reflect.TypeFor[*Compress]():
		return reflect.ValueOf(defaultCompress())
	case reflect.TypeFor[*Files]():
		return reflect.ValueOf(defaultFiles())
	case reflect.TypeFor[*Mirror]():
		return reflect.ValueOf(defaultMirror())
	case reflect.TypeFor[*Rewrite]():
		return reflect.ValueOf(defaultRewrite())
	case reflect.TypeFor[*Rotate]():
		return reflect.ValueOf(defaultRotate())
	}
	panic("config: no defaults for " + pointer.String())
}

// tags remembers the keys of the schema's structs by their fields; "" is none. To ask the
// type each time takes longer than all the rest.
type tags map[reflect.Type][]string

func (t tags) of(s reflect.Type) []string {
	keys, ok := t[s]
	if !ok {
		for i := range s.NumField() {
			key := s.Field(i).Tag.Get("toml")
			if key == "-" {
				key = ""
			}
			keys = append(keys, key)
		}
		t[s] = keys
	}
	return keys
}

// field returns the place of the field of a struct that a key of the file names, or -1.
func (t tags) field(s reflect.Type, key string) int {
	if key == "" {
		return -1
	}
	return slices.Index(t.of(s), key)
}

// keysOf lists the keys of a struct in the order of the schema.
func keysOf(t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("toml"); key != "" && key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}

// elements returns the members of an array; the library has two forms for them.
func elements(raw any) ([]any, bool) {
	switch v := raw.(type) {
	case []any:
		return v, true
	case []map[string]any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return items, true
	}
	return nil, false
}

// kindOf says what a value of the file is, for a message.
func kindOf(raw any) string {
	switch v := raw.(type) {
	case string:
		return fmt.Sprintf("the text %q", v)
	case bool:
		return fmt.Sprintf("%t", v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func join(words []string) string { return strings.Join(words, ", ") }
