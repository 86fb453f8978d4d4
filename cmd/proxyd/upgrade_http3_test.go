package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"proxyd/internal/freeport"
)

// Three upgrades follow each other, and each process has a download by HTTP/3 that ends when all are over:
// what is said on each goes to the process that it began with, and who connects anew comes to
// the newest.
func TestHTTP3OutlivesUpgrades(t *testing.T) {
	const parts = 3
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one") })
	mux.HandleFunc("/held", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "begin ")
		http.NewResponseController(w).Flush()
		select {
		case <-release:
			fmt.Fprint(w, strings.Repeat("x", 1<<20), " end")
		case <-r.Context().Done():
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	dir, address := t.TempDir(), freeport.Address(t)
	cert, key := certificate(t, dir, "shop.example.com", 1)
	p := launchUpgradable(t, fmt.Sprintf("[listener.https]\naddress = %q\ntls = true\nhttp3 = true\n[[cert]]\ncert = %q\nkey = %q\n[pool.web]\nservers = [%q]\n[[route]]\npool = \"web\"\n",
		address, cert, key, strings.TrimPrefix(server.URL, "http://")))

	// ask sends a request by a client of its own.
	ask := func(client *http3.Transport, path string) (*http.Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		t.Cleanup(cancel)
		q, err := http.NewRequestWithContext(ctx, "GET", "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return client.RoundTrip(q)
	}
	fresh := func() *http3.Transport {
		c := &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "shop.example.com"}}
		t.Cleanup(func() { c.Close() })
		return c
	}
	wantOne := func(when string) {
		t.Helper()
		for range 4 {
			r, err := ask(fresh(), "/")
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil || string(b) != "one" {
				t.Errorf("%s: %d %q, %v", when, r.StatusCode, b, err)
			}
		}
	}

	pids := []int{p.pid}
	var held []*http.Response
	for i := range parts {
		wantOne(fmt.Sprintf("before upgrade %d", i+1))
		r, err := ask(fresh(), "/held")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		held = append(held, r)
		p.upgrade("")
		pids = append(pids, p.pid)
	}
	wantOne("after all upgrades")
	for i, pid := range pids {
		if !living(pid) {
			t.Errorf("process %d is over before its download is", i)
		}
	}
	close(release)
	for i, r := range held {
		b, err := io.ReadAll(r.Body)
		if want := 6 + 1<<20 + 4; err != nil || len(b) != want || !strings.HasSuffix(string(b), " end") {
			t.Errorf("the download of process %d has %d bytes, %v, want %d", i, len(b), err, want)
		}
	}
	p.eventually("the processes before the last one end", func() bool {
		for _, pid := range pids[:parts] {
			if living(pid) {
				return false
			}
		}
		return true
	})
	wantOne("when the others have ended")
	// The next one takes the place of one that has ended.
	last := fresh()
	r, err := ask(last, "/")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	p.upgrade("")
	wantOne("after one more upgrade")
}
