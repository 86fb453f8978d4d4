package proxy

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
)

// endpointKeys are derived from the cluster's secret, as those of session tickets: any node
// can tell a client that its connection is lost, and believes the address that another has
// seen. A node alone derives them from what it made up at its start.
func (p *Plane) endpointKeys(c *config.Config) engine.EndpointKeys {
	seed := p.tls.tickets.root(c)
	var k engine.EndpointKeys
	for _, of := range []struct {
		key  []byte
		what string
	}{{k.Reset[:], "proxyd QUIC stateless reset 1"}, {k.Token[:], "proxyd QUIC address tokens 1"}} {
		b, err := hkdf.Key(sha256.New, seed, nil, of.what, len(of.key))
		if err != nil {
			panic("proxy: a key of 32 bytes cannot be derived: " + err.Error())
		}
		copy(of.key, b)
	}
	k.Mark = ConnectionMark(c)
	return k
}

// ConnectionMark is how the ids begin that this node gives to connections of HTTP/3, and by
// which the others of its cluster know its datagrams. It follows from names that do not change
// while a node runs.
func ConnectionMark(c *config.Config) [6]byte {
	cluster, node := sha256.Sum256([]byte("proxyd cluster "+c.Cluster.Name)), sha256.Sum256([]byte(c.Node.Name))
	return engine.IDMark([2]byte(cluster[:]), [3]byte(node[:]))
}

var (
	nameAltSvc    = []byte("Alt-Svc")
	nameEarlyData = []byte("Early-Data")
	valueOne      = []byte("1")
)

// offer tells a client of TCP that the same is to be had by HTTP/3 (RFC 7838). What the server
// says of other places is not for this one.
func offer(x *dataplane.Exchange) {
	l := x.Listener
	if !l.HTTP3 || l.Datagrams || x.Response.Status < 200 {
		return
	}
	h := &x.Response.Header
	kept := (*h)[:0]
	for _, f := range *h {
		if len(f.Name) != len(nameAltSvc) || !bytes.EqualFold(f.Name, nameAltSvc) {
			kept = append(kept, f)
		}
	}
	*h = kept
	port := listenerPort(x)
	h.Add(dataplane.Other, nameAltSvc, x.Keep([]byte(`h3=":`), port, []byte(`"; ma=86400`)))
}

// replayable judges a request that came before the end of the handshake, which anyone may have
// recorded and sent again (RFC 8470, D8): it reports whether it can do no harm.
func replayable(x *dataplane.Exchange) bool {
	switch x.Request.Method {
	case dataplane.GET, dataplane.HEAD, dataplane.OPTIONS:
		return x.Request.Length == 0 && !x.Request.WebSocket
	}
	return false
}
