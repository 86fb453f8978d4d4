package proxy

import (
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func TestExplainDoesWhatTheDataPlaneDoes(t *testing.T) {
	conf := base()
	conf.Limits.HeaderBytes, conf.Limits.URIBytes, conf.Limits.Fields = 1<<15, 1<<13, 100
	conf.Node.TrustedProxies = networks("198.51.100.0/24")
	conf.Pool["two"] = pool("two", "192.0.2.9:80")
	conf.Route = append(conf.Route,
		&config.Route{Name: "api", Host: []string{"*.example.com"}, Path: "/v1/*", Method: []string{"GET"}, Split: map[string]int{"app": 1, "two": 1}, StripPrefix: "/v1"},
		&config.Route{Name: "beta", Host: []string{"a.example.com"}, Header: map[string]string{"X-Beta": "*"}, Pool: "two"},
		&config.Route{Name: "office", Path: "/office", Client: networks("203.0.113.0/24"), Respond: &config.Respond{Status: 200, Body: "hi"}},
		&config.Route{Name: "images", Path: `~\.png$`, Pool: "two"},
	)
	p, log := start(t, conf)
	for _, q := range []Question{
		{Method: "GET", URL: "http://A.Example.com:8080/x/../v1//items?id=7", Client: "192.0.2.77"},
		{Method: "POST", URL: "http://a.example.com/v1/items"},
		{Method: "GET", URL: "http://a.example.com/v1/items", Header: []string{"X-Beta: 1"}},
		{Method: "GET", URL: "http://b.org/office", Client: "198.51.100.1", Header: []string{"X-Forwarded-For: 203.0.113.5"}},
		{Method: "GET", URL: "http://b.org/office", Client: "192.0.2.1", Header: []string{"X-Forwarded-For: 203.0.113.5"}},
		{Method: "GET", URL: "b.org/a.png"},
		{Method: "GET", URL: "b.org"},
	} {
		e, err := p.Explain(q)
		if err != nil {
			t.Fatal(err)
		}
		if e.Refused != "" || e.Route == nil {
			t.Errorf("%v: %+v", q, e)
			continue
		}
		x := get(e.Host, e.Path)
		x.Listener, x.Client = &dataplane.Listener{Name: e.Listener, Address: "127.0.0.1:8080"}, netip.AddrPortFrom(netip.MustParseAddr(e.Peer), 1)
		if q.Method == "POST" {
			x.Request.Method, x.Request.MethodText = dataplane.POST, []byte("POST")
		}
		with(x, q.Header...)
		v := begin(p, x)
		if x.Route.Name != e.Route.Name || x.Route.Pool != e.Pool && v == dataplane.Next {
			t.Errorf("%v: explained as %s to %s, taken by %s to %s", q, e.Route.Name, e.Pool, x.Route.Name, x.Route.Pool)
		}
		if v == dataplane.Next {
			next := slices.IndexFunc(e.Servers, func(s ServerVerdict) bool { return s.Chosen })
			if next < 0 || e.Servers[next].Name != x.Server.Name {
				t.Errorf("%v: %+v explained, %s picked", q, e.Servers, x.Server.Name)
			}
			if want := "GET " + string(x.Request.Path); q.Method == "GET" && e.Sends[0][:len(want)] != want {
				t.Errorf("%v: %s, want %s", q, e.Sends[0], want)
			}
			respond(p, x, 200)
		} else if e.Status != x.Response.Status {
			t.Errorf("%v: %d explained, %d answered", q, e.Status, x.Response.Status)
		}
		p.End(x, nil)
	}
	for _, r := range p.current.Load().routes {
		if n := r.counters.inflight.Load(); n != 0 {
			t.Errorf("%s: %d in flight after questions", r.Name, n)
		}
	}
	_ = log
}

func TestExplainSaysWhyARequestIsRefused(t *testing.T) {
	conf := base()
	conf.Limits.HeaderBytes, conf.Limits.URIBytes, conf.Limits.Fields = 1<<15, 1<<13, 100
	e, err := Explain(conf, Question{Method: "GET", URL: "http://h/a%00b"})
	if err != nil || e.Status != 400 || e.Reason != "path" {
		t.Errorf("Explain = %+v, %v", e, err)
	}
	for _, q := range []Question{{Method: "GET", URL: "ftp://h/"}, {Method: "GET", URL: "h/", Client: "nobody"}, {Method: "GET", URL: "h/", Listener: "none"}, {Method: "GET", URL: "h/", Header: []string{"A: b\r\nC: d"}}} {
		if _, err := Explain(conf, q); err == nil {
			t.Errorf("%v was explained", q)
		}
	}
}

func TestExplainFindsTheListenerOfAURL(t *testing.T) {
	conf := base()
	conf.Listener = map[string]*config.Listener{
		"alt":    {Name: "alt", Address: []string{"192.0.2.1:8080", "192.0.2.2:8080"}},
		"secure": {Name: "secure", Address: []string{"192.0.2.1:8443"}, TLS: true},
		"web":    {Name: "web", Address: []string{"192.0.2.1:80"}},
	}
	for _, c := range []struct{ url, listener, want string }{
		{"http://h/", "", "web"},
		{"http://h:8080/", "", "alt"},
		{"https://h/", "", "secure"}, // the only one that speaks it
		{"https://h:9000/", "", "secure"},
		{"http://h:9000/", "", ""}, // alt or web
		{"http://h:9000/", "alt", "alt"},
	} {
		e, err := Explain(conf, Question{Method: "GET", URL: c.url, Listener: c.listener})
		if (err == nil) != (c.want != "") || err == nil && e.Listener != c.want {
			t.Errorf("%s %q: %v, %v, want %q", c.url, c.listener, e, err, c.want)
		}
	}
}

// Programs read the JSON of an explanation: every key is in docs/ROUTING.md, with its kind.
func TestExplanationIsDocumentedKeyByKey(t *testing.T) {
	text, err := os.ReadFile("../../../docs/ROUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	_, section, _ := strings.Cut(string(text), "`-o json`")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, key := range strings.Fields(cells[1]) {
			documented[strings.Trim(key, "`")] = strings.TrimSpace(cells[2])
		}
	}
	keys := explanationKeys("", reflect.TypeFor[Explanation]())
	for key, kind := range keys {
		if strings.HasPrefix(key, "others.") {
			continue
		}
		if documented[key] != kind {
			t.Errorf("docs/ROUTING.md: key %q is %q there, want %q", key, documented[key], kind)
		}
	}
}

func explanationKeys(prefix string, typ reflect.Type) map[string]string {
	keys := map[string]string{}
	for i := range typ.NumField() {
		f := typ.Field(i)
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() {
			continue
		}
		kind, inner := "", f.Type
		switch f.Type.Kind() {
		case reflect.String:
			kind = "text"
		case reflect.Int, reflect.Int64:
			kind = "number"
		case reflect.Bool:
			kind = "true or false"
		case reflect.Map:
			kind = "table of numbers"
		case reflect.Pointer:
			kind, inner = "table or null", f.Type.Elem()
		case reflect.Slice:
			if kind, inner = "list of tables", f.Type.Elem(); inner.Kind() == reflect.String {
				kind = "list of texts"
			}
		}
		keys[prefix+key] = kind
		if inner.Kind() == reflect.Struct {
			maps.Copy(keys, explanationKeys(prefix+key+".", inner))
		}
	}
	return keys
}
