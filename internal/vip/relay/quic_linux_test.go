package relay

import (
	"slices"
	"testing"
	"time"
)

// short is a datagram of QUIC with a short header, for a connection with an id that begins so.
func short(mark Mark) []byte {
	return slices.Concat([]byte{0x4a}, mark[:], make([]byte, 30))
}

// long is one with a long header, and an id of n bytes.
func long(mark Mark, n byte) []byte {
	return slices.Concat([]byte{0xe0, 0, 0, 0, 1, n}, mark[:], make([]byte, 1200))
}

func TestDatagramsGoToTheNodeInTheirID(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		a.answer()
		b.answer()
		r := b.relay(way)
		b.do(func() { ok(t, r.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)

		client.wantAnswer(vip, short(a.mark()), a, "a datagram of the node before")
		client.wantAnswer(vip, long(a.mark(), 12), a, "a handshake of the node before")
		if n, err := b.sent(r, vip); err != nil || n != 2 {
			t.Errorf("Sent = %d, %v, want 2", n, err)
		}
		other := a.mark()
		other[2]++
		for what, datagram := range map[string][]byte{
			"a datagram of this node":              short(b.mark()),
			"a handshake of this node":             long(b.mark(), 12),
			"a datagram of another cluster":        short(other),
			"a handshake of another cluster":       long(other, 12),
			"an id that is too long":               long(a.mark(), 13),
			"an id that is too short":              long(a.mark(), 8),
			"a query of DNS":                       {0x1b, 11, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1},
			"what is shorter than an id can be":    short(a.mark())[:6],
			"what is shorter than its header is":   long(a.mark(), 12)[:11],
			"one byte":                             {0x40},
			"nothing at all, in an empty datagram": {},
		} {
			client.wantAnswer(vip, datagram, b, what)
		}
		b.do(func() { ok(t, r.Set(vip, Target{})) })
		client.wantAnswer(vip, short(a.mark()), b, "a datagram of the node before, after the drain")
	})
}

// With three nodes it goes from one to the next, until it is at home.
func TestDatagramsGoDownTheChain(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, c, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "c", 3), plug(t, "client", 9)
		settled(t, a, b, c, client)
		for _, h := range []*host{a, b, c} {
			h.serve()
			h.answer()
		}
		rb, rc := b.relay(way), c.relay(way)
		b.do(func() { ok(t, rb.Set(vip, b.target(a, family, time.Minute))) })
		c.do(func() { ok(t, rc.Set(vip, c.target(b, family, time.Minute))) })
		client.sends(c)
		for _, h := range []*host{a, b, c} {
			client.wantAnswer(vip, short(h.mark()), h, "a datagram of "+h.name)
		}
		// One of a node that is no more ends with the last of the chain.
		client.wantAnswer(vip, short(Mark{11, 0xc1, 0xc2, 0, 0, 7}), a, "a datagram of nobody")
	})
}

func TestANodeWithoutAMarkSendsNoDatagramsOn(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		b.answer()
		var r *Relay
		b.do(func() { r = must(Open(Config{Way: way, Place: b.place, State: "/state/b"}))(t) })
		t.Cleanup(func() { b.do(func() { ok(t, r.Close()) }) })
		b.do(func() { ok(t, r.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)
		client.wantAnswer(vip, short(a.mark()), b, "a datagram")
		client.wantAnswer(vip, short(Mark{}), b, "a datagram of zeros")
	})
}
