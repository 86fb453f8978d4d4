package beat

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
)

// The nonce of a call names the caller's life and the moment:
//
//	epoch 8 | nanoseconds of the caller's clock 8
//
// and is used once. Datagrams of that life say so by the flag dated, since a release before
// made random ones. Who is called and knows the caller's life from its datagrams can tell a
// call of now from one that was recorded.

// dated is the flag of a datagram that says that the calls of its sender carry nonces as above.
const dated = 2

// lateCall is how much older than the latest call of its life a call may be: a challenge goes out
// by several interfaces at once.
const lateCall = 5 * time.Second

// A stamp makes the nonces of a life. The zero value is ready.
type stamp struct{ last atomic.Int64 }

// next returns a nonce that no call of the life had before.
func (s *stamp) next(epoch uint64, now clock.Instant) (n [nonceOfCall]byte) {
	binary.BigEndian.PutUint64(n[:], epoch)
	for {
		last := s.last.Load()
		at := max(int64(now), last+1)
		if s.last.CompareAndSwap(last, at) {
			binary.BigEndian.PutUint64(n[8:], uint64(at))
			return n
		}
	}
}

// maxCalls is how many of the latest calls are remembered, to know one that is played again.
const maxCalls = 1024

// calls remembers nonces.
type calls struct {
	mu   sync.Mutex
	seen map[[nonceOfCall]byte]bool
	ring [maxCalls][nonceOfCall]byte
	next int
}

// take notes a nonce and reports whether it is new.
func (c *calls) take(n [nonceOfCall]byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[n] {
		return false
	}
	if c.seen == nil {
		c.seen = map[[nonceOfCall]byte]bool{}
	}
	delete(c.seen, c.ring[c.next%maxCalls])
	c.ring[c.next%maxCalls] = n
	c.seen[n] = true
	c.next++
	return true
}

// all returns what is remembered, for the next process.
func (c *calls) all() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []byte
	for i := max(0, c.next-maxCalls); i < c.next; i++ {
		out = append(out, c.ring[i%maxCalls][:]...)
	}
	return out
}

// recall remembers what the process before did.
func (c *calls) recall(all []byte) {
	for len(all) >= nonceOfCall {
		c.take([nonceOfCall]byte(all))
		all = all[nonceOfCall:]
	}
}

// ofNow reports whether a call of one of the peers with its mark is known to be of now, or is of
// a release that cannot show it.
func (m *Mesh) ofNow(of []*peer, n [nonceOfCall]byte) bool {
	epoch, at := binary.BigEndian.Uint64(n[:]), clock.Instant(binary.BigEndian.Uint64(n[8:]))
	for _, p := range of {
		p.mu.Lock()
		known, same := p.session.cipher != nil, p.session.epoch == epoch
		ok := known && !p.dated
		if known && same {
			ok = at.Add(lateCall) > p.called
			p.called = max(p.called, at)
		}
		p.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}
