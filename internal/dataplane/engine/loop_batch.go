package engine

import "syscall"

// A batch is how a loop sees to several events at once: it reads for all of them in one
// call, sees to one after the other, and writes what that came to in another. What a call
// into the kernel costs is then shared among them.
//
// Only what is frequent and short takes part: the first read of a request and of an answer,
// a request that is at hand as a whole, an answer that is. To the exchange, a write that
// waits for the others looks like one that the socket has not taken yet.
type batch struct {
	ring   *ring // nil: this host has none for us, and each call is made by itself
	on     bool  // writes wait for flush
	calls  []call
	slots  []byte     // what is read into
	joined []leftover // wires with something to write
	at     int        // the next of joined of which the result is told
	made   bool       // the calls of joined
}

const (
	// fetchBytes is how much is read at once of a wire in a batch.
	fetchBytes = 8 << 10

	// slotBytes is no power of two, so that slots do not all lie on the same lines of
	// the processor's cache.
	slotBytes = fetchBytes + 320

	// mostFetched is how many reads are made at once.
	mostFetched = 64

	// joinBelow is the size up to which it is cheaper to copy what is written than to
	// write it by itself.
	joinBelow = 6 << 10
)

// fetch reads for those of n events of which it is plain what will be read.
func (l *loop) fetch(n int) {
	b := &l.batch
	least := l.engine.side.conf.Batch
	b.on = b.ring != nil && n >= least && !l.cutOff
	if !b.on {
		return
	}
	b.calls = b.calls[:0]
	for i := range l.events[:n] {
		ev := &l.events[i]
		if ev.Pad == 0 || readiness(ev.Events)&canRead == 0 || len(b.calls) == mostFetched {
			continue
		}
		if w := l.table[ev.Fd]; w != nil && w.gen == uint32(ev.Pad) && w.fetched == 0 && w.expects() {
			if b.slots == nil {
				b.slots = make([]byte, mostFetched*slotBytes)
			}
			from := len(b.calls) * slotBytes
			b.calls = append(b.calls, call{op: ringRecv, fd: ev.Fd, b: b.slots[from : from+fetchBytes]})
			w.fetched = int16(len(b.calls))
		}
	}
	if len(b.calls) < least {
		for i := range b.calls {
			l.table[b.calls[i].fd].fetched = 0
		}
		return
	}
	b.ring.do(b.calls)
}

// expects reports whether whatever can be read on w is the beginning of a request, or of
// an answer that its exchange waits for, and is read as soon as the event is seen to.
func (w *loopWire) expects() bool {
	if c := w.client; c != nil {
		return c.phase == phaseIdle && c.tray == nil
	}
	if w.server == nil || w.server.user == nil {
		return false
	}
	c := w.server.user
	t := c.tray
	return c.phase == phaseAwait && t.got == 0 && t.rsp == nil && !t.up.on && !t.up.stuck() && !t.owed()
}

// read reads from a wire into b, which has at least bufferBytes where something may have
// been fetched. full says that there may be more.
func (l *loop) read(w *loopWire, b []byte) (n int, full bool, e syscall.Errno) {
	if w.fetched == 0 {
		n, e = readFD(uintptr(w.fd), b)
		return n, n == len(b), e
	}
	c := &l.batch.calls[w.fetched-1]
	w.fetched = 0
	return copy(b, c.b[:c.n]), c.n == len(c.b), c.e
}

// join has what is in the backlog of a wire written with the rest of the batch.
func (l *loop) join(w *loopWire) {
	if !w.joined {
		w.joined = true
		l.batch.joined = append(l.batch.joined, leftover{w, w.gen})
	}
}

// flush writes what the events of the batch have left to be written, and goes on with each
// exchange by what came of it. After a panic it is called again.
func (l *loop) flush() {
	b := &l.batch
	b.on = false // what follows from a result is done at once
	if len(b.joined) == 0 {
		return
	}
	if !b.made {
		b.calls, b.at, b.made = b.calls[:0], 0, true
		kept := b.joined[:0]
		for _, p := range b.joined {
			if !p.wire.is(p.gen) || !p.wire.joined {
				continue // it was closed meanwhile
			}
			p.wire.joined = false
			if waits := p.wire.backlog(); waits != nil && waits.pending() {
				b.calls = append(b.calls, call{op: ringSend, fd: p.wire.fd, b: waits.b[waits.from:]})
				kept = append(kept, p)
			}
		}
		b.joined = kept
		if len(kept) == 1 {
			b.calls[0].make()
		} else {
			b.ring.do(b.calls)
		}
	}
	for b.at < len(b.joined) {
		p, c := b.joined[b.at], &b.calls[b.at]
		b.at++
		c.b = nil
		if p.wire.is(p.gen) {
			l.written(p.wire, c.n, c.e)
		}
	}
	b.joined, b.made = b.joined[:0], false
}

// is reports whether w is still the wire that had this number.
func (w *loopWire) is(gen uint32) bool { return w.gen == gen && w.fd >= 0 }

// backlog is what a wire that has joined has to write.
func (w *loopWire) backlog() *backlog {
	switch {
	case w.client != nil && w.client.tray != nil:
		return &w.client.tray.down
	case w.server != nil && w.server.user != nil:
		return &w.server.user.tray.up.backlog
	}
	return nil
}

// written goes on after n bytes of a wire's backlog were written, or none because of e.
func (l *loop) written(w *loopWire, n int, e syscall.Errno) {
	c := w.client
	if c == nil {
		c = w.server.user
	}
	l.busy = c
	t := c.tray
	w.backlog().took(n)
	if w.client != nil {
		l.told(c, e)
	} else if l.sent(c, n, e); c.tray == t && c.phase == phaseAwait && t.server != nil && t.server.ready {
		l.hearServer(c)
	}
	l.busy = nil
}

// told goes on after a client was told all that it will be told, or a part.
func (l *loop) told(c *loopClient, e syscall.Errno) {
	switch {
	case e != 0 && e != eagain:
		l.flushed(c, goneBy(e))
	case c.tray.down.pending():
		l.block(c)
	default:
		l.flushed(c, nil)
	}
}
