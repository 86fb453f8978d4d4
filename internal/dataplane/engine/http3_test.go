package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	qhttp3 "github.com/quic-go/quic-go/http3"
)

// An h3stage is a stage whose client speaks HTTP/3, by quic-go's own client.
type h3stage struct {
	*stage
	endpoint *Endpoint
	client   *qhttp3.Transport
	at       string
}

func newH3Stage(t *testing.T, set func(*stage, *Config)) *h3stage {
	t.Helper()
	s := newStage(t, func(c Config) Engine { return New(c) }, func(s *stage, c *Config) {
		s.sealed = true
		if set != nil {
			set(s, c)
		}
	})
	socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &h3stage{stage: s, at: socket.LocalAddr().String()}
	if h.endpoint, err = s.engine.(*Goroutine).Endpoint(socket, EndpointKeys{Mark: IDMark([2]byte{1, 2}, [3]byte{3, 4, 5})}, s.listener, s); err != nil {
		t.Fatal(err)
	}
	h.client = &qhttp3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true}
	t.Cleanup(func() { h.client.Close() })
	return h
}

// do sends a request and returns the answer with its body.
func (h *h3stage) do(method, path string, body io.Reader) (*http.Response, string, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	q, err := http.NewRequestWithContext(ctx, method, "https://"+h.at+path, body)
	if err != nil {
		h.t.Fatal(err)
	}
	r, err := h.client.RoundTrip(q)
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r, string(b), err
}

func (h *h3stage) want(events ...string) {
	h.t.Helper()
	for _, want := range events {
		if err := h.line("h " + fmt.Sprintf("%q", want)); err != nil {
			h.t.Fatalf("%v; left: %q", err, h.left())
		}
	}
}

func TestHTTP3Exchange(t *testing.T) {
	h := newH3Stage(t, nil)
	r, body, err := h.do("GET", "/answer", nil)
	if err != nil || r.StatusCode != 200 || body != "made here\n" || r.Header.Get("Date") == "" || r.ContentLength != 10 || r.Proto != "HTTP/3.0" {
		t.Fatalf("%v %q %v", r, body, err)
	}
	h.want("end ok")
	got := make(chan string, 1)
	go func() {
		r, body, err := h.do("POST", "/", strings.NewReader("hello"))
		got <- fmt.Sprint(r != nil && r.StatusCode == 200, body, err)
	}()
	h.play(`
		s+
		s< "POST / HTTP/1.1\r\nHost: ` + h.at + `\r\nuser-agent: quic-go HTTP/3\r\nContent-Length: 5\r\n\r\nhello"
		s> "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
		h "end ok"
	`)
	if said := <-got; said != "trueyes<nil>" {
		t.Error(said)
	}
}

func TestHTTP3BodiesOfAnyLength(t *testing.T) {
	h := newH3Stage(t, nil)
	large := strings.Repeat("0123456789abcdef", 40000)
	go func() {
		r, body, err := h.do("POST", "/", io.MultiReader(strings.NewReader(large), bytes.NewReader(nil))) // of no known length
		if err != nil || r.StatusCode != 200 || body != large {
			t.Errorf("%v, %d bytes, %v", r, len(body), err)
		}
		h.events <- "done"
	}()
	h.play("s+\n")
	conn := h.conns[len(h.conns)-1]
	q, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(q.Body)
	if err != nil || string(b) != large {
		t.Fatalf("the server got %d bytes, %v", len(b), err)
	}
	fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(large), large)
	h.want("end ok", "done")
}

func TestHTTP3ClientGone(t *testing.T) {
	h := newH3Stage(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	q, err := http.NewRequestWithContext(ctx, "GET", "https://"+h.at+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := h.client.RoundTrip(q)
		failed <- err
	}()
	h.play("s+\ns< \"GET / HTTP/1.1\\r\\nHost: " + h.at + "\\r\\nuser-agent: quic-go HTTP/3\\r\\n\\r\\n\"\n")
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.want("retry client_gone replayable=true sent=true", "end client_gone")
	h.play("s<over\n")
}

func TestHTTP3RefusesAsHTTP1(t *testing.T) {
	h := newH3Stage(t, func(s *stage, _ *Config) { s.listener.Limits.HeaderBytes, s.listener.Limits.URIBytes = 2000, 1000 })
	r, _, err := h.do("GET", "/"+strings.Repeat("a", 1500), nil)
	if err != nil || r.StatusCode != 414 {
		t.Errorf("%v, %v", r, err)
	}
	h.want("refused uri_size")
	r, _, err = h.do("GET", "/%00", nil)
	if err != nil || r.StatusCode != 400 {
		t.Errorf("%v, %v", r, err)
	}
	h.want("refused path")
}

func TestHTTP3Drain(t *testing.T) {
	h := newH3Stage(t, nil)
	if _, _, err := h.do("GET", "/answer", nil); err != nil {
		t.Fatal(err)
	}
	h.want("end ok")
	got := make(chan string, 1)
	go func() {
		r, body, err := h.do("GET", "/", nil)
		got <- fmt.Sprint(r != nil && r.StatusCode == 200, body, err)
	}()
	h.play("s+\ns< \"GET / HTTP/1.1\\r\\nHost: " + h.at + "\\r\\nuser-agent: quic-go HTTP/3\\r\\n\\r\\n\"\n")
	ended := make(chan error, 1)
	go func() { ended <- h.engine.Shutdown(t.Context()) }()
	for h.endpoint.life.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	h.play(`
		s> "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes"
		h "end ok"
	`)
	if said := <-got; said != "trueyes<nil>" {
		t.Error(said)
	}
	if err := <-ended; err != nil {
		t.Errorf("Shutdown = %v", err)
	}
}

// D1: a client that gives up one request after the other is cut off.
func TestD1HTTP3ResetsAreLimited(t *testing.T) {
	h := newH3Stage(t, nil)
	conn, err := quic.DialAddr(t.Context(), h.at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // so that nothing waits for the test to look
		for range h.events {
		}
	}()
	for range 1000 {
		s, err := conn.OpenStream()
		if err != nil {
			s, err = conn.OpenStreamSync(t.Context())
		}
		if err != nil {
			var e *quic.ApplicationError
			if !errors.As(err, &e) || !e.Remote || e.ErrorCode != 0x107 {
				t.Errorf("the connection ended with %v", err)
			}
			return
		}
		s.Write([]byte{1, 0})
		s.CancelWrite(0x10c)
		s.CancelRead(0x10c)
	}
	select {
	case <-conn.Context().Done():
	case <-time.After(patience):
		t.Error("a thousand resets, and the connection lives")
	}
}
