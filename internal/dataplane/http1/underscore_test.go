package http1

import (
	"errors"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

// readings reads a request with one field in the form of each version of HTTP.
func readings(name string, how dataplane.Underscores) map[string]func() (*dataplane.Request, error) {
	lim := wide
	lim.Underscores = how
	return map[string]func() (*dataplane.Request, error){
		"HTTP/1.1": func() (*dataplane.Request, error) {
			r := new(dataplane.Request)
			_, err := ParseRequest([]byte("POST / HTTP/1.1\r\nHost: a\r\n"+name+": 1\r\nContent-Length: 3\r\n\r\n"), r, lim)
			return r, err
		},
		"HTTP/2": func() (*dataplane.Request, error) {
			r := new(dataplane.Request)
			var d Decoder
			d.Begin(r, nil, lim)
			for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/"}, {strings.ToLower(name), "1"}, {"content-length", "3"}} {
				d.Field(f[0], f[1])
			}
			reset, err := d.End(false)
			if reset {
				return nil, errors.New("the stream is reset")
			}
			return r, err
		},
	}
}

// S9, B4: a field with an underscore is dropped, kept or the end of its request, as is said. One
// that could be taken for a field that is known is never kept.
func TestS9B4Underscores(t *testing.T) {
	for _, name := range []string{"X_Y", "x-y_z", "_", "Very_Long_" + strings.Repeat("x", 40)} {
		for how, want := range map[dataplane.Underscores]bool{dataplane.DropUnderscores: false, dataplane.KeepUnderscores: true} {
			for version, read := range readings(name, how) {
				r, err := read()
				if err != nil || (r.Header.Find(name) != nil) != want || r.Underscore != want || r.Length != 3 {
					t.Errorf("%s, %s, %v: %+v, %v; want it kept: %v", version, name, how, r, err, want)
				}
			}
		}
		for version, read := range readings(name, dataplane.RejectUnderscores) {
			_, err := read()
			var m *dataplane.Malformed
			if !errors.As(err, &m) || m.Status != 400 || m.Reason != "underscore" {
				t.Errorf("%s, %s: %v, want 400", version, name, err)
			}
		}
	}
	for version, read := range readings("X-Y", dataplane.RejectUnderscores) {
		if r, err := read(); err != nil || r.Underscore || r.Header.Find("x-y") == nil {
			t.Errorf("%s: without an underscore: %+v, %v", version, r, err)
		}
	}
}

// B4: whichever of its hyphens is an underscore, what is known by its name is never kept.
func TestB4WhatIsKnownIsNotKept(t *testing.T) {
	for _, all := range names {
		for _, known := range all {
			for i, c := range known.name {
				if c != '-' {
					continue
				}
				for _, name := range []string{
					known.name[:i] + "_" + known.name[i+1:],
					strings.ReplaceAll(known.name, "-", "_"),
					strings.ToUpper(strings.ReplaceAll(known.name, "-", "_")),
				} {
					for version, read := range readings(name, dataplane.KeepUnderscores) {
						r, err := read()
						if err != nil || r.Header.Find(name) != nil || r.Underscore || r.Length != 3 || r.Chunked {
							t.Errorf("%s, %s: %+v, %v; want it left out", version, name, r, err)
						}
					}
				}
			}
		}
	}
}
