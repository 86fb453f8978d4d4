package accesslog

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 123456000, time.FixedZone("", 3600))

// exchange returns a finished exchange for target.
func exchange(target string, fields ...string) *dataplane.Exchange {
	x := &dataplane.Exchange{
		Listener: &dataplane.Listener{Name: "web"},
		Route:    &dataplane.Route{Name: "all", Pool: "app"},
		Attempt:  1,
		ConnID:   7,
		Config:   3,
		Mark:     dataplane.Mark{ClientIP: netip.MustParseAddr("198.51.100.9")},
		Bytes:    dataplane.Bytes{In: 100, Out: 2000},
		Times:    dataplane.Times{Start: noon.Add(-time.Millisecond)},
		Response: dataplane.Response{HeadBytes: 150},
	}
	path, query, ok := strings.Cut(target, "?")
	x.Request = dataplane.Request{Method: dataplane.GET, MethodText: []byte("GET"), Target: []byte(target), Host: []byte("h"), Path: []byte(path), Minor: 1}
	if ok {
		x.Request.Query = []byte(query)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		id := map[string]dataplane.FieldID{"User-Agent": dataplane.UserAgent, "Referer": dataplane.Referer}[name]
		x.Request.Header.Add(id, []byte(name), []byte(value))
	}
	return x
}

func lineOf(c config.Access, x *dataplane.Exchange) string {
	return string(newStyle(c, "edge-1").exchange(nil, x, &Entry{Now: noon, Status: 200, Policies: []string{"edge", "static"}}))
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name   string
		access config.Access
		x      *dataplane.Exchange
		want   string
	}{
		{
			"json", config.Access{Format: "json"}, exchange("/a?token=x", "User-Agent: curl", "Referer: http://a/?q=1"),
			`{"ts":"2026-11-24T11:00:00.123456Z","node":"edge-1","listener":"web","client":"198.51.100.9","proto":"HTTP/1.1","method":"GET","host":"h","path":"/a",` +
				`"status":200,"route":"all","policies":["edge","static"],"pool":"app","tries":1,"bytes_in":100,"bytes_out":2000,"t_total":0.001000,` +
				`"ua":"curl","referer":"http://a/","conn_id":7,"config":3}`,
		},
		{
			"text", config.Access{Format: "text", Query: true}, exchange("/a b\"\n?x=1", "User-Agent: curl/8 (x)"),
			`ts=2026-11-24T11:00:00.123456Z node=edge-1 listener=web client=198.51.100.9 proto=HTTP/1.1 method=GET host=h path="/a b\"\u000a" query="x=1" ` +
				`status=200 route=all policies=edge,static pool=app tries=1 bytes_in=100 bytes_out=2000 t_total=0.001000 ua="curl/8 (x)" conn_id=7 config=3`,
		},
		{
			"combined as nginx", config.Access{Format: "combined", Query: true}, exchange("/a?b=c", "User-Agent: curl/8 \"é\\\x01\x7f", "Referer: http://a/?q=1"),
			`198.51.100.9 - - [24/Nov/2026:12:00:00 +0100] "GET /a?b=c HTTP/1.1" 200 1850 "http://a/?q=1" "curl/8 \x22\xC3\xA9\x5C\x01\x7F"`,
		},
		{
			"combined without fields", config.Access{Format: "combined"}, exchange("/a?b=c"),
			`198.51.100.9 - - [24/Nov/2026:12:00:00 +0100] "GET /a HTTP/1.1" 200 1850 "-" "-"`,
		},
	} {
		if got := lineOf(c.access, c.x); got != c.want+"\n" {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestTheLineOfARefusedRequest(t *testing.T) { // B10
	l := &dataplane.Listener{Name: "web"}
	m := &dataplane.Malformed{Status: 400, Reason: "cl_te", Detail: "x\n\""}
	client := netip.MustParseAddrPort("[::ffff:198.51.100.9]:1")
	for format, want := range map[string]string{
		"json":     `{"ts":"2026-11-24T11:00:00.123456Z","node":"n","listener":"web","client":"198.51.100.9","status":400,"reason":"cl_te","detail":"x\u000a\""}`,
		"text":     `ts=2026-11-24T11:00:00.123456Z node=n listener=web client=198.51.100.9 status=400 reason=cl_te detail="x\u000a\""`,
		"combined": `198.51.100.9 - - [24/Nov/2026:12:00:00 +0100] "-" 400 0 "-" "-"`,
	} {
		if got := string(newStyle(config.Access{Format: format}, "n").refused(nil, l, client, m, noon)); got != want+"\n" {
			t.Errorf("%s:\n got %s\nwant %s", format, got, want)
		}
	}
}

func TestWhatIsRedacted(t *testing.T) {
	x := exchange("/a?user=u&Token=secret;tok%65n=other&token=&x&token", "User-Agent: secret", "Referer: http://a/?token=secret&b=1")
	hide := []string{"User-Agent", "token"}
	for format, want := range map[string][]string{
		"json":     {`"query":"user=u&Token=[redacted];tok%65n=[redacted]&token=[redacted]&x&token"`, `"ua":"[redacted]"`, `"referer":"http://a/?token=[redacted]&b=1"`},
		"text":     {`query="user=u&Token=[redacted];tok%65n=[redacted]&token=[redacted]&x&token"`, `ua=[redacted]`},
		"combined": {`"GET /a?user=u&Token=[redacted];tok%65n=[redacted]&token=[redacted]&x&token HTTP/1.1"`, `"http://a/?token=[redacted]&b=1" "-"`},
	} {
		got := lineOf(config.Access{Format: format, Query: true, Redact: hide}, x)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %s lacks %s", format, got, w)
			}
		}
		if strings.Contains(got, "secret") || strings.Contains(got, "other") {
			t.Errorf("%s: %s tells", format, got)
		}
	}
	if got := lineOf(config.Access{Format: "combined", Query: true, Redact: []string{"referer"}}, x); !strings.Contains(got, `"-" "secret"`) {
		t.Errorf("%s shows Referer", got)
	}
}

func TestWhatIsSampled(t *testing.T) {
	s := newStyle(config.Access{Sample: 0.1, Slow: time.Second}, "n")
	for _, c := range []struct {
		name string
		e    Entry
		took time.Duration
		want bool
	}{
		{"a good one", Entry{Status: 200}, time.Millisecond, false},
		{"not there", Entry{Status: 404}, time.Millisecond, true},
		{"an error", Entry{Status: 503}, time.Millisecond, true},
		{"broken off", Entry{Status: 200, Failed: true}, time.Millisecond, true},
		{"slow", Entry{Status: 200}, time.Second, true},
	} {
		c.e.Now = noon
		x := &dataplane.Exchange{Times: dataplane.Times{Start: noon.Add(-c.took)}}
		if got := s.always(x, &c.e); got != c.want {
			t.Errorf("%s: always = %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAShareIsExactAndSpread(t *testing.T) {
	for _, c := range []struct {
		part config.Share
		want int
	}{{0, 0}, {0.001, 10}, {0.1, 1000}, {0.25, 2500}, {1, 10000}} {
		s := newShare(c.part)
		n, longest, since := 0, 0, 0
		for range 10000 {
			since++
			if s.next() {
				n++
				since = 0
			}
			longest = max(longest, since)
		}
		if n != c.want {
			t.Errorf("of 10,000 there are %d, want %d", n, c.want)
		}
		if c.want > 0 && longest > 10000/c.want {
			t.Errorf("%v: %d in a row are left out", c.part, longest)
		}
	}
}

// FuzzLine holds that no bytes of a client make two lines, or break one.
func FuzzLine(f *testing.F) { // B10
	f.Add([]byte("a\"\\\n\x00\x7f\xff\xe2\x80\xa8é"), []byte("a=b&token=\"\n"))
	f.Fuzz(func(t *testing.T, value, query []byte) {
		x := exchange("/")
		x.Request.Host, x.Request.Path, x.Request.Query = value, value, query
		x.Request.Target = append(append(append([]byte(nil), value...), '?'), query...)
		x.Request.Header.Add(dataplane.UserAgent, []byte("User-Agent"), value)
		x.Request.Header.Add(dataplane.Referer, []byte("Referer"), value)
		for _, format := range []string{"json", "text", "combined"} {
			got := lineOf(config.Access{Format: format, Query: true, Redact: []string{"token"}}, x)
			for i := range len(got) - 1 {
				if got[i] < ' ' || got[i] == 0x7f || format == "combined" && got[i] > 0x7f {
					t.Fatalf("%s: %q holds a control character", format, got)
				}
			}
			if got[len(got)-1] != '\n' {
				t.Fatalf("%s: %q has no end", format, got)
			}
			if format != "json" {
				continue
			}
			var all map[string]any
			if err := json.Unmarshal([]byte(got), &all); err != nil {
				t.Fatalf("%q: %v", got, err)
			}
			if utf8.Valid(value) && all["ua"] != string(value) {
				t.Errorf("%q comes back as %q", value, all["ua"])
			}
		}
	})
}

func BenchmarkLine(b *testing.B) {
	x := exchange("/shop/item?id=17&token=x", "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Referer: https://example.com/shop/")
	e := &Entry{Now: noon, Status: 200}
	for _, format := range []string{"json", "text", "combined"} {
		b.Run(format, func(b *testing.B) {
			s := newStyle(config.Access{Format: format, Query: true, Redact: []string{"authorization", "cookie"}}, "edge-1")
			buf := make([]byte, 0, 2048)
			b.ReportAllocs()
			for b.Loop() {
				buf = s.exchange(buf[:0], x, e)
			}
		})
	}
}
