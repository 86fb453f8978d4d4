package engine

import (
	"bytes"
	"net"
	"testing"
	"time"

	nethttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http2"
)

// How long a request of HTTP/2 lay unread is known from the coming of its bytes to the turn of
// its goroutine, so that the overload gate judges it like any other.
func TestHTTP2RequestsKnowHowLongTheyLay(t *testing.T) {
	s := h2streams.Get().(*h2stream)
	h := &h2conn{}
	s.conn = h
	t0 := now()
	h.came(t0, 300*time.Millisecond)
	h.Request(&s.flow, nil)
	if want := t0 - moment(300*time.Millisecond); s.arrived != want {
		t.Errorf("arrived %v after the bytes came", time.Duration(s.arrived-want))
	}
	if d := s.lag(); d < 300*time.Millisecond {
		t.Errorf("it lay for %v, want 300 ms at the least", d)
	}
	h.came(t0, -1) // the kernel does not say
	h.Request(&s.flow, nil)
	if s.arrived != t0 {
		t.Error("what the kernel does not know is counted")
	}
	h.came(0, time.Hour) // of a client that was not listened to
	h.Request(&s.flow, nil)
	if s.arrived != 0 {
		t.Error("the time for which a client takes nothing is counted")
	}
}

// lagging tells what the handler could know of a request's delay.
type lagging struct {
	*stage
	lags chan time.Duration // -1: nothing
}

func (l lagging) Begin(x *dataplane.Exchange) dataplane.Verdict {
	lag := time.Duration(-1)
	if x.Lag != nil {
		lag = x.Lag()
	}
	l.lags <- lag
	return l.stage.Begin(x)
}

func TestTheHandlerLearnsTheDelayOfHTTP2Requests(t *testing.T) {
	s := newStage(t, func(c Config) Engine { return New(c) }, func(s *stage, _ *Config) { s.listener.HTTP2 = true })
	l := lagging{stage: s, lags: make(chan time.Duration, 1)}
	socket := listen(t)
	go s.engine.Serve(s.listener, socket, l) // ends with the engine
	conn, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var said, block bytes.Buffer
	said.WriteString(http2.Preface)
	fr := nethttp2.NewFramer(&said, nil)
	fr.WriteSettings()
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/answer"}} {
		e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	fr.WriteHeaders(nethttp2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true})
	if _, err := conn.Write(said.Bytes()); err != nil {
		t.Fatal(err)
	}
	select {
	case lag := <-l.lags:
		if lag < 0 {
			t.Error("how long the request lay is not known")
		}
	case <-time.After(patience):
		t.Fatal("no request came")
	}
}
