package route

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"proxyd/internal/config"
)

// A plea is a request as a client writes it.
type plea struct {
	method, host, path, query, field string
	client                           netip.Addr
}

func (p plea) head() string {
	target := p.path
	if p.query != "" {
		target += "?" + p.query
	}
	head := p.method + " " + target + " HTTP/1.1\r\nHost: " + p.host + "\r\n"
	if p.field != "" {
		head += "X-Key: " + p.field + "\r\n"
	}
	return head + "\r\n"
}

// dumb is the specification of Find in the fewest words: of all routes that match, the
// one with the highest rank. It reads the request as the client wrote it.
func dumb(routes []*config.Route, listener string, p plea) int {
	best, bestRank := None, [5]int{-1}
	host := strings.TrimSuffix(strings.ToLower(p.host), ".")
	if name, _, ok := strings.Cut(host, ":"); ok {
		host = strings.TrimSuffix(name, ".")
	}
	path := strings.ReplaceAll(p.path, "//", "/")
	for i, c := range routes {
		hosts, listeners := c.Host, c.Listener
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		if len(listeners) == 0 {
			listeners = []string{""}
		}
		if !dumbConditions(c, p) {
			continue
		}
		for _, l := range listeners {
			if l != "" && l != listener {
				continue
			}
			for _, h := range hosts {
				rank := [5]int{len(l), 0, 0, c.Conditions(), c.Priority}
				switch {
				case h == "":
				case h == host:
					rank[1] = 1000
				case strings.HasPrefix(h, "*.") && strings.HasSuffix(host, h[1:]) && len(host) > len(h)-1:
					rank[1] = len(h)
				default:
					continue
				}
				prefix, wild := strings.CutSuffix(c.Path, "/*")
				switch {
				case c.Path == "" || c.Path == "/*":
				case c.Path[0] == '~':
					if !compiled(c.Path[1:]).MatchString(path) {
						continue
					}
					rank[2] = 1
					if c.RegexFirst {
						rank[2] = 999
					}
				case !wild && c.Path == path:
					rank[2] = 1000
				case wild && (path == prefix || strings.HasPrefix(path, prefix+"/")):
					rank[2] = 1 + len(prefix)
				default:
					continue
				}
				if less(bestRank, rank) {
					best, bestRank = i, rank
				}
			}
		}
	}
	return best
}

func dumbConditions(c *config.Route, p plea) bool {
	if len(c.Method) > 0 && !slices.Contains(c.Method, p.method) {
		return false
	}
	near := len(c.Client) == 0
	for _, n := range c.Client {
		near = near || n.Contains(p.client)
	}
	if !near {
		return false
	}
	values, _ := url.ParseQuery(p.query)
	for name, want := range c.Query {
		found := false
		for _, v := range values[name] {
			found = found || dumbValue(want, v)
		}
		if !found {
			return false
		}
	}
	for _, want := range c.Header {
		if p.field == "" || !dumbValue(want, p.field) {
			return false
		}
	}
	return true
}

func dumbValue(want, value string) bool {
	if strings.HasPrefix(want, "~") {
		return compiled(want[1:]).MatchString(value)
	}
	return want == "*" || want == value
}

var known sync.Map

func compiled(expression string) *regexp.Regexp {
	if re, ok := known.Load(expression); ok {
		return re.(*regexp.Regexp)
	}
	re, _ := known.LoadOrStore(expression, regexp.MustCompile(expression))
	return re.(*regexp.Regexp)
}

func less(a, b [5]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// A world is routes and requests that are likely to meet.
type world struct {
	*rand.Rand
	labels []string
}

func (w *world) one(of ...string) string { return of[w.IntN(len(of))] }

func (w *world) path() string {
	var b strings.Builder
	for range 1 + w.IntN(3) {
		b.WriteString("/" + w.one("a", "b", "ab", "abc", "ba.x"))
	}
	return b.String()
}

func (w *world) host() string {
	var labels []string
	for range 1 + w.IntN(3) {
		labels = append(labels, w.one(w.labels...))
	}
	return strings.Join(labels, ".")
}

func (w *world) route(i int) *config.Route {
	r := &config.Route{Name: fmt.Sprint(i), Priority: i} // no two tie
	for range w.IntN(3) {
		if h := w.one("", "*.") + w.host(); len(r.Host) == 0 || r.Host[0] != h {
			r.Host = append(r.Host, h)
		}
	}
	r.Path = w.one("", "/", "/*", w.path(), w.path()+"/*", w.path()+"/*", "~^/a", `~\.x$`, "~b/a", "~^/(a|b)/ab$")
	r.RegexFirst = strings.HasPrefix(r.Path, "~") && w.IntN(2) == 0
	if w.IntN(4) == 0 {
		r.Listener = []string{"x"}
	}
	if w.IntN(6) == 0 {
		r.Method = []string{w.one("GET", "POST")}
	}
	if w.IntN(6) == 0 {
		r.Query = map[string]string{w.one("v", "w"): w.one("1", "2", "*", "~^1")}
	}
	if w.IntN(6) == 0 {
		r.Header = map[string]string{"X-Key": w.one("one", "two", "*", "~^o")}
	}
	if w.IntN(6) == 0 {
		r.Client = []netip.Prefix{netip.MustParsePrefix(w.one("192.0.2.0/25", "192.0.2.0/24", "2001:db8::/32"))}
	}
	return r
}

func (w *world) plea() plea {
	p := plea{method: w.one("GET", "POST", "PURGE"), host: w.host(), path: w.path(), client: netip.AddrFrom4([4]byte{192, 0, 2, byte(w.IntN(256))})}
	p.query = w.one("", "v=1", "v=2&w=1", "w=10&v", "w=%31")
	p.field = w.one("", "one", "two", "other")
	if w.IntN(4) == 0 {
		p.host = strings.ToUpper(p.host)
	}
	p.host += w.one("", "", ".") + w.one("", "", ":80", ":8080")
	if w.IntN(4) == 0 {
		p.path = strings.Replace(p.path, "/", "//", 1)
	}
	return p
}

// One canonical form is routed on, however many hosts there are and however the client
// writes them (B6, C5).
func TestB6TableAgreesWithTheDumbOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		w := &world{Rand: rnd, labels: []string{"a", "b", "ab", "abc", "ba"}}
		size := 1 + w.IntN(60)
		if n%10 == 0 { // more than a hundred hosts
			size = 500
			for i := range 20 {
				w.labels = append(w.labels, fmt.Sprint("h", i))
			}
		}
		var routes []*config.Route
		for i := range size {
			routes = append(routes, w.route(i))
		}
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		for k := range 100 {
			p := w.plea()
			for _, l := range []string{"x", "y"} {
				r := parsed(t, p.head())
				got, want := table.Find(l, r, From{Client: p.client}), dumb(routes, l, p)
				if got != want {
					t.Fatalf("world %d: Find(%q, %+v) = %d, want %d", n, l, p, got, want)
				}
				if k%20 != 0 {
					continue
				}
				if taken, all := table.Explain(l, r, From{Client: p.client}); taken != got || !consistent(taken, all) {
					t.Fatalf("world %d: Explain(%q, %+v) = %d %+v, want %d first", n, l, p, taken, all, want)
				}
			}
		}
	}
}

// Whatever bytes are a request, the table and the dumb one agree on its canonical form.
func FuzzFind(f *testing.F) {
	f.Add("GET /a//b?v=1 HTTP/1.1\r\nHost: A.b.:80\r\nX-Key: one\r\n\r\n", uint64(1))
	f.Add("GET http://AB.abc./a/../ba.x HTTP/1.1\r\nHost: other\r\n\r\n", uint64(2))
	f.Fuzz(func(t *testing.T, head string, seed uint64) {
		w := &world{Rand: rand.New(rand.NewPCG(seed, 1)), labels: []string{"a", "b", "ab", "abc", "ba"}}
		var routes []*config.Route
		for i := range 40 {
			routes = append(routes, w.route(i))
		}
		table, err := New(routes)
		if err != nil {
			t.Fatal(err)
		}
		var a, b = parsedOrNil(head), parsedOrNil(head)
		if a == nil || len(a.Host) == 0 || strings.Contains(string(a.Host), ":") || strings.Count(strings.ToLower(head), "x-key") > 1 {
			return
		}
		p := plea{method: string(a.MethodText), host: string(a.Host), path: string(a.Path), query: string(a.Query), field: string(a.Header.Find("X-Key")), client: netip.IPv4Unspecified()}
		if _, err := url.ParseQuery(p.query); err != nil || p.method == "HEAD" || p.field == "" && a.Header.Find("X-Key") != nil {
			return // the dumb one knows less
		}
		if got, want := table.Find("x", b, From{Client: p.client}), dumb(routes, "x", p); got != want {
			t.Errorf("Find(%+v) = %d, want %d", p, got, want)
		}
	})
}

// consistent says whether the route that is taken leads those that match, and each of the
// others says what it lacks.
func consistent(taken int, all []Verdict) bool {
	for i, v := range all {
		if v.Matches != (v.Index == taken || v.Less != "") || (v.Index == taken) != (i == 0 && taken != None) || v.Matches && taken == None {
			return false
		}
	}
	return true
}
