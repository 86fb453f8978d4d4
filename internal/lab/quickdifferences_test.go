package lab

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A difference is what nginx and proxyd do differently with the quickstart. It is a row of
// the second table in docs/MIGRATE.md, which says why.
type difference struct {
	name   string
	always bool     // it may be in any play; otherwise the play names it
	nginx  []string // facts that it alone has: expressions for the whole of them
	proxyd []string
}

// differences are all there are. What is in none of them is an error, and so is one that
// is not there any more.
var differences = []difference{
	{name: "Server, Date", always: true,
		nginx:  []string{`field Server: nginx/.*`, `field Date: in 0s`},
		proxyd: []string{`field Server: app`, `field Date: Wed, 01 Jan 2020 00:00:00 GMT`}},
	{name: "Via, X-Request-Id", always: true,
		proxyd: []string{`field Via: 1.1 proxyd`, `sent Via: (1.0|1.1|2.0) proxyd`, `(field|sent) X-Request-Id: [0-9a-f]{32}`}},
	{name: "more of the client", always: true,
		proxyd: []string{`sent X-Forwarded-Host: .*`, `sent X-Forwarded-Port: \d+`, `sent Forwarded: for=127.0.0.1;host=".*";proto=https`}},
	{name: "connections to servers", always: true,
		nginx:  []string{`sent version HTTP/1.0`, `sent Connection: close`},
		proxyd: []string{`sent version HTTP/1.1`}},
	{name: "Connection: keep-alive", always: true,
		nginx: []string{`field Connection: keep-alive`}},

	{name: "text of own answers", nginx: nginxText, proxyd: proxydText},
	{name: "text of refusals", nginx: nginxText, proxyd: noText},
	{name: "words of a status",
		nginx:  []string{`reason (Request Entity Too Large|Request-URI Too Large|Not Allowed|Gateway Time-out)`},
		proxyd: []string{`reason (Content Too Large|URI Too Long|Method Not Allowed|Gateway Timeout)`}},
	{name: "unknown host",
		nginx:  append(served, `body "OK"`),
		proxyd: append(proxydText, `status 404`, `reason Not Found`)},
	{name: "paths",
		nginx:  []string{`field Location: .*`, `sent target .*`},
		proxyd: []string{`field Location: .*`, `sent target .*`}},
	{name: "paths that are none", nginx: served, proxyd: append(noText, refused...)},
	{name: "/api",
		nginx:  append(nginxText, `status 301`, `reason Moved Permanently`, `field Location: https://example.com:\d+/api/`),
		proxyd: served},
	{name: "Cache-Control of expires",
		nginx:  []string{`field Cache-Control: max-age=86400`, `field Cache-Control \(2\): public, immutable`},
		proxyd: []string{`field Cache-Control: max-age=86400, public, immutable`}},
	{name: "port in Host",
		nginx:  []string{`sent Host: example.com`},
		proxyd: []string{`sent Host: example.com:443`}},
	{name: "forged fields",
		nginx: []string{`sent X-Forwarded-For: 203.0.113.9, 127.0.0.1`, `sent X-Forwarded-Host: evil.example.org`, `sent X-Forwarded-Port: 80`,
			`sent X-Request-Id: mine`, `sent Forwarded: for=203.0.113.9`, `sent Proxy: http://evil.example.org`},
		proxyd: []string{`sent X-Forwarded-For: 127.0.0.1`}},
	{name: "fields of a hop",
		nginx: []string{`sent X-Private: 1`, `sent Proxy-Authorization: .*`, `sent Proxy-Connection: keep-alive`, `sent Trailer: X-Sum`}},
	{name: "Upgrade", proxyd: []string{`sent Upgrade: websocket`, `sent Connection: upgrade`}},
	{name: "bodies in chunks", nginx: []string{`sent Content-Length: 3`}, proxyd: []string{`sent Transfer-Encoding: chunked`}},
	{name: "Expect: 100-continue", proxyd: []string{`sent Expect: 100-continue`}},
	{name: "X-Accel-*", proxyd: []string{`field X-Accel-(Buffering: no|Expires: 0)`}},
	{name: "places that name a server",
		nginx:  []string{`field (Location:|Refresh: 0; url=) ?http://127.0.0.1:\d+/x`},
		proxyd: []string{`field (Location:|Refresh: 0; url=) ?https://example.com/x`}},
	{name: "TRACE", nginx: []string{`field Connection: close`}, proxyd: []string{`field Allow: .*`}},
	{name: "OPTIONS *",
		nginx:  append(nginxText, refused...),
		proxyd: append(noText, `status 200`, `reason OK`, `field Allow: .*`)},
	{name: "methods in small letters", nginx: append(nginxText, refused...), proxyd: served},
	{name: "a field above 8 KiB", nginx: append(nginxText, refused...), proxyd: served},
}

// Facts that come together. Each has no room left, so that append copies it.
var (
	served = slices.Clip([]string{`status 200`, `reason OK`, `field Content-Type: text/plain`, `field Content-Length: \d`, `field X-Server: .*`,
		`body "(one|two|three)"`, `to .*`, `sent .*`})
	refused    = slices.Clip([]string{`status 400`, `reason Bad Request`, `field Connection: close`})
	nginxText  = slices.Clip([]string{`field Content-Type: text/html`, `field Content-Length: [1-9]\d*`, `body "<html>.*`})
	proxydText = slices.Clip([]string{`field Content-Type: text/plain; charset=utf-8`, `field Content-Length: [1-9]\d*`, `body "\d\d\d .*\\n"`})
	noText     = slices.Clip([]string{`field Content-Length: 0`, `body ""`})
)

// judge compares the facts of a play and says what is wrong: facts that no difference
// explains, and differences that are not there. It notes in seen those that are.
func judge(p play, ofNginx, ofProxyd []string, seen map[string]bool) (problems []string) {
	nginx, proxyd := beyond(ofNginx, ofProxyd), beyond(ofProxyd, ofNginx)
	unseen := slices.Clone(p.differs)
	for _, d := range differences {
		if !d.always && !slices.Contains(p.differs, d.name) {
			continue
		}
		if d.explain(&nginx, &proxyd) {
			seen[d.name] = true
			unseen = slices.DeleteFunc(unseen, func(name string) bool { return name == d.name })
		}
	}
	if len(unseen) > 0 {
		problems = append(problems, fmt.Sprintf("no difference in %q", unseen))
	}
	if len(nginx)+len(proxyd) > 0 {
		problems = append(problems, fmt.Sprintf("not documented\nnginx  %.1000q\nproxyd %.1000q", nginx, proxyd))
	}
	return problems
}

// beyond returns what a has and b has not, each as often as a has it more often.
func beyond(a, b []string) (more []string) {
	b = slices.Clone(b)
	for _, fact := range a {
		if i := slices.Index(b, fact); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			more = append(more, fact)
		}
	}
	return more
}

// explain takes away what d explains, and reports whether there was any.
func (d difference) explain(nginx, proxyd *[]string) (found bool) {
	without := func(facts *[]string, forms []string) {
		*facts = slices.DeleteFunc(*facts, func(fact string) bool {
			is := slices.ContainsFunc(forms, func(form string) bool { return regexp.MustCompile(`^(?s:` + form + `)$`).MatchString(fact) })
			found = found || is
			return is
		})
	}
	without(nginx, d.nginx)
	without(proxyd, d.proxyd)
	return found
}

// TestQuickstartDifferencesAreDocumented holds the table of docs/MIGRATE.md and the list
// to each other.
func TestQuickstartDifferencesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/MIGRATE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What differs\n")
	section, _, _ = strings.Cut(section, "\n## ")
	_, table, _ := strings.Cut(section, "|---|---|---|\n")
	var rows, names []string
	for _, line := range strings.Split(table, "\n") {
		if cells := strings.Split(line, " | "); len(cells) == 3 {
			rows = append(rows, strings.ReplaceAll(strings.TrimPrefix(cells[0], "| "), "`", ""))
		}
	}
	for _, d := range differences {
		names = append(names, d.name)
	}
	for _, name := range beyond(names, rows) {
		t.Errorf("docs/MIGRATE.md has no row for %s", name)
	}
	for _, row := range beyond(rows, names) {
		t.Errorf("docs/MIGRATE.md has a row for %s, which no play of the test is about", row)
	}
}
