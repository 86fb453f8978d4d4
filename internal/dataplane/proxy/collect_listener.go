package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane"
)

var (
	descConns       = desc("connections_open", "Open client connections.", "listener", "protocol")
	descConnLimit   = desc("connections_limit", "Client connections this node accepts at once.", "listener", "protocol")
	descConnsTotal  = desc("connections_total", "Client connections accepted.", "listener", "protocol")
	descConnsClosed = desc("connections_closed_total", "Client connections closed, by why; limit: at once, since there were too many; flooder: at once, since its address has been cut off for floods.", "listener", "reason")
	descMalformed   = desc("http_malformed_total", "Requests that were no acceptable HTTP.", "listener", "reason")
	descGlitches    = desc("h2_glitches_total", "Frames of HTTP/2 that ask for nothing, by kind. A client that sends too many is cut off (reason flood of proxyd_connections_closed_total).", "listener", "kind")
	descResets      = desc("h2_resets_total", "Streams of HTTP/2 that ended before their answer, by whose doing: the client's will, or the server's for a mistake of the client.", "listener", "kind")
	descNetwork     = desc("network_bytes_total", "Bytes of finished exchanges that crossed client connections: in, from clients; out, to them.", "listener", "direction")
)

func listenerDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descConns, descConnLimit, descConnsTotal, descConnsClosed, descMalformed, descGlitches, descResets, descNetwork}
}

// collectListeners sends what is counted by listener. It returns, by index, those that s
// has or that still have a connection; the place of any other is nil.
func (p *Plane) collectListeners(m sink, s *snapshot) []*listenerCounters {
	shown := append([]*listenerCounters(nil), p.listeners.list()...)
	for i, l := range shown {
		// Those of HTTP/2 first: none may be counted that is not among the others yet.
		second, begun := l.h2Open.Load(), l.h2Begun.Load()
		open := l.open.Load()
		if !s.hasListener(l.name) && open+l.quicOpen.Load() <= 0 {
			shown[i] = nil
			continue
		}
		m.gauge(descConns, float64(max(open-second, 0)), l.name, "http1")
		m.gauge(descConnLimit, float64(s.conf.Limits.Conns), l.name, "http1")
		m.counter(descConnsTotal, l.others(l.accepted.Load()-begun), l.name, "http1")
		if s.speaksHTTP2(l.name) || begun > 0 {
			m.gauge(descConns, float64(second), l.name, "http2")
			m.gauge(descConnLimit, float64(s.conf.Limits.Conns), l.name, "http2")
			m.counter(descConnsTotal, begun, l.name, "http2")
		}
		if conf := s.conf.Listener[l.name]; conf != nil && conf.HTTP3 || l.quicAccepted.Load() > 0 {
			m.gauge(descConns, float64(l.quicOpen.Load()), l.name, "http3")
			m.gauge(descConnLimit, float64(s.conf.Limits.Conns), l.name, "http3")
			m.counter(descConnsTotal, l.quicAccepted.Load(), l.name, "http3")
		}
		m.counter(descConnsClosed, l.refused.Load(), l.name, "limit")
		m.counter(descConnsClosed, l.flooders.Load(), l.name, "flooder")
		for why := range dataplane.Closings {
			m.counter(descConnsClosed, l.closed[why].Load(), l.name, why.String())
		}
		for i := range l.malformed {
			m.counter(descMalformed, l.malformed[i].Load(), l.name, malformedReasons[i])
		}
		if s.speaksHTTP2(l.name) {
			collectGlitches(m, l)
		}
		m.counter(descNetwork, l.in.Load(), l.name, "in")
		m.counter(descNetwork, l.out.Load(), l.name, "out")
		if s.shakes(l.name) {
			collectShakes(m, l)
		}
	}
	return shown
}

// others returns how many connections did not speak HTTP/2: n, but never less than before. A
// connection counts among them until it does, and a counter does not go back.
func (l *listenerCounters) others(n uint64) uint64 {
	for {
		was := l.shown.Load()
		if n <= was {
			return was
		}
		if l.shown.CompareAndSwap(was, n) {
			return n
		}
	}
}

// collectGlitches sends what clients of HTTP/2 did besides asking.
func collectGlitches(m sink, l *listenerCounters) {
	for k := range dataplane.Glitches {
		d := descGlitches
		if k == dataplane.ResetByClient || k == dataplane.ResetByServer {
			d = descResets
		}
		m.counter(d, l.glitches[k].Load(), l.name, k.String())
	}
}

// speaksHTTP2 reports whether clients of a listener may.
func (s *snapshot) speaksHTTP2(name string) bool {
	l := s.conf.Listener[name]
	return l != nil && (l.TLS && l.HTTP2 || l.H2C)
}

// shakes reports whether a listener is one for TLS.
func (s *snapshot) shakes(name string) bool {
	l := s.conf.Listener[name]
	return l != nil && l.TLS
}

// hasListener reports whether the configuration has a listener of that name.
func (s *snapshot) hasListener(name string) bool {
	if len(s.conf.Listener) == 0 {
		return name == defaultListener
	}
	return s.conf.Listener[name] != nil
}
