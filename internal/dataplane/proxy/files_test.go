package proxy

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

func TestWholeFilesBelowAStrippedPrefix(t *testing.T) { // C3, C7
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "x.txt"), []byte("found"), 0o644); err != nil {
		t.Fatal(err)
	}
	w := newWhole(t, parsed(t, "[listener.web]\naddress = \"127.0.0.1:8080\"\n[[route]]\npath = \"/docs/*\"\nstrip_prefix = \"/docs\"\nfiles = { root = \""+dir+"\" }\n"))
	if status, body, err := w.get("/docs/sub/x.txt"); err != nil || status != 200 || body != "found" {
		t.Errorf("got %d %q, %v", status, body, err)
	}
	// What an index says of its neighbours would lead beside the directory otherwise.
	for asked, want := range map[string]string{"/docs/sub?a=b": "/docs/sub/?a=b", "/docs": "/docs/"} {
		r, err := w.client.Get("http://" + w.address + asked)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 301 || r.Header.Get("Location") != "http://"+w.address+want {
			t.Errorf("%s: %d to %q, want %s", asked, r.StatusCode, r.Header.Get("Location"), want)
		}
	}
}

func TestWholeFiles(t *testing.T) {
	dir := t.TempDir()
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	if err := os.WriteFile(filepath.Join(dir, "large.bin"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWhole(t, parsed(t, "[listener.web]\naddress = \"127.0.0.1:8080\"\n[[route]]\nname = \"files\"\nfiles = { root = \""+dir+"\" }\n"))
	get := func(path, ranges string) (*http.Response, []byte) {
		t.Helper()
		q, err := http.NewRequest("GET", "http://"+w.address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if ranges != "" {
			q.Header.Set("Range", ranges)
		}
		r, err := w.client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r, body
	}
	if r, body := get("/large.bin", ""); r.StatusCode != 200 || !bytes.Equal(body, large) {
		t.Errorf("a large file: %d, %d bytes", r.StatusCode, len(body))
	}
	if r, body := get("/large.bin", "bytes=100-500000"); r.StatusCode != 206 || !bytes.Equal(body, large[100:500001]) {
		t.Errorf("a part of it: %d, %d bytes", r.StatusCode, len(body))
	}
	if r, body := get("/large.bin", "bytes=0-1,9000-9001"); r.StatusCode != 206 || !bytes.Contains(body, []byte("bytes 9000-9001/1048576")) {
		t.Errorf("two parts: %d %q", r.StatusCode, body)
	}
	if r, _ := get("/sub", ""); r.StatusCode != 301 || r.Header.Get("Location") != "http://"+w.address+"/sub/" {
		t.Errorf("a directory: %d to %q", r.StatusCode, r.Header.Get("Location"))
	}
	if r, _ := get("/none", ""); r.StatusCode != 404 {
		t.Errorf("no file: %d", r.StatusCode)
	}
}
