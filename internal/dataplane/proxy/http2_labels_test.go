package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"proxyd/internal/dataplane"
)

// Connections are counted by what they speak, HTTP/2 from when they do, and none is counted
// twice or less than before.
func TestConnectionsAreCountedByWhatTheySpeak(t *testing.T) {
	w := inClear(t, "", server(t, hello))
	old, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	io.WriteString(old, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := old.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p := dialH2(t, w.address)
	p.ask(1, true, ":method: GET", ":scheme: http", ":authority: h", ":path: /")
	p.next()
	wantSeries(t, gather(t, w.Plane), map[string]float64{
		`proxyd_connections_open{listener="web",protocol="http1"}`:  1,
		`proxyd_connections_open{listener="web",protocol="http2"}`:  1,
		`proxyd_connections_total{listener="web",protocol="http1"}`: 1,
		`proxyd_connections_total{listener="web",protocol="http2"}`: 1,
	})
}

func TestAConnectionThatBeginsToSpeakHTTP2TakesNothingBack(t *testing.T) {
	c := base()
	c.Listener["web"].H2C = true
	p, _ := start(t, c)
	l := &dataplane.Listener{Name: "web"}
	client := netip.MustParseAddrPort("192.0.2.7:1")
	p.Admit(l, client)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_connections_total{listener="web",protocol="http1"}`: 1, `proxyd_connections_total{listener="web",protocol="http2"}`: 0})
	p.HTTP2(l, true)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_connections_total{listener="web",protocol="http1"}`: 1, `proxyd_connections_open{listener="web",protocol="http1"}`: 0,
		`proxyd_connections_total{listener="web",protocol="http2"}`: 1, `proxyd_connections_open{listener="web",protocol="http2"}`: 1})
	p.HTTP2(l, false)
	p.Admit(l, client)
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_connections_total{listener="web",protocol="http1"}`: 1, `proxyd_connections_open{listener="web",protocol="http2"}`: 0})
}
