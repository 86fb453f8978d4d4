package proxy

import (
	"net/netip"

	"proxyd/internal/dataplane"
)

// front is the proxies before listeners with proxy_protocol: node.trusted_proxies. It
// implements dataplane.Front.
type front struct{ plane *Plane }

var errStranger = &dataplane.Malformed{Status: 400, Reason: "proxy_untrusted", Detail: "the peer is not one of node.trusted_proxies"}

// Await implements dataplane.Front (B8). Until its header is read a connection counts in
// limits.conns; by which address the others count is not known yet.
func (f *front) Await(l *dataplane.Listener, peer netip.AddrPort) bool {
	p := f.plane
	s, addr := p.current.Load(), peer.Addr().Unmap()
	ours := p.mayBeProbe(l, addr)
	if !ours && !s.trusts(addr) {
		p.Refused(l, peer, errStranger)
		return false
	}
	if n := p.conns.open.Add(1); s.conf.Limits.Conns > 0 && n > int64(s.conf.Limits.Conns) && !ours {
		p.conns.open.Add(-1)
		p.listeners.at(l.Index).refused.Add(1)
		return false
	}
	return true
}

// Heard implements dataplane.Front. This node asks itself without naming a client.
func (f *front) Heard(l *dataplane.Listener, peer, client netip.AddrPort, err error) bool {
	p := f.plane
	p.conns.open.Add(-1)
	if err == nil && client != peer && !p.current.Load().trusts(peer.Addr().Unmap()) {
		err = errStranger
	}
	if err != nil {
		p.Refused(l, peer, err)
	}
	return err == nil
}
