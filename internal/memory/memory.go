// Package memory writes down what a value knows, unexported fields too, and puts it back into
// another one: for a process that takes another's place. What a later change adds to a type is
// remembered without anybody thinking of it.
//
// Fields go by name, and those that one side does not have are left as they are, so two
// releases understand each other. Pointers, interfaces, functions, channels and locks are
// left out, and so are slices and maps of them: they belong to a process.
package memory

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unsafe"
)

// Of returns what the struct that v points to knows, without the fields that except names.
func Of(v any, except ...string) (json.RawMessage, error) {
	s, err := target(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(fieldsOf(s, except))
}

// Recall puts what Of returned into the struct that v points to, but for the fields that
// except names. On error v is in part recalled and of no use.
func Recall(v any, text json.RawMessage, except ...string) error {
	s, err := target(v)
	if err != nil {
		return err
	}
	return recallFields(s, text, except)
}

func target(v any) (reflect.Value, error) {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() || p.Elem().Kind() != reflect.Struct {
		return p, fmt.Errorf("memory of a %T: it is no pointer to a struct", v)
	}
	return p.Elem(), nil
}

var timeType = reflect.TypeFor[time.Time]()

// lasts reports whether values of t can be written down.
func lasts(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Struct,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		// The fields of a struct are looked at one by one. A lock must not be carried over.
		return t.PkgPath() != "sync" && t.PkgPath() != "internal/sync"
	case reflect.Slice, reflect.Array:
		return lasts(t.Elem())
	case reflect.Map:
		return t.Key().Kind() == reflect.String && lasts(t.Elem())
	}
	return false
}

// open returns f such that it can be read and set, exported or not. f is addressable.
func open(f reflect.Value) reflect.Value {
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

func fieldsOf(s reflect.Value, except []string) map[string]any {
	out := map[string]any{}
	for i := range s.NumField() {
		name := s.Type().Field(i).Name
		if name == "_" || slices.Contains(except, name) || !lasts(s.Field(i).Type()) {
			continue
		}
		out[name] = plain(open(s.Field(i)))
	}
	return out
}

// plain turns v, which is addressable, into what encoding/json writes.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == timeType {
			return v.Interface()
		}
		return fieldsOf(v, nil)
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			e := reflect.New(v.Type().Elem()).Elem()
			e.Set(v.MapIndex(k))
			out[k.String()] = plain(e)
		}
		return out
	case reflect.String:
		return v.String() // a type of its own may write itself otherwise
	case reflect.Bool:
		return v.Bool()
	case reflect.Float32, reflect.Float64:
		return v.Float()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return v.Uint()
	default:
		return v.Int()
	}
}

func recallFields(s reflect.Value, text json.RawMessage, except []string) error {
	var known map[string]json.RawMessage
	if err := json.Unmarshal(text, &known); err != nil {
		return fmt.Errorf("memory of a %s: %w", s.Type(), err)
	}
	for i := range s.NumField() {
		name := s.Type().Field(i).Name
		value, there := known[name]
		if !there || name == "_" || slices.Contains(except, name) || !lasts(s.Field(i).Type()) {
			continue
		}
		if err := recall(open(s.Field(i)), value); err != nil {
			return fmt.Errorf("%s.%s: %w", s.Type(), name, err)
		}
	}
	return nil
}

// recall puts a value into v, which is addressable.
func recall(v reflect.Value, text json.RawMessage) error {
	null := strings.TrimSpace(string(text)) == "null"
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == timeType {
			return json.Unmarshal(text, v.Addr().Interface())
		}
		return recallFields(v, text, nil)
	case reflect.Slice, reflect.Array:
		var list []json.RawMessage
		if err := json.Unmarshal(text, &list); err != nil {
			return err
		}
		if v.Kind() == reflect.Slice {
			v.SetZero()
			if !null {
				v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
			}
		}
		for i := range min(len(list), v.Len()) {
			if err := recall(v.Index(i), list[i]); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		var table map[string]json.RawMessage
		if err := json.Unmarshal(text, &table); err != nil {
			return err
		}
		v.Set(reflect.MakeMap(v.Type()))
		for k, one := range table {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := recall(e, one); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(k).Convert(v.Type().Key()), e)
		}
		return nil
	}
	// Into a value of the bare kind, so that no method of the type's own has a say.
	bare := reflect.New(bareType(v.Kind()))
	if err := json.Unmarshal(text, bare.Interface()); err != nil {
		return err
	}
	v.Set(bare.Elem().Convert(v.Type()))
	return nil
}

// bareType is the type that Go itself has of a kind.
func bareType(k reflect.Kind) reflect.Type {
	switch k {
	case reflect.Bool:
		return reflect.TypeFor[bool]()
	case reflect.String:
		return reflect.TypeFor[string]()
	case reflect.Float32, reflect.Float64:
		return reflect.TypeFor[float64]()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return reflect.TypeFor[uint64]()
	}
	return reflect.TypeFor[int64]()
}
