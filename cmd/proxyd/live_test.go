package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"proxyd/internal/freeport"
)

// newLongLived is a server with a WebSocket that echoes at /ws and, at any other path, a
// download that ends when end is closed.
func newLongLived(t *testing.T, end chan struct{}) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ws" {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return // Accept has answered
			}
			defer c.CloseNow()
			for {
				kind, message, err := c.Read(r.Context())
				if err != nil || c.Write(r.Context(), kind, message) != nil {
					return
				}
			}
		}
		for ended := false; !ended; {
			select {
			case <-end:
				ended = true
			case <-time.After(5 * time.Millisecond):
			}
			fmt.Fprint(w, "some ")
			http.NewResponseController(w).Flush()
		}
		fmt.Fprint(w, "end")
	}))
	t.Cleanup(s.Close)
	return s
}

// echoes opens n WebSockets and returns what asks each of them for an echo.
func echoes(t *testing.T, url string, n int) (ask func(when string)) {
	var all []*websocket.Conn
	for range n {
		c, _, err := websocket.Dial(t.Context(), url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseNow() })
		all = append(all, c)
	}
	return func(when string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var wait sync.WaitGroup
		for i, c := range all {
			wait.Go(func() {
				if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
					t.Errorf("%s: WebSocket %d: %v", when, i, err)
				} else if _, got, err := c.Read(ctx); err != nil || string(got) != "hello" {
					t.Errorf("%s: WebSocket %d: %q, %v", when, i, got, err)
				}
			})
		}
		wait.Wait()
	}
}

// TestReloadsAreNotNoticed reloads a hundred times, by each of the ways there are, under
// load and with connections that last; `make drill only=reload` is the same with more of
// each.
func TestReloadsAreNotNoticed(t *testing.T) {
	address, other, end := freeport.Address(t), []string{freeport.Address(t), freeport.Address(t)}, make(chan struct{})
	stays := newLongLived(t, end)
	quick := newBackend(t)
	conf := func(i int) string {
		text := fmt.Sprintf("node.watch = true\n[pool.long]\nservers = [\"%s\"]\n[pool.quick]\nservers = [%q]\n", stays.Listener.Addr(), quick.address)
		text += fmt.Sprintf("[listener.web]\naddress = %q\n[listener.other]\naddress = %q\n", address, other[i%2])
		text += "[[route]]\nname = \"quick\"\npath = \"/quick\"\npool = \"quick\"\n[[route]]\nname = \"long\"\npool = \"long\"\n"
		for k := range i % 7 {
			text += fmt.Sprintf("[[route]]\nhost = \"%d.example.com\"\npool = \"quick\"\n", i+k)
		}
		return text
	}
	p := launch(t, conf(0))
	ask := echoes(t, "ws://"+address+"/ws", 50)
	ask("before")
	downloaded := make(chan string, 1)
	go func() { // ends with the download
		resp, err := http.Get("http://" + address + "/download")
		if err != nil {
			downloaded <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		downloaded <- fmt.Sprintf("%.5s ... %s %v", body, body[max(0, len(body)-3):], err)
	}()
	l := pour(t, "http://"+address+"/quick")

	var goroutines, files float64
	for i := range 100 {
		p.write(conf(i + 1))
		switch i % 3 {
		case 0:
			if _, err := p.Reload(t.Context()); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		if i == 20 {
			goroutines, files = p.metric("go_goroutines"), p.metric("process_open_fds")
		}
	}
	p.eventually("the watch has seen the last file", func() bool {
		text, err := p.Config(t.Context())
		return err == nil && strings.Contains(text, other[0])
	})
	ask("after 100 reloads")
	close(end)
	if got := <-downloaded; got != "some  ... end <nil>" {
		t.Errorf("the download ended as %q", got)
	}
	if n, failed := l.end(); failed != nil || n == 0 {
		t.Errorf("of %d requests failed: %v", n, failed)
	}
	// The load and the download have ended by now, so there is less to do than before.
	p.eventually("no more goroutines and files than before", func() bool {
		return p.metric("go_goroutines") <= goroutines && p.metric("process_open_fds") <= files
	})
}
