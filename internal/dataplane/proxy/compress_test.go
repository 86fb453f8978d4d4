package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	gzipreader "github.com/klauspost/compress/gzip"
)

const compressAll = "[policy.small]\ncompress = true\n"

// compressing is a whole data plane whose one route compresses.
func compressing(t *testing.T, app http.HandlerFunc) *whole {
	t.Helper()
	text := "[node]\nname = \"edge-1\"\n[listener.web]\naddress = \"127.0.0.1:8080\"\n" + compressAll +
		"[[route]]\nuse = \"small\"\nto = [\"" + server(t, app) + "\"]\n" +
		"[[route]]\npath = \"/ours\"\nuse = \"small\"\nrespond = { body = \"" + strings.Repeat("ours ", 1000) + "\" }\n"
	return newWhole(t, parsed(t, text))
}

func (w *whole) ask(method, path string, fields ...string) *http.Response {
	w.t.Helper()
	q, err := http.NewRequest(method, "http://"+w.address+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		q.Header.Add(name, value)
	}
	r, err := w.client.Do(q)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Body.Close() })
	return r
}

func gunzip(t *testing.T, r io.Reader) string {
	t.Helper()
	z, err := gzipreader.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWholeCompression(t *testing.T) {
	text := strings.Repeat("all work and no play ", 20_000)
	w := compressing(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("ETag", `"a"`)
		if r.URL.Path == "/counted" {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		}
		io.WriteString(w, text)
	})
	for _, path := range []string{"/counted", "/chunked", "/ours"} {
		want := text
		if path == "/ours" {
			want = strings.Repeat("ours ", 1000)
		}
		for range 3 { // on one connection
			r := w.ask("GET", path, "Accept-Encoding: gzip")
			if got := gunzip(t, r.Body); got != want || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: %d bytes with %v", path, len(got), r.Header)
			}
			if tag := r.Header.Get("ETag"); path != "/ours" && tag != `W/"a"` {
				t.Errorf("%s: ETag %s", path, tag)
			}
			h := w.ask("HEAD", path, "Accept-Encoding: gzip")
			for _, name := range []string{"Content-Encoding", "Vary", "Etag", "Content-Type"} {
				if h.Header.Get(name) != r.Header.Get(name) {
					t.Errorf("%s: %s is %q for HEAD and %q for GET", path, name, h.Header.Get(name), r.Header.Get(name))
				}
			}
			if h.Header.Get("Content-Length") != "" {
				t.Errorf("%s: HEAD says Content-Length %s", path, h.Header.Get("Content-Length"))
			}
		}
		r := w.ask("GET", path)
		if b, _ := io.ReadAll(r.Body); string(b) != want || r.Header.Get("Content-Encoding") != "" || r.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s as it is: %d bytes with %v", path, len(b), r.Header)
		}
	}
	for _, d := range w.coders.Done() {
		if want := map[string]uint64{"gzip": 9}[d.Coding]; d.Answers != want {
			t.Errorf("%d answers were counted for %s, want %d", d.Answers, d.Coding, want)
		}
	}
}

func TestWholeCompressionForHTTP10(t *testing.T) {
	text := strings.Repeat("all work and no play ", 20_000)
	w := compressing(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, text)
	})
	c, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := gunzip(t, r.Body); got != text || r.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%d bytes with %v", len(got), r.Header)
	}
}

// What a server says comes through while it pauses.
func TestWholeCompressionOfAStream(t *testing.T) {
	next := make(chan string)
	w := compressing(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for event := range next {
			io.WriteString(w, event)
			w.(http.Flusher).Flush()
		}
	})
	go func() { next <- "data: 0\n\n" }()
	r := w.ask("GET", "/", "Accept-Encoding: gzip")
	z, err := gzipreader.NewReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for i := range 3 {
		if i > 0 {
			next <- fmt.Sprintf("data: %d\n\n", i)
		}
		n, err := io.ReadFull(z, buf[:len("data: 0\n\n")])
		if got := string(buf[:n]); err != nil || got != fmt.Sprintf("data: %d\n\n", i) {
			t.Fatalf("event %d: %q, %v", i, got, err)
		}
	}
	close(next)
	if rest, err := io.ReadAll(z); err != nil || len(rest) > 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

// A body that breaks off must not look whole, though its encoder could end it well.
func TestWholeCompressionOfABodyThatBreaksOff(t *testing.T) { // H0
	w := compressing(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "1000000")
		io.WriteString(w, strings.Repeat("a line of it\n", 10_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	r, err := w.client.Do(func() *http.Request {
		q, _ := http.NewRequest("GET", "http://"+w.address+"/", nil)
		q.Header.Set("Accept-Encoding", "gzip")
		return q
	}())
	if err != nil {
		return // before a byte: just as well
	}
	defer r.Body.Close()
	if _, err := io.ReadAll(r.Body); err == nil && r.StatusCode == 200 {
		t.Error("the client takes the body for whole")
	}
}
