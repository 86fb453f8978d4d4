package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// A ponderer asks another server, but takes its time to say so.
type ponderer struct {
	*stage
	asked, decide chan struct{}
}

func (p *ponderer) Respond(x *dataplane.Exchange) dataplane.Verdict {
	if !x.Replayable || x.Attempt == 2 {
		return p.stage.Respond(x)
	}
	close(p.asked)
	<-p.decide
	x.Server, x.Attempt = &p.other, 2
	x.Response.Reset()
	return dataplane.Again
}

// While the handler ponders an answer that came early, the client sends more than is
// kept. Whoever is asked then gets all of it: nothing is read that could not be kept.
func TestNoServerGetsABodyWithAHole(t *testing.T) {
	for name, newEngine := range map[string]func(Config) Engine{
		"goroutine": func(c Config) Engine { return New(c) },
		"loop":      func(c Config) Engine { return NewLoop(c) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, newEngine, nil)
			s.route.Heavy = true // a loop must not be made to wait
			p := &ponderer{stage: s, asked: make(chan struct{}), decide: make(chan struct{})}
			l := listen(t)
			served := make(chan error, 1)
			go func() { served <- s.engine.Serve(s.listener, l, p) }()
			t.Cleanup(func() { l.Close(); <-served })

			client, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(patience))
			var body strings.Builder
			for i := range 10_000 {
				fmt.Fprintf(&body, "%07d\n", i)
			}
			fmt.Fprintf(client, "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
			first, _ := take(t, s.server)
			io.WriteString(first, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			<-p.asked
			sent := make(chan error, 1)
			go func() { // ends when all is sent, or with the client
				w := httputil.NewChunkedWriter(client)
				_, err := io.WriteString(w, body.String())
				w.Close()
				io.WriteString(client, "\r\n")
				sent <- err
			}()
			// What can be kept goes on to the first server while the handler ponders.
			if _, err := io.ReadFull(first, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			close(p.decide)
			second, r := take(t, s.spare)
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != body.String() {
				t.Fatalf("the second server got %d bytes of %d, %v", len(got), body.Len(), err)
			}
			io.WriteString(second, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("the client got %v, %v, want 200", answer, err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
		})
	}
}

// take accepts the next connection of a server and reads the head of its request.
func take(t *testing.T, l net.Listener) (net.Conn, *http.Request) {
	t.Helper()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		t.Fatal(err)
	}
	return c, r
}
