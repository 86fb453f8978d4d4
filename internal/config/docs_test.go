package config

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDocsAreFresh holds docs/CONFIG.md to the schema's comments and the defaults;
// with -update it writes the file.
func TestDocsAreFresh(t *testing.T) {
	golden(t, "../../docs/CONFIG.md", string(mustRead("testdata/CONFIG.head.md"))+documentKeys(t)+documentUnbuilt())
}

func TestExamplesAreValid(t *testing.T) {
	for _, name := range glob(t, "../../docs/examples/*.toml") {
		c, err := testHost().Parse(name, mustRead(name))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, w := range c.Warnings {
			t.Errorf("%v", w)
		}
	}
}

// Each example in the text of the documentation is a valid file of its own, a part of one
// that lacks its routes or all that they refer to, or a file of changes.
func TestExamplesInDocsAreValid(t *testing.T) {
	n := 0
	for _, name := range append(glob(t, "../../docs/*.md"), "../../README.md") {
		text := string(mustRead(name))
		for at := 0; ; {
			begin := strings.Index(text[at:], "```toml")
			if begin < 0 {
				break
			}
			begin += at
			begin += strings.IndexByte(text[begin:], '\n') + 1
			end := begin + strings.Index(text[begin:], "```")
			at = end + len("```")
			n++
			for _, p := range problemsOf(text[begin:end]) {
				t.Errorf("%s:%d: %s", name, strings.Count(text[:begin], "\n")+p.Line, p.Msg)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d examples found", n)
	}
}

// problemsOf returns what is wrong with an example, and what it is warned of.
func problemsOf(example string) (left Problems) {
	h := testHost()
	c, err := h.Parse("example", []byte(example))
	if strings.Contains(example, "[remove]") {
		const base = "node.state = \"/state\"\n[pool.web]\nservers = [\"10.0.1.5:8080\", \"10.0.1.6:8080\"]\n[[route]]\nname = \"old\"\npool = \"web\"\n[[route]]\nhost = \"h\"\npool = \"web\"\n"
		c, err = h.Load(Texts{Main: "main", Text: []byte(base), Changes: []byte(example)})
	}
	problems, ok := err.(Problems)
	switch {
	case err == nil:
		problems = c.Warnings
	case !ok:
		return Problems{{Msg: err.Error()}}
	}
	for _, p := range problems {
		refers := strings.HasSuffix(p.Msg, "(defined: )") || strings.Contains(p.Msg, "there is no [pool.*]")
		routeless := strings.Contains(p.Msg, "at least one [[route]] is needed") || strings.HasSuffix(p.Msg, "is used by no route") && !strings.Contains(example, "[[route]]")
		if !refers && !routeless {
			left = append(left, p)
		}
	}
	return left
}

// The example with every key must have every key.
func TestFullExampleIsFull(t *testing.T) {
	text := string(mustRead("../../docs/examples/full.toml"))
	var missing func(t reflect.Type) []string
	missing = func(typ reflect.Type) (keys []string) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return nil
		}
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("toml")
			if key == "" || key == "-" {
				continue
			}
			if !strings.Contains(text, key+" ") && !strings.Contains(text, "["+key) {
				keys = append(keys, typ.Name()+"."+key)
			}
			keys = append(keys, missing(typ.Field(i).Type)...)
		}
		return keys
	}
	if keys := missing(reflect.TypeFor[Config]()); len(keys) > 0 {
		t.Errorf("docs/examples/full.toml lacks %v", keys)
	}
}

// A key is built or it is not.
func TestNoKeyIsBothBuiltAndUnbuilt(t *testing.T) {
	var walk func(p path, typ reflect.Type)
	walk = func(p path, typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() == reflect.Map {
			p, typ = p.key("x"), typ.Elem()
			for typ.Kind() == reflect.Pointer {
				typ = typ.Elem()
			}
		}
		if p != root && slices.Contains(unbuiltKeys(p.parent().pattern()), p.last()) {
			t.Errorf("%s is in the schema and in unbuilt.go", p.pattern())
		}
		if typ.Kind() == reflect.Struct {
			for i := range typ.NumField() {
				if key := typ.Field(i).Tag.Get("toml"); key != "" && key != "-" {
					walk(p.key(key), typ.Field(i).Type)
				}
			}
		}
	}
	walk(root, reflect.TypeFor[Config]())
}

// documentKeys writes a table for each section.
func documentKeys(t *testing.T) string {
	comments := schemaComments(t)
	defaults := reflect.ValueOf(defaultConfig()).Elem()
	var b strings.Builder
	for i := range defaults.NumField() {
		section, v := defaults.Type().Field(i).Tag.Get("toml"), defaults.Field(i)
		header := "[" + section + "]"
		switch {
		case section == "" || section == "-":
			continue
		case v.Kind() == reflect.Map: // of named tables: the sections have no other
			header, v = "["+section+".NAME]", newDefault(v.Type().Elem()).Elem()
		case v.Kind() == reflect.Slice:
			header, v = "[["+section+"]]", newDefault(v.Type().Elem()).Elem()
		}
		typ := v.Type().Name()
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| key | value | default | |\n|---|---|---|---|\n", header, strings.TrimSpace(comments[typ]))
		documentTable(t, &b, comments, "", v)
	}
	return b.String()
}

func documentTable(t *testing.T, b *strings.Builder, comments map[string]string, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		key := f.Tag.Get("toml")
		if key == "" || key == "-" {
			continue
		}
		text := comments[v.Type().Name()+"."+f.Name]
		if text == "" {
			t.Errorf("%s.%s has no comment", v.Type().Name(), f.Name)
		}
		// What the comment says of the Go field alone is not the operator's affair.
		for _, goOnly := range []string{"; here the text itself", "; Parse moves them into Server", "; of To: the anonymous pool", "; nil: none"} {
			text = strings.TrimSuffix(text, goOnly)
		}
		text = strings.ReplaceAll(text, "|", "\\|")
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, key, valueKind(f.Type), defaultText(v, key, v.Field(i)), text)
		switch inner := v.Field(i); {
		case f.Type == reflect.TypeFor[Preempt]() || f.Type == reflect.TypeFor[Weight]() || f.Type == reflect.TypeFor[netip.Prefix]() || f.Type == reflect.TypeFor[netip.AddrPort]():
		case f.Type == reflect.TypeFor[[]Server]():
			documentTable(t, b, comments, prefix+key+"[].", reflect.ValueOf(*defaultServer()))
		case f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct:
			documentTable(t, b, comments, prefix+key+".", newDefault(f.Type).Elem())
		case f.Type.Kind() == reflect.Struct:
			documentTable(t, b, comments, prefix+key+".", inner)
		}
	}
}

// defaultText is what a key has when the file does not give it.
func defaultText(table reflect.Value, key string, v reflect.Value) string {
	if unset(table, key, v) {
		return "-"
	}
	switch x := v.Interface().(type) {
	case netip.Prefix:
		return "-"
	case Timing:
		return "`" + quote(x.Preset) + "`"
	case Preempt:
		return "`false`"
	case Weight:
		return "`" + tags{}.text(v) + "`"
	}
	if v.Kind() == reflect.Struct {
		return "as below"
	}
	return "`" + tags{}.text(v) + "`"
}

// valueKind is what stands to the right of the equals sign.
func valueKind(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Share]():
		return "share"
	case reflect.TypeFor[netip.Prefix]():
		return "address"
	case reflect.TypeFor[[]netip.Prefix](), reflect.TypeFor[[]netip.Addr](), reflect.TypeFor[[]netip.AddrPort]():
		return "list of addresses"
	case reflect.TypeFor[netip.AddrPort]():
		return "address"
	case reflect.TypeFor[Secret]():
		return "reference"
	case reflect.TypeFor[Timing]():
		return "preset or table"
	case reflect.TypeFor[Preempt]():
		return "false or duration"
	case reflect.TypeFor[Command]():
		return "text or list"
	case reflect.TypeFor[Weight]():
		return "number or \"veto\""
	case reflect.TypeFor[Access]():
		return "false or table"
	case reflect.TypeFor[*Compress](), reflect.TypeFor[*PoolTLS]():
		return "true, false or table"
	case reflect.TypeFor[*Redirect]():
		return "text or table"
	case reflect.TypeFor[[]string]():
		return "text or list"
	case reflect.TypeFor[[]Server]():
		return "list of tables"
	}
	switch t.Kind() {
	case reflect.Pointer:
		if t.Elem().Kind() == reflect.Bool {
			return "true or false"
		}
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "number"
	case reflect.Map:
		return "table of " + valueKind(t.Elem()) + "s"
	}
	return "table"
}

// documentUnbuilt lists what is refused by name.
func documentUnbuilt() string {
	var b strings.Builder
	b.WriteString("\n# Not built yet\n\nThese keys are part of the schema and refused by this version.\n\n| table | keys |\n|---|---|\n")
	for _, table := range []string{"", "node", "cluster", "vip.*", "listener.*", "pool.*", "pool.*.server", "pool.*.check", "pool.*.retry", "policy.*", "route", "admin", "trace"} {
		if len(unbuiltKeys(table)) == 0 {
			continue
		}
		header := "[" + strings.ReplaceAll(table, "*", "NAME") + "]"
		switch table {
		case "":
			header = "top level"
		case "route":
			header = "[[route]]"
		}
		fmt.Fprintf(&b, "| %s | `%s` |\n", header, strings.Join(unbuiltKeys(table), "` `"))
	}
	b.WriteString("\nValues not built yet: lists from a file; servers on Unix sockets.\n")
	return b.String()
}

// schemaComments reads the comments of schema.go: of types by "Type", of fields by
// "Type.Field".
func schemaComments(t *testing.T) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), "schema.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	comments := map[string]string{}
	for _, decl := range file.Decls {
		gen, ok := decl.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		for _, spec := range gen.Specs {
			typ := spec.(*ast.TypeSpec)
			comments[typ.Name.Name] = strings.ReplaceAll(gen.Doc.Text(), "\n", " ")
			fields, ok := typ.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, f := range fields.Fields.List {
				comments[typ.Name.Name+"."+f.Names[0].Name] = strings.TrimSpace(f.Comment.Text())
			}
		}
	}
	return comments
}
