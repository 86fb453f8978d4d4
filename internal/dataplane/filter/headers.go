package filter

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// requestHeaders changes the fields that a server is sent. It runs after what the client
// nominated in Connection is gone, so nothing that it adds can be named away (B2).
type requestHeaders struct{ edit }

func (f requestHeaders) Request(x *dataplane.Exchange) dataplane.Verdict {
	return f.apply(x, &x.Request.Header)
}

// responseHeaders changes the fields that a client gets, whoever made the answer.
type responseHeaders struct{ edit }

func (f responseHeaders) Response(x *dataplane.Exchange) dataplane.Verdict {
	return f.apply(x, &x.Response.Header)
}

// An edit removes fields by their names and adds others. What is set is removed first.
type edit struct {
	remove []name
	add    []addition
}

// A name of a field, as it is compared.
type name struct {
	text []byte
	id   dataplane.FieldID
}

// An addition is a field to add.
type addition struct {
	name
	value value
}

func newName(text string) name {
	return name{[]byte(text), http1.Identify([]byte(text))}
}

func (n *name) is(f *dataplane.Field) bool {
	return n.id == f.ID && len(n.text) == len(f.Name) && (n.id != dataplane.Other || bytes.EqualFold(n.text, f.Name))
}

// String says what is done, by the names alone: what is set is removed first.
func (e *edit) String() string {
	var set, add, remove, words []string
	named := func(n name) func(name) bool {
		return func(o name) bool { return bytes.EqualFold(o.text, n.text) }
	}
	for _, a := range e.add {
		if text := string(a.text); slices.ContainsFunc(e.remove, named(a.name)) {
			set = append(set, text)
		} else {
			add = append(add, text)
		}
	}
	for _, n := range e.remove {
		if !slices.ContainsFunc(e.add, func(a addition) bool { return named(n)(a.name) }) {
			remove = append(remove, string(n.text))
		}
	}
	for _, part := range []struct {
		word  string
		names []string
	}{{"set ", set}, {"add ", add}, {"remove ", remove}} {
		if len(part.names) > 0 {
			words = append(words, part.word+strings.Join(part.names, ", "))
		}
	}
	return strings.Join(words, "; ")
}

// names are those of all fields that the edit changes, as Set.Asked has them.
func (e *edit) names() (all []string) {
	put := func(n name) {
		text := strings.ReplaceAll(strings.ToLower(string(n.text)), "_", "-")
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	for _, n := range e.remove {
		put(n)
	}
	for _, a := range e.add {
		put(a.name)
	}
	return all
}

func (e *edit) empty() bool { return len(e.remove) == 0 && len(e.add) == 0 }

// merge takes in the fields of one more policy: as if each policy were applied to what
// those before it have left.
func (e *edit) merge(remove []string, set, add map[string]string, cut func(string) ([]config.Piece, error), env Env) error {
	for _, n := range remove {
		e.drop(newName(n))
	}
	for _, n := range slices.Sorted(maps.Keys(set)) {
		e.drop(newName(n))
		if err := e.put(n, set[n], cut, env); err != nil {
			return err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(add)) {
		if err := e.put(n, add[n], cut, env); err != nil {
			return err
		}
	}
	return nil
}

// drop makes the edit remove a field, its own additions of that name included.
func (e *edit) drop(n name) {
	same := func(o name) bool { return bytes.EqualFold(o.text, n.text) }
	e.add = slices.DeleteFunc(e.add, func(a addition) bool { return same(a.name) })
	if !slices.ContainsFunc(e.remove, same) {
		e.remove = append(e.remove, n)
	}
}

func (e *edit) put(n, text string, cut func(string) ([]config.Piece, error), env Env) error {
	pieces, err := cut(text)
	if err != nil {
		return fmt.Errorf("header %s: %w", n, err)
	}
	e.add = append(e.add, addition{newName(n), newValue(pieces, env)})
	return nil
}

// apply changes h. A value that would break out of its line is never sent: the answer is
// 500 then (B1). A value that turns out empty adds no field.
func (e *edit) apply(x *dataplane.Exchange, h *dataplane.Header) dataplane.Verdict {
	before := len(*h)
	for i := range e.add { // first, since a value may be that of a field that goes
		a := &e.add[i]
		v, ok := a.value.of(x)
		if !ok {
			x.Response.Reset()
			x.Mark.Reason = "template"
			return dataplane.Answer
		}
		if len(v) > 0 {
			h.Add(a.id, a.text, v)
		}
	}
	without(h, before, e.remove)
	return dataplane.Next
}

// without takes the fields of those names out of the first n of h.
func without(h *dataplane.Header, n int, names []name) {
	if len(names) == 0 {
		return
	}
	kept := 0
	for i := range *h {
		f := &(*h)[i]
		if i < n && isOneOf(f, names) {
			continue
		}
		if kept != i {
			(*h)[kept] = *f
		}
		kept++
	}
	*h = (*h)[:kept]
}

func isOneOf(f *dataplane.Field, names []name) bool {
	for i := range names {
		if names[i].is(f) {
			return true
		}
	}
	return false
}
