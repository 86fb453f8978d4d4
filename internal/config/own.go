package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// What is each node's own though one text serves all nodes: [node], [admin], cluster.bind
// and cluster.witness. A text that is applied to a cluster leaves those of each node's file as they
// are, and its own mean nothing.
func ownPaths() []path {
	out := []path{to("node"), to("admin")}
	for _, key := range ownOfCluster() {
		out = append(out, to("cluster", key))
	}
	return out
}

// ownOfCluster are the keys of [cluster] among them.
func ownOfCluster() []string { return []string{"bind", "witness"} }

// own reports whether p is one of them or in one of them.
func own(p path) bool {
	for _, o := range ownPaths() {
		if rest, ok := strings.CutPrefix(string(p), string(o)); ok && (rest == "" || rest[0] <= '\x01') {
			return true
		}
	}
	return false
}

// takeOwn puts what is the node's own in the place of what the text says of it. The node's
// own stands in its main file, whose name is given.
func (j *joiner) takeOwn(file string) error {
	mine, err := j.read(file, nil)
	if err != nil {
		return err
	}
	whole, err := j.host.joinBase(Texts{Main: file})
	if err != nil {
		return err
	}
	for _, p := range ownPaths() {
		value, there := lookup(mine.tree, p)
		if _, included := lookup(whole.tree, p); included && !there {
			at := whole.places.at(p).key
			return Problems{{File: whole.sources[at.file].name, Line: int(max(1, at.line)), Col: int(max(1, at.col)),
				Msg: fmt.Sprintf("%s is this node's own; it must stand in %s, not in a file that is included", strings.Join(p.parts(), "."), file)}}
		}
		removeAt(j.tree, p)
		j.places.forget(p)
		if there {
			setAt(j.tree, p, value)
		}
	}
	for p, at := range mine.places.all() {
		if own(p) {
			j.places.put(p, at)
		}
	}
	return nil
}

// lookup finds what is at a path of keys.
func lookup(tree map[string]any, p path) (any, bool) {
	parts := p.parts()
	for _, key := range parts[:len(parts)-1] {
		next, ok := tree[key].(map[string]any)
		if !ok {
			return nil, false
		}
		tree = next
	}
	v, ok := tree[parts[len(parts)-1]]
	return v, ok
}

func removeAt(tree map[string]any, p path) {
	parts := p.parts()
	if len(parts) == 1 {
		delete(tree, parts[0])
		return
	}
	if next, ok := tree[parts[0]].(map[string]any); ok {
		if delete(next, parts[1]); len(next) == 0 {
			delete(tree, parts[0])
		}
	}
}

func setAt(tree map[string]any, p path, value any) {
	parts := p.parts()
	for _, key := range parts[:len(parts)-1] {
		next, ok := tree[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[key] = next
		}
		tree = next
	}
	tree[parts[len(parts)-1]] = value
}

// ErrOwn is returned by Splice where a file is written in a way that it cannot part.
var ErrOwn = errors.New("this node's own [node], [admin], cluster.bind and cluster.witness cannot be put into the new file; in both files give [node] and [admin] headers of their own, and cluster.bind and cluster.witness lines of their own")

// Splice returns the text theirs with what is the node's own as the text mine has it,
// comments and all. It proves that the outcome says just that.
func Splice(theirs, mine []byte) ([]byte, error) {
	var a, b map[string]any
	if _, err := toml.Decode(string(theirs), &a); err != nil {
		return nil, err
	}
	if _, err := toml.Decode(string(mine), &b); err != nil {
		return nil, err
	}
	same := true
	for _, p := range ownPaths() {
		x, _ := lookup(a, p)
		y, _ := lookup(b, p)
		same = same && reflect.DeepEqual(x, y)
	}
	if same {
		return theirs, nil
	}
	out := splice(string(theirs), string(mine))
	if a == nil {
		a = map[string]any{}
	}
	for _, p := range ownPaths() {
		removeAt(a, p)
		if v, ok := lookup(b, p); ok {
			setAt(a, p, v)
		}
	}
	var got map[string]any
	if _, err := toml.Decode(out, &got); err != nil || !reflect.DeepEqual(got, a) && len(got)+len(a) > 0 {
		return nil, ErrOwn
	}
	return []byte(out), nil
}

// SameText reports whether two texts of TOML say the same.
func SameText(one, two []byte) bool {
	var a, b map[string]any
	_, err := toml.Decode(string(one), &a)
	_, more := toml.Decode(string(two), &b)
	return err == nil && more == nil && reflect.DeepEqual(a, b)
}

// A statement is a header, or a key with its value, in a text.
type statement struct {
	start, end int  // with the comment lines right above it, and to the end of its last line
	at         path // of the table or the key
	header     bool
	value      string // of a key
}

func statements(text string) []statement {
	s := &scanner{text: text, line: 1, col: 1, places: newPlaces(), arrays: map[path]int{}}
	var all []statement
	for s.i < len(s.text) && s.tooDeep == nil {
		s.blank(true)
		if s.i >= len(s.text) {
			break
		}
		before := s.i
		st := statement{start: lead(text, s.i)}
		if s.peek() == '[' {
			s.openTable()
			st.at, st.header = s.table, true
		} else {
			probe := *s
			st.at = s.table
			for _, w := range probe.words() {
				st.at = st.at.key(w.name)
			}
			s.keyValue(s.table)
			if _, v, ok := strings.Cut(text[before:s.i], "="); ok {
				st.value = strings.TrimSpace(v)
			}
		}
		if s.i == before {
			s.next() // never stand still
		}
		if st.end = len(text); strings.Contains(text[s.i:], "\n") {
			st.end = s.i + strings.IndexByte(text[s.i:], '\n') + 1
		}
		all = append(all, st)
	}
	return all
}

// lead is where the comment lines begin that stand right above the line of i.
func lead(text string, i int) int {
	i = strings.LastIndexByte(text[:i], '\n') + 1
	for i > 0 {
		up := strings.LastIndexByte(text[:i-1], '\n') + 1
		if !strings.HasPrefix(strings.TrimLeft(text[up:i], " \t"), "#") {
			break
		}
		i = up
	}
	return i
}

// splice works on the lines of the two texts.
func splice(theirs, mine string) string {
	keys, tables, ofCluster := ownStatements(mine)
	var b strings.Builder
	var cluster bool
	at, inOwn, began := 0, false, false
	for _, s := range statements(theirs) {
		if s.header {
			inOwn = own(s.at)
		}
		b.WriteString(theirs[at:max(at, s.start)])
		if at = max(at, s.start); !began {
			began = true
			b.WriteString(keys)
			if !hasCluster(theirs) {
				writeKeys(&b, "cluster.", ofCluster)
			}
		}
		if inOwn || own(s.at) {
			at = max(at, s.end)
			for inOwn && strings.HasSuffix(b.String(), "\n\n") && strings.HasPrefix(theirs[at:], "\n") {
				at++
			}
			continue
		}
		b.WriteString(theirs[at:max(at, s.end)])
		at = max(at, s.end)
		if s.header && s.at == to("cluster") && !cluster {
			cluster = true
			writeKeys(&b, "", ofCluster)
		}
	}
	b.WriteString(theirs[at:])
	if !began {
		b.WriteString(keys)
	}
	out := strings.TrimLeft(b.String(), "\n")
	if tables != "" {
		out = strings.TrimRight(out, "\n") + "\n\n" + tables
	}
	return out
}

// writeKeys writes the keys of [cluster] that are a node's own.
func writeKeys(b *strings.Builder, prefix string, values map[string]string) {
	for _, key := range ownOfCluster() {
		if v := values[key]; v != "" {
			b.WriteString(prefix + key + " = " + v + "\n")
		}
	}
}

// hasCluster reports whether a text has the header [cluster].
func hasCluster(text string) bool {
	for _, s := range statements(text) {
		if s.header && s.at == to("cluster") {
			return true
		}
	}
	return false
}

// ownStatements returns what is a node's own of a text: the keys above the first header
// but for those of [cluster], the tables, and the values of those of [cluster].
func ownStatements(text string) (keys, tables string, ofCluster map[string]string) {
	ofCluster = map[string]string{}
	var k, t strings.Builder
	inOwn, from := false, 0
	end := func(i int) {
		if inOwn {
			t.WriteString(strings.TrimRight(text[from:i], "\n") + "\n\n")
		}
	}
	above := true
	for _, s := range statements(text) {
		switch {
		case s.header:
			end(s.start)
			above = false
			inOwn, from = own(s.at), s.start
		case s.at.parent() == to("cluster") && own(s.at):
			ofCluster[s.at.last()] = s.value
		case above && own(s.at):
			k.WriteString(strings.TrimRight(text[s.start:s.end], "\n") + "\n")
		}
	}
	end(len(text))
	return k.String(), strings.TrimRight(t.String(), "\n") + strings.Repeat("\n", min(1, t.Len())), ofCluster
}

// StateDir returns node.state as a file says it, though the file may have errors: what
// must be known before it can be judged.
func StateDir(file string) string {
	dir := defaultConfig().Node.State
	text, err := thisHost().ReadFile(file)
	if err != nil || len(text) > maxFile {
		return dir
	}
	for _, s := range statements(string(text)) {
		if s.header || s.at != to("node") && s.at != to("node", "state") {
			continue
		}
		var said struct{ V any }
		if _, err := toml.Decode("V = "+s.value, &said); err != nil {
			continue
		}
		if table, ok := said.V.(map[string]any); ok {
			said.V = table["state"]
		}
		if text, ok := said.V.(string); ok && text != "" {
			return text
		}
	}
	return dir
}
