package engine

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

func TestConnectionsEndForAReasonGoroutine(t *testing.T) {
	closings(t, func(c Config) Engine { return New(c) })
}

// closings holds that an engine says why each connection ended.
func closings(t *testing.T, newEngine func(Config) Engine) {
	for _, c := range []struct {
		name, set, sends string
		stay             bool // the client does not close before it must
		drain            bool
		want             dataplane.Closing
	}{
		{name: "the client goes", want: dataplane.ClosedClient},
		{name: "the client goes within a head", sends: "GET / HT", want: dataplane.ClosedClient},
		{name: "no second request", set: "short_idle", sends: "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n", stay: true, want: dataplane.ClosedIdle},
		{name: "a head that takes long", set: "short_head", sends: "GET / HT", stay: true, want: dataplane.ClosedTime},
		{name: "no HTTP", sends: "\x00\x01\r\n\r\n", stay: true, want: dataplane.ClosedError},
		{name: "the last answer", sends: "GET /answer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", stay: true, want: dataplane.ClosedDone},
		{name: "the node ends", sends: "GET /answer HTTP/1.1\r\nHost: h\r\n\r\n", stay: true, drain: true, want: dataplane.ClosedDrain},
	} {
		t.Run(c.name, func(t *testing.T) {
			parted := make(chan dataplane.Closing, 1)
			s := newStage(t, newEngine, func(s *stage, conf *Config) {
				s.parted = parted
				if c.set != "" {
					settings[c.set](s, conf)
				}
			})
			conn, err := net.Dial("tcp", s.socket.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, c.sends); err != nil {
				t.Fatal(err)
			}
			switch {
			case c.drain:
				if _, err := conn.Read(make([]byte, 1)); err != nil { // it has been served
					t.Fatal(err)
				}
				go s.engine.Shutdown(context.Background()) // ends with the connection
				_, _ = io.Copy(io.Discard, conn)
			case c.stay:
				_, _ = io.Copy(io.Discard, conn)
			}
			conn.Close()
			select {
			case got := <-parted:
				if got != c.want {
					t.Errorf("it ended by %q, want %q", got, c.want)
				}
			case <-time.After(patience):
				t.Error("it did not end")
			}
		})
	}
}
