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

// A client that speaks as the URL says is not served by a listener that speaks otherwise.
func TestExplainTellsThatASchemeDoesNotFitTheListener(t *testing.T) {
	conf := base()
	conf.Limits.HeaderBytes, conf.Limits.URIBytes, conf.Limits.Fields = 1<<15, 1<<13, 100
	conf.Node.TrustedProxies = networks("198.51.100.0/24")
	conf.Listener = map[string]*config.Listener{
		"http":  {Name: "http", Address: []string{"192.0.2.1:80", ":8080"}},
		"https": {Name: "https", Address: []string{"192.0.2.1:443"}, TLS: true},
	}
	for _, c := range []struct {
		q                          Question
		listener, scheme, port, is string
	}{
		{Question{URL: "http://h/"}, "http", "http", "80", ""},
		{Question{URL: "https://h/"}, "https", "https", "443", ""},
		{Question{URL: "http://h:443/"}, "https", "https", "443", "speaks https: a client that speaks http there is answered 400 (cleartext)"},
		{Question{URL: "https://h:8080/"}, "http", "http", "8080", "speaks http: a client that speaks https there is answered 400 (tls)"},
		{Question{URL: "http://h/a%00b", Listener: "https"}, "https", "", "", "400 (cleartext)"},
		{Question{URL: "h/", Listener: "https"}, "https", "https", "443", ""},
		// A trusted proxy was asked by https, and asks by http.
		{Question{URL: "https://h/", Listener: "http", Client: "198.51.100.1", Header: []string{"X-Forwarded-Proto: https"}}, "http", "https", "443", ""},
		{Question{URL: "https://h/", Listener: "http", Client: "192.0.2.7", Header: []string{"X-Forwarded-Proto: https"}}, "http", "http", "80", "400 (tls)"},
	} {
		c.q.Method = "GET"
		e, err := Explain(conf, c.q)
		if err != nil {
			t.Fatal(err)
		}
		if e.Listener != c.listener || e.Scheme != c.scheme || e.Port != c.port || (e.Mismatch != "") != (c.is != "") || !strings.Contains(e.Mismatch, c.is) {
			t.Errorf("%+v: listener %s, %s, port %q, mismatch %q; want %s, %s, %q, %q", c.q, e.Listener, e.Scheme, e.Port, e.Mismatch, c.listener, c.scheme, c.port, c.is)
		}
		if e.Speaks != c.listener || !slices.Equal(e.Addresses, conf.Listener[c.listener].Address) {
			t.Errorf("%+v: %v, which speaks %s", c.q, e.Addresses, e.Speaks)
		}
	}
	conf.Listener = nil
	if e, err := Explain(conf, Question{Method: "GET", URL: "h/"}); err != nil || e.Speaks != "http" || !slices.Equal(e.Addresses, []string{":80"}) {
		t.Errorf("without a listener in the file: %+v, %v", e, err)
	}
}

func TestExplainTellsOfTheCertificatesOfAFile(t *testing.T) {
	conf := base()
	conf.Limits.HeaderBytes, conf.Limits.URIBytes, conf.Limits.Fields = 1<<15, 1<<13, 100
	conf.Listener = map[string]*config.Listener{"https": {Name: "https", Address: []string{"192.0.2.1:443"}, TLS: true}}
	conf.Cert = []*config.Cert{certFiles(t, 1, "one.example")}
	conf.Ordered = []string{"new.example", "*.wild.example"}
	ask := func(host string) string {
		t.Helper()
		e, err := Explain(conf, Question{Method: "GET", URL: "https://" + host + "/"})
		if err != nil {
			t.Fatal(err)
		}
		return e.Cert
	}
	for host, want := range map[string]string{
		"one.example":      "one.example (file, ",
		"new.example":      "by ACME",
		"a.wild.example":   "by ACME",
		"a.b.wild.example": "one.example (file, ", // the first is for who asks for no other
	} {
		if got := ask(host); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
	conf.Cert[0].Key = "/nowhere/one.key"
	if got := ask("one.example"); !strings.HasPrefix(got, "not known: ") || !strings.Contains(got, "/nowhere/one.key") {
		t.Errorf("without its key: %q", got)
	}
	conf.Cert = nil
	if got := ask("one.example"); got != "none: the handshake fails" {
		t.Errorf("without certificates: %q", got)
	}
}

func TestExplainTellsHowManyConnectionsThePeerHas(t *testing.T) {
	conf := base()
	conf.Limits = config.Limits{Conns: 100, ConnsPerIP: 2, HeaderBytes: 1 << 15, URIBytes: 1 << 13, Fields: 100}
	conf.Node.TrustedProxies = networks("198.51.100.0/24")
	p, _ := start(t, conf)
	l := &dataplane.Listener{Name: "web"}
	for _, a := range []string{"192.0.2.7:1", "192.0.2.7:2", "198.51.100.1:1"} {
		p.Admit(l, addrPort(a))
	}
	for range floodsAtOnce + 1 {
		if p.Admit(l, addrPort("192.0.2.9:1")) {
			p.Leave(l, addrPort("192.0.2.9:1"), dataplane.ClosedFlood)
		}
	}
	for client, want := range map[string]Connections{
		"192.0.2.7":    {Open: 2, Most: 2},
		"192.0.2.8":    {Open: 0, Most: 2},
		"192.0.2.9":    {Open: 0, Most: 2, Barred: true},
		"198.51.100.1": {Open: 1},
	} {
		e, err := p.Explain(Question{Method: "GET", URL: "h/", Client: client})
		if err != nil || *e.Connections != want || e.Version != 1 {
			t.Errorf("%s: %+v of configuration %d, %v; want %+v", client, e.Connections, e.Version, err, want)
		}
	}
	if e, err := Explain(conf, Question{Method: "GET", URL: "h/"}); err != nil || e.Connections != nil || e.Version != 0 {
		t.Errorf("of a file: %+v of configuration %d, %v", e.Connections, e.Version, err)
	}
}

func TestExplainTellsByWhatAServerIsChosen(t *testing.T) {
	conf := base()
	conf.Limits.HeaderBytes, conf.Limits.URIBytes, conf.Limits.Fields = 1<<15, 1<<13, 100
	conf.Node.State = t.TempDir()
	conf.Pool["app"].Balance, conf.Pool["app"].HashKey = "hash", "header:X-Key"
	conf.Pool["app"].Sticky = &config.Sticky{Cookie: "srv"}
	p, _ := start(t, conf)
	e, err := p.Explain(Question{Method: "GET", URL: "h/", Header: []string{"X-Key: 1", "Cookie: srv=1"}})
	if err != nil || !strings.HasSuffix(e.Hash, ", of header X-Key") || !strings.HasPrefix(e.Cookie, "srv counts for nothing") {
		t.Errorf("Explain() = %+v, %v", e, err)
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
		case reflect.Int, reflect.Int64, reflect.Uint64:
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
