// Package memorytest finds what a list of fields to remember leaves out.
package memorytest

import (
	"reflect"
	"slices"
	"testing"

	"proxyd/internal/memory"
)

// Complete fails for each field of the struct that v points to, and of the structs in it, of
// which f does not have the address, unless forgotten names it: "field", "field.inner".
func Complete(t *testing.T, v any, f memory.Fields, forgotten ...string) {
	t.Helper()
	var kept []span
	collect(f, &kept)
	s := reflect.ValueOf(v).Elem()
	walk(t, s.Type().String(), "", s, kept, forgotten)
}

// whole reports whether every element of an array is kept, field by field.
func whole(a reflect.Value, kept []span) bool {
	for i := range a.Len() {
		e := a.Index(i)
		if e.Kind() != reflect.Struct {
			return false
		}
		for j := range e.NumField() {
			f := e.Field(j)
			here := span{f.UnsafeAddr(), f.UnsafeAddr() + f.Type().Size()}
			if !slices.ContainsFunc(kept, func(k span) bool { return k.has(here) }) {
				return false
			}
		}
	}
	return true
}

// span is a piece of memory that is written down.
type span struct{ from, to uintptr }

func (s span) has(o span) bool { return s.from <= o.from && o.to <= s.to }

func collect(f memory.Fields, out *[]span) {
	for _, to := range f {
		if in, ok := to.(memory.Fields); ok {
			collect(in, out)
			continue
		}
		p := reflect.ValueOf(to)
		if p.Kind() == reflect.Pointer {
			*out = append(*out, span{p.Pointer(), p.Pointer() + p.Type().Elem().Size()})
		}
	}
}

func walk(t *testing.T, of, path string, s reflect.Value, kept []span, forgotten []string) {
	t.Helper()
	for i := range s.NumField() {
		field := s.Type().Field(i)
		name, at := path+field.Name, s.Field(i)
		here := span{at.UnsafeAddr(), at.UnsafeAddr() + at.Type().Size()}
		switch {
		case slices.Contains(forgotten, name), at.Type().Size() == 0, slices.ContainsFunc(kept, func(k span) bool { return k.has(here) }):
		case at.Kind() == reflect.Struct:
			walk(t, of, name+".", at, kept, forgotten)
		case at.Kind() == reflect.Array && whole(at, kept):
		default:
			t.Errorf("%s.%s is forgotten by an upgrade: put it into the list of what is known, or into that of what may be forgotten", of, name)
		}
	}
}
