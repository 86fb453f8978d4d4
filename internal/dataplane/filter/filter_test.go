package filter

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// fields makes a header of "Name: value" lines.
func fields(lines ...string) (h dataplane.Header) {
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		h.Add(http1.Identify([]byte(name)), []byte(name), []byte(value))
	}
	return h
}

func lines(h dataplane.Header) (out []string) {
	for _, f := range h {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return out
}

func TestHeadersMerge(t *testing.T) {
	for _, c := range []struct {
		why      string
		policies []config.Headers
		want     []string
	}{
		{"nothing", nil, []string{"Server: s", "X-A: 1", "X-A: 2"}},
		{"set replaces all of the name", []config.Headers{{ResponseSet: map[string]string{"x-a": "3"}}}, []string{"Server: s", "x-a: 3"}},
		{"add keeps them", []config.Headers{{ResponseAdd: map[string]string{"X-A": "3"}}}, []string{"Server: s", "X-A: 1", "X-A: 2", "X-A: 3"}},
		{"remove", []config.Headers{{ResponseRemove: []string{"SERVER"}}}, []string{"X-A: 1", "X-A: 2"}},
		{"set overrides set", []config.Headers{{ResponseSet: map[string]string{"X-A": "3", "X-B": "3"}}, {ResponseSet: map[string]string{"X-A": "4"}}}, []string{"Server: s", "X-B: 3", "X-A: 4"}},
		{"adds add up", []config.Headers{{ResponseAdd: map[string]string{"X-B": "3"}}, {ResponseAdd: map[string]string{"X-B": "4"}}}, []string{"Server: s", "X-A: 1", "X-A: 2", "X-B: 3", "X-B: 4"}},
		{"a later policy removes what an earlier one sets", []config.Headers{{ResponseSet: map[string]string{"X-A": "3"}}, {ResponseRemove: []string{"X-A"}}}, []string{"Server: s"}},
		{"a later policy sets what an earlier one removes", []config.Headers{{ResponseRemove: []string{"X-A"}}, {ResponseSet: map[string]string{"X-A": "3"}}}, []string{"Server: s", "X-A: 3"}},
		{"an empty value is no field", []config.Headers{{ResponseSet: map[string]string{"X-A": "{header.None}"}}}, []string{"Server: s"}},
	} {
		var policies []*config.Policy
		for _, h := range c.policies {
			policies = append(policies, &config.Policy{Headers: h})
		}
		s, err := New(policies, Env{})
		if err != nil {
			t.Fatal(err)
		}
		x := &dataplane.Exchange{Response: dataplane.Response{Header: fields("Server: s", "X-A: 1", "X-A: 2")}}
		for _, f := range s.Response {
			f.Response(x)
		}
		if d := cmp.Diff(c.want, lines(x.Response.Header)); d != "" {
			t.Errorf("%s: %s", c.why, d)
		}
	}
}

func TestExpiresIsForGoodAnswersOnly(t *testing.T) {
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	s, err := New([]*config.Policy{
		{Expires: &config.Expires{After: time.Hour}},
		{Expires: &config.Expires{After: 24 * time.Hour, CacheControl: "public, immutable"}, Headers: config.Headers{ResponseRemove: []string{"Server"}}},
	}, Env{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	kept := []string{"cache-control: no-store", "Expires: 0", "Cache-Control: private"}
	fresh := []string{"Expires: Sat, 28 Nov 2026 12:00:00 GMT", "Cache-Control: max-age=86400, public, immutable"}
	for status := 200; status < 600; status++ {
		want := kept
		if slices.Contains([]int{200, 201, 204, 206, 301, 302, 303, 304, 307, 308}, status) {
			want = fresh
		}
		x := &dataplane.Exchange{Response: dataplane.Response{Status: status, Header: fields(append(kept, "Server: s")...)}}
		for _, f := range s.Response {
			if v := f.Response(x); v != dataplane.Next {
				t.Fatalf("verdict %v", v)
			}
		}
		if d := cmp.Diff(want, lines(x.Response.Header)); d != "" {
			t.Errorf("%d: %s", status, d)
		}
	}
	x := &dataplane.Exchange{Response: dataplane.Response{Status: 200}}
	now = now.Add(time.Second)
	s.Response[0].Response(x)
	if got := lines(x.Response.Header)[0]; got != "Expires: Sat, 28 Nov 2026 12:00:01 GMT" {
		t.Errorf("a second later: %s", got)
	}
}

func TestStagesHaveOneOrder(t *testing.T) {
	s, err := New([]*config.Policy{
		{Headers: config.Headers{ResponseRemove: []string{"Server"}, ResponseAdd: map[string]string{"Vary": "X-A"}}},
		{Compress: &config.Compress{Types: []string{"text/*", "+json"}, Min: 1024, With: []string{"zstd", "gzip"}}},
		{Expires: &config.Expires{After: time.Hour, CacheControl: "public"}},
		{Headers: config.Headers{RequestRemove: []string{"Cookie"}, RequestSet: map[string]string{"X-Region": "eu", "X-A": "{client}"}}},
	}, Env{Coders: new(Coders)})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Stage{
		{"request headers", "set X-A, X-Region; remove Cookie", false},
		{"expires", "Expires in 1h0m0s, Cache-Control: max-age=3600, public", true},
		{"response headers", "add Vary; remove Server", true},
		{"compress", "zstd, gzip, of 1024 bytes and more: text/* +json", true},
	}, s.Stages); d != "" {
		t.Error(d)
	}
}

// Whatever a client sends, no value of ours has a control character but tab.
func FuzzValue(f *testing.F) {
	f.Add("{uri} {header.X} {{x} {query}", "/a", "b=c", "v")
	f.Add("{header.X}", "/", "\r\nSet-Cookie: x", "\x00")
	f.Fuzz(func(t *testing.T, text, path, query, field string) {
		pieces, err := config.ResponsePieces(text)
		if err != nil || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return
		}
		v := newValue(pieces, Env{Node: "n", Route: "r"})
		x := &dataplane.Exchange{Listener: &dataplane.Listener{Name: "l"}, Request: dataplane.Request{Path: []byte(path), Query: []byte(query), Header: fields("X: " + field)}}
		out, ok := v.of(x)
		if ok && strings.ContainsFunc(string(out), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			t.Errorf("%q gives %q", text, out)
		}
	})
}
