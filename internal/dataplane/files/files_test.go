package files

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

var (
	changed = time.Date(2026, 11, 1, 10, 20, 30, 123456789, time.UTC)
	today   = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
)

const digits100 = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"

// site makes a directory with some files and returns it.
func site(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"www/hello.txt": "hello, world\n", "www/index.html": "<p>start", "www/sub/index.html": "<p>sub", "www/sub/page.HTML": "<p>page",
		"www/bare/file": "no type", "www/empty.txt": "", "www/.git/config": "hidden", "www/.htpasswd": "hidden", "www/sub/.env": "hidden",
		"www/.well-known/security.txt": "Contact: x", "www/100.bin": digits100, "www/a b+ü%.txt": "odd name", "secret.txt": "outside",
		"www/big.bin": strings.Repeat(digits100, 30),
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(p, changed, changed); err != nil {
			t.Fatal(err)
		}
	}
	www := filepath.Join(dir, "www")
	for link, to := range map[string]string{"out.txt": "../secret.txt", "abs.txt": filepath.Join(dir, "secret.txt"), "in.txt": "hello.txt", "up": "..", "loop": "loop", "subs": "sub"} {
		if err := os.Symlink(to, filepath.Join(www, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(www, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	return www
}

// A reply is what a client would get.
type reply struct {
	status int
	header http.Header
	body   string
	length int64
	word   string
}

// ask has a tree answer one request.
func ask(t testing.TB, tree *Tree, method, target string, fields ...string) reply {
	t.Helper()
	x := &dataplane.Exchange{}
	x.Mark.Scheme, x.Mark.Authority = []byte("https"), []byte("www.example.com:8443")
	q := &x.Request
	path, query, found := strings.Cut(target, "?")
	q.Path = []byte(path)
	if found {
		q.Query = []byte(query)
	}
	q.Method, q.MethodText = map[string]dataplane.Method{"GET": dataplane.GET, "HEAD": dataplane.HEAD, "POST": dataplane.POST, "OPTIONS": dataplane.OPTIONS}[method], []byte(method)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		q.Header.Add(dataplane.Other, []byte(name), []byte(value))
	}
	out := reply{word: tree.Answer(x, today), header: http.Header{}}
	r := &x.Response
	out.status, out.length = r.Status, r.Length
	for _, f := range r.Header {
		out.header.Add(string(f.Name), string(f.Value))
	}
	switch {
	case r.File != nil:
		b, err := io.ReadAll(io.NewSectionReader(r.File.File, r.File.From, r.File.Size))
		if err != nil {
			t.Fatal(err)
		}
		out.body = string(b)
		r.File.File.Close()
	case r.Read != nil:
		b, err := io.ReadAll(r.Read)
		if err != nil {
			t.Fatal(err)
		}
		out.body = string(b)
		r.Read.Close()
	default:
		out.body = string(r.Body)
	}
	if method != "HEAD" && r.Length >= 0 && r.Status != 304 && int64(len(out.body)) != r.Length {
		t.Errorf("%s %s: %d bytes of body, length %d", method, target, len(out.body), r.Length)
	}
	return out
}

func TestWhichFileAPathNames(t *testing.T) { // C2, C6
	tree := New(site(t), []string{"index.html", "index.htm"})
	for _, c := range []struct {
		path string
		want int
		body string
	}{
		{"/hello.txt", 200, "hello, world\n"},
		{"/", 200, "<p>start"},
		{"/sub/", 200, "<p>sub"},
		{"/sub/page.HTML", 200, "<p>page"},
		{"/subs/", 200, "<p>sub"},
		{"/in.txt", 200, "hello, world\n"},
		{"/empty.txt", 200, ""},
		{"/a%20b+%C3%BC%25.txt", 200, "odd name"},
		{"/.well-known/security.txt", 200, "Contact: x"},
		{"/sub", 301, ""},
		{"/sub/.well-known/x", 404, ""},
		{"/none", 404, ""},
		{"/hello.txt/", 404, ""},
		{"/hello.txt/x", 404, ""},
		{"/bare/", 404, ""},
		{"/out.txt", 404, ""},
		{"/abs.txt", 404, ""},
		{"/up/secret.txt", 404, ""},
		{"/up/", 404, ""},
		{"/loop", 404, ""},
		{"/pipe", 404, ""},
		{"/.git/config", 404, ""},
		{"/.htpasswd", 404, ""},
		{"/sub/.env", 404, ""},
		{"/%2Egit/config", 404, ""},
		{"/sub%2Fpage.HTML", 404, ""},
		{"/sub%2f..%2f..%2fsecret.txt", 404, ""},
		{"/%2e%2e/secret.txt", 404, ""},
		{"/../secret.txt", 404, ""},
		{"/hello.txt%00", 404, ""},
		{"/hello%0a.txt", 404, ""},
		{"/sub%5Cpage.HTML", 404, ""},
		{"/hello.txt%", 404, ""},
		{"/hello.txt%2", 404, ""},
		{"/hello.txt%zz", 404, ""},
		{"/" + strings.Repeat("x", 300), 404, ""},
		{"*", 404, ""},
		{"", 404, ""},
	} {
		got := ask(t, tree, "GET", c.path)
		if got.status != c.want || c.want == 200 && got.body != c.body {
			t.Errorf("GET %s = %d %q (%s), want %d %q", c.path, got.status, got.body, got.word, c.want, c.body)
		}
		if got.status >= 400 && strings.Contains(fmt.Sprint(got), "www/") {
			t.Errorf("GET %s tells where the files are: %v", c.path, got)
		}
	}
}

func TestADirectoryIsRedirectedToItsSlash(t *testing.T) { // C7
	tree := New(site(t), nil)
	got := ask(t, tree, "GET", "/sub?a=b")
	if got.status != 301 || got.header.Get("Location") != "https://www.example.com:8443/sub/?a=b" {
		t.Errorf("got %d to %q", got.status, got.header.Get("Location"))
	}
	x := &dataplane.Exchange{}
	x.Request.Method, x.Request.Path = dataplane.GET, []byte("/sub")
	if word := tree.Answer(x, today); word != NotFound {
		t.Errorf("without a host of the client's: %s", word)
	}
}

func TestARootThatIsNotThere(t *testing.T) {
	if got := ask(t, New("/does/not/exist", nil), "GET", "/"); got.status != 404 {
		t.Errorf("got %d", got.status)
	}
}

func TestMethods(t *testing.T) { // RFC 9110, 9.3
	tree := New(site(t), nil)
	for _, m := range []string{"POST", "OPTIONS", "BREW"} {
		if got := ask(t, tree, m, "/hello.txt"); got.status != 405 || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s = %d, Allow %q", m, got.status, got.header.Get("Allow"))
		}
	}
	got := ask(t, tree, "HEAD", "/hello.txt", "Range: bytes=0-1")
	if got.status != 200 || got.length != 13 || got.body != "" {
		t.Errorf("HEAD with Range (14.2) = %d, length %d, body %q", got.status, got.length, got.body)
	}
}

func TestTypes(t *testing.T) {
	tree := New(site(t), []string{"index.html"})
	for path, want := range map[string]string{"/hello.txt": "text/plain; charset=utf-8", "/sub/page.HTML": "text/html; charset=utf-8", "/bare/file": octets, "/100.bin": octets} {
		got := ask(t, tree, "GET", path)
		if got.header.Get("Content-Type") != want || got.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is %q, %q", path, got.header.Get("Content-Type"), got.header.Get("X-Content-Type-Options"))
		}
	}
}

// TestRFC9110 holds the conditions and ranges by section.
func TestRFC9110(t *testing.T) {
	tree := New(site(t), nil)
	whole := ask(t, tree, "GET", "/100.bin")
	tag := whole.header.Get("ETag")
	same := changed.Format(http.TimeFormat)
	before, after := changed.Add(-time.Hour).Format(http.TimeFormat), changed.Add(time.Hour).Format(http.TimeFormat)
	if whole.header.Get("Last-Modified") != same || !strings.HasPrefix(tag, `"`) || whole.header.Get("Accept-Ranges") != "bytes" {
		t.Fatalf("header %v", whole.header)
	}
	for _, c := range []struct {
		why    string
		fields []string
		want   int
		body   string
	}{
		{"13.1.1: a matching tag", []string{"If-Match: " + tag}, 200, digits100},
		{"13.1.1: one of a list", []string{`If-Match: "a", ` + tag}, 200, digits100},
		{"13.1.1: a list of two lines", []string{`If-Match: "a"`, "If-Match: " + tag}, 200, digits100},
		{"13.1.1: any", []string{"If-Match: *"}, 200, digits100},
		{"13.1.1: another tag", []string{`If-Match: "a"`}, 412, ""},
		{"13.1.1: a weak tag is no strong match", []string{"If-Match: W/" + tag}, 412, ""},
		{"13.1.1: goes before If-Unmodified-Since", []string{"If-Match: " + tag, "If-Unmodified-Since: " + before}, 200, digits100},
		{"13.1.2: a matching tag", []string{"If-None-Match: " + tag}, 304, ""},
		{"13.1.2: a weak match is enough", []string{"If-None-Match: W/" + tag}, 304, ""},
		{"13.1.2: a list without spaces", []string{`If-None-Match: "a,b",` + tag}, 304, ""},
		{"13.1.2: a tag within another", []string{`If-None-Match: "x` + tag[1:]}, 200, digits100},
		{"13.1.2: any", []string{"If-None-Match: *"}, 304, ""},
		{"13.1.2: another tag", []string{`If-None-Match: "a"`}, 200, digits100},
		{"13.1.2: no tag at all", []string{"If-None-Match: a"}, 200, digits100},
		{"13.1.3: not changed since", []string{"If-Modified-Since: " + same}, 304, ""},
		{"13.1.3: not changed since later", []string{"If-Modified-Since: " + after}, 304, ""},
		{"13.1.3: changed since", []string{"If-Modified-Since: " + before}, 200, digits100},
		{"13.1.3: ignored beside If-None-Match", []string{`If-None-Match: "a"`, "If-Modified-Since: " + after}, 200, digits100},
		{"13.1.3: no date is ignored", []string{"If-Modified-Since: yesterday"}, 200, digits100},
		{"13.1.3: an obsolete form of a date", []string{"If-Modified-Since: " + changed.Format(time.RFC850[:len(time.RFC850)-3]+"GMT")}, 304, ""},
		{"13.1.4: not changed since", []string{"If-Unmodified-Since: " + same}, 200, digits100},
		{"13.1.4: changed since", []string{"If-Unmodified-Since: " + before}, 412, ""},
		{"13.1.4: no date is ignored", []string{"If-Unmodified-Since: 1"}, 200, digits100},
		{"13.1.5: the tag is still the same", []string{"If-Range: " + tag, "Range: bytes=0-1"}, 206, "01"},
		{"13.1.5: another tag", []string{`If-Range: "a"`, "Range: bytes=0-1"}, 200, digits100},
		{"13.1.5: a weak tag never matches", []string{"If-Range: W/" + tag, "Range: bytes=0-1"}, 200, digits100},
		{"13.1.5: the date is still the same", []string{"If-Range: " + same, "Range: bytes=0-1"}, 206, "01"},
		{"13.1.5: another date, later too", []string{"If-Range: " + after, "Range: bytes=0-1"}, 200, digits100},
		{"13.1.5: without Range", []string{"If-Range: " + tag}, 200, digits100},
		{"13.2.2: a condition that fails goes before a range", []string{`If-Match: "a"`, "Range: bytes=0-1"}, 412, ""},
		{"13.2.2: 304 goes before a range", []string{"If-None-Match: " + tag, "Range: bytes=0-1"}, 304, ""},
		{"14.1.2: first and last", []string{"Range: bytes=2-4"}, 206, "234"},
		{"14.1.2: one byte", []string{"Range: bytes=99-99"}, 206, "9"},
		{"14.1.2: to the end", []string{"Range: bytes=97-"}, 206, "789"},
		{"14.1.2: beyond the end", []string{"Range: bytes=97-1000"}, 206, "789"},
		{"14.1.2: the last bytes", []string{"Range: bytes=-3"}, 206, "789"},
		{"14.1.2: more last bytes than there are", []string{"Range: bytes=-1000"}, 206, digits100},
		{"14.1.2: a number too large for any file", []string{"Range: bytes=98-99999999999999999999999"}, 206, "89"},
		{"14.1: the unit in any case", []string{"Range: Bytes=0-0"}, 206, "0"},
		{"14.1.2: empty elements", []string{"Range: bytes=,0-1 , ,"}, 206, "01"},
		{"14.2: an unknown unit is ignored", []string{"Range: lines=0-1"}, 200, digits100},
		{"14.2: two fields are ignored", []string{"Range: bytes=0-1", "Range: bytes=2-3"}, 200, digits100},
		{"14.1.2: last before first", []string{"Range: bytes=4-2"}, 416, ""},
		{"14.1.2: no range", []string{"Range: bytes=a-b"}, 416, ""},
		{"14.1.2: none at all", []string{"Range: bytes="}, 416, ""},
		{"15.5.17: beyond the file", []string{"Range: bytes=100-"}, 416, ""},
		{"15.5.17: the last no bytes", []string{"Range: bytes=-0"}, 416, ""},
		{"15.5.17: a number too large to begin with", []string{"Range: bytes=99999999999999999999999-"}, 416, ""},
		{"14.2: one of two is there", []string{"Range: bytes=1000-,0-1"}, 206, "01"},
		{"15.3.7.2: ranges that overlap are joined", []string{"Range: bytes=0-5,3-8"}, 206, "012345678"},
		{"15.3.7.2: ranges that nearly touch are joined", []string{"Range: bytes=0-1,4-5"}, 206, "012345"},
		{"14.2: too many ranges are ignored", []string{"Range: bytes=" + strings.Repeat("0-1,", 17)}, 200, digits100},
	} {
		got := ask(t, tree, "GET", "/100.bin", c.fields...)
		if got.status != c.want || c.want < 300 && got.body != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.why, got.status, got.body, c.want, c.body)
		}
		switch {
		case got.status == 416 && got.header.Get("Content-Range") != "bytes */100":
			t.Errorf("%s: Content-Range %q", c.why, got.header.Get("Content-Range"))
		case got.status == 304 && (got.header.Get("ETag") != tag || got.header.Get("Content-Type") != "" || got.length != -1):
			t.Errorf("%s: 304 (15.4.5) with %v, length %d", c.why, got.header, got.length)
		case got.status == 412 && got.body != "412 Precondition Failed\n":
			t.Errorf("%s: %q", c.why, got.body)
		}
	}
	if got := ask(t, tree, "GET", "/empty.txt", "Range: bytes=0-"); got.status != 200 {
		t.Errorf("a range of an empty file = %d, want all of it", got.status)
	}
}

func TestSeveralRangesAreParts(t *testing.T) { // RFC 9110, 14.6
	tree := New(site(t), nil)
	got := ask(t, tree, "GET", "/big.bin", "Range: bytes=2900-, 10-14 ,1500-1501")
	if got.status != 206 || got.header.Get("Content-Range") != "" {
		t.Fatalf("got %d, header %v", got.status, got.header)
	}
	kind, params, err := mime.ParseMediaType(got.header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("Content-Type %q: %v", got.header.Get("Content-Type"), err)
	}
	parts := multipart.NewReader(strings.NewReader(got.body), params["boundary"])
	for _, want := range []struct{ span, body string }{{"bytes 2900-2999/3000", digits100}, {"bytes 10-14/3000", "01234"}, {"bytes 1500-1501/3000", "01"}} {
		p, err := parts.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil || string(body) != want.body || p.Header.Get("Content-Range") != want.span || p.Header.Get("Content-Type") != octets {
			t.Errorf("part %v %q (%v), want %v", p.Header, body, err, want)
		}
	}
	if _, err := parts.NextRawPart(); err != io.EOF {
		t.Errorf("after the last part: %v", err)
	}
}

// TestAsServeContent compares with net/http where both read the RFC alike.
func TestAsServeContent(t *testing.T) {
	www := site(t)
	tree := New(www, nil)
	tag := ask(t, tree, "GET", "/100.bin").header.Get("ETag")
	same, before, after := changed.Format(http.TimeFormat), changed.Add(-time.Hour).Format(http.TimeFormat), changed.Add(time.Hour).Format(http.TimeFormat)
	matches := []string{"", "If-Match: " + tag, `If-Match: "x"`, "If-Match: *", "If-Match: W/" + tag}
	nones := []string{"", "If-None-Match: " + tag, `If-None-Match: "x", W/` + tag, `If-None-Match: "x"`, "If-None-Match: *"}
	since := []string{"", "If-Modified-Since: " + same, "If-Modified-Since: " + before, "If-Modified-Since: nonsense"}
	unmodified := []string{"", "If-Unmodified-Since: " + same, "If-Unmodified-Since: " + before, "If-Unmodified-Since: " + after}
	ranges := []string{"", "Range: bytes=0-9", "Range: bytes=-5", "Range: bytes=90-", "Range: bytes=100-", "Range: bytes=5-2", "Range: bytes=0-0,2000-"}
	ifRanges := []string{"", "If-Range: " + tag, `If-Range: "x"`, "If-Range: " + same, "If-Range: " + before}
	content := []byte(digits100)
	for _, a := range matches {
		for _, b := range nones {
			for _, c := range since {
				for _, d := range unmodified {
					for _, e := range ranges {
						for _, f := range ifRanges {
							var fields []string
							theirs := httptest.NewRequest("GET", "/100.bin", nil)
							for _, line := range []string{a, b, c, d, e, f} {
								if name, value, ok := strings.Cut(line, ": "); ok {
									fields = append(fields, line)
									theirs.Header.Set(name, value)
								}
							}
							w := httptest.NewRecorder()
							w.Header().Set("ETag", tag)
							http.ServeContent(w, theirs, "100.bin", changed, bytes.NewReader(content))
							want := w.Result()
							got := ask(t, tree, "GET", "/100.bin", fields...)
							body, _ := io.ReadAll(want.Body)
							if got.status != want.StatusCode || got.status < 300 && (got.body != string(body) ||
								got.header.Get("Content-Range") != want.Header.Get("Content-Range")) {
								t.Fatalf("%q: %d %q %q, net/http %d %q %q", fields, got.status, got.header.Get("Content-Range"), got.body,
									want.StatusCode, want.Header.Get("Content-Range"), body)
							}
						}
					}
				}
			}
		}
	}
}

func FuzzLocalName(f *testing.F) {
	for _, s := range []string{"/", "/a/b", "/%2e%2e/x", "/a%2fb", "/.git", "/%00", "/a//b", "/a/./b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, path []byte) {
		name, ok := localName(path)
		if !ok {
			return
		}
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\x00\\\n") || strings.Contains("/"+name, "/.") && name != "." && !strings.HasPrefix(name, ".well-known") {
			t.Errorf("%q stands for %q", path, name)
		}
	})
}

func FuzzRanges(f *testing.F) {
	f.Add("bytes=0-1,-5,7-", int64(100))
	f.Add("bytes=99999999999999999999-", int64(1))
	f.Fuzz(func(t *testing.T, value string, size int64) {
		if size < 0 {
			return
		}
		spans, _ := parseRanges(dataplane.Header{{Name: []byte("Range"), Value: []byte(value)}}, size)
		total := int64(0)
		for _, s := range spans {
			if s.from < 0 || s.size <= 0 || s.from > size-s.size {
				t.Errorf("%q of %d: %v", value, size, s)
			}
			total += s.size
		}
		if total > size {
			t.Errorf("%q of %d gives %d bytes", value, size, total)
		}
	})
}

func FuzzTags(f *testing.F) {
	f.Add(`"a", W/"b"`)
	f.Fuzz(func(t *testing.T, list string) {
		tag := []byte(`"1-2"`)
		if hasTag([]byte(list), tag, false) && !hasTag([]byte(list), tag, true) {
			t.Errorf("%q matches strongly and not weakly", list)
		}
	})
}
