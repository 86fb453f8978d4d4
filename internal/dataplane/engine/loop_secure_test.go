package engine

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"
)

func TestDialoguesTLSAtLoopsInBatches(t *testing.T) {
	dialogues(t, func(c Config) Engine { c.Batch = 1; return NewLoop(c) }, func(s *stage, _ *Config) { s.sealed, s.waited = true, true })
}

// After its handshake a connection is a loop's, without a goroutine of its own.
func TestSealedConnectionsAreAtTheLoops(t *testing.T) {
	s := newStage(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.sealed, s.waited = true, true })
	for range 3 {
		s.play(`
			c> "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n"
			c< "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\n\r\nmade here\n"
			h "end ok"
		`)
		if n := s.engine.(*Loop).count.Load(); n != 1 {
			t.Errorf("%d connections are at the loops, want 1", n)
		}
	}
	for s.engine.(*Loop).side.Count(s.local()) > 0 { // its goroutine ends soon after it has given it away
		runtime.Gosched()
	}
	held := 0
	s.eachLoop(func(l *loop) {
		for _, w := range l.table {
			if w != nil && w.client != nil && w.client.tls != nil {
				held += cap(w.client.tls.out) + len(w.client.tls.feed.rest)
				if w.client.tray != nil {
					held++
				}
			}
		}
	})
	if held > 0 {
		t.Errorf("while nothing is said %d bytes are held", held)
	}
}

// Several requests in one record, and one in many, have their answers; so has what comes with
// the end of the connection.
func TestRecordsAndRequests(t *testing.T) {
	const ask = "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, write := range map[string]func(io.Writer){
		"three in one record": func(w io.Writer) { io.WriteString(w, ask+ask+ask) },
		"a record a byte": func(w io.Writer) {
			for _, c := range []byte(ask + ask + ask) {
				w.Write([]byte{c})
			}
		},
		"records between them": func(w io.Writer) { io.WriteString(w, ask+"GE"); io.WriteString(w, ask[2:]+ask) },
	} {
		s := newStage(t, func(c Config) Engine { return NewLoop(c) }, func(s *stage, _ *Config) { s.sealed, s.waited = true, true })
		tcp, err := net.Dial("tcp", s.socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		tcp.SetDeadline(time.Now().Add(patience))
		conn := tls.Client(&corked{Conn: tcp}, &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		write(conn)
		conn.CloseWrite()
		conn.NetConn().(*corked).flush()
		got, err := io.ReadAll(conn)
		if want := 3 * len("HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\nContent-Length: 10\r\n\r\nmade here\n"); len(got) != want || err != nil {
			t.Errorf("%s: %d bytes (%v), want %d: %q", name, len(got), err, want, got)
		}
	}
}

// A corked connection keeps what is written after the handshake, to send all of it at once.
type corked struct {
	net.Conn
	held []byte
	some int
}

func (c *corked) Write(b []byte) (int, error) {
	if c.some++; c.some <= 2 { // the hello and the end of the handshake
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *corked) flush() {
	c.Conn.SetDeadline(time.Now().Add(patience)) // CloseWrite has let it pass
	c.Conn.Write(c.held)
}

// However a stream of records is cut, a feed counts those that are whole.
func TestAFeedCountsRecords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		var all []byte
		want := r.IntN(5)
		for range want {
			size := r.IntN(300)
			all = append(all, 0x17, 3, 3, byte(size>>8), byte(size))
			all = append(all, make([]byte, size)...)
		}
		all = append(all, make([]byte, r.IntN(recordHead))...) // the beginning of another
		var f feed
		for rest := all; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			f.pass(rest[:n])
			rest = rest[n:]
		}
		if f.records != want {
			t.Fatalf("%d records in %x, want %d", f.records, all, want)
		}
	}
}
