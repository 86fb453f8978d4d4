package engine

import (
	"io"
	"os"
	"syscall"
)

// A feed is where a tls.Conn at an event loop reads from: what the loop has fetched, then
// the socket. It knows, from the heads of the records that went through it, whether there is
// more that crypto/tls has and nobody has asked for: nothing happens on the socket to tell.
type feed struct {
	fd      int32
	rest    []byte        // fetched, not read
	fault   syscall.Errno // of the fetch
	end     bool          // the fetch found the end
	over    error         // why nothing is to be read any more
	careful bool          // no more than a record is given at once: what is behind it stays here
	drained bool          // the socket had nothing more, and no event has come since

	records int     // whole ones that were read and may hold something unsaid
	left    int     // bytes of the record at hand that are to come
	head    [5]byte // of the next one
	had     int     // bytes of it
}

// recordHead is the size of a record's head, whose last two bytes are its length.
const recordHead = 5

// read is secure.Read.
func (f *feed) read(b []byte) (int, error) {
	if f.over != nil {
		return 0, f.over
	}
	if f.careful {
		b = b[:min(len(b), f.toGo())]
	}
	if len(f.rest) > 0 {
		n := copy(b, f.rest)
		if f.rest = f.rest[n:]; len(f.rest) == 0 {
			f.rest = nil
		}
		return f.pass(b[:n]), nil
	}
	n, e := 0, f.fault
	f.fault = 0
	switch {
	case e != 0:
	case f.end:
		return 0, io.EOF
	case f.drained:
		return 0, errNotYet
	default:
		n, e = readFD(uintptr(f.fd), b)
		f.drained = e == eagain || e == 0 && n > 0 && n < len(b)
	}
	switch {
	case e == eagain:
		f.drained = true
		return 0, errNotYet
	case e != 0:
		return 0, os.NewSyscallError("read", e)
	case n == 0:
		f.end = true
		return 0, io.EOF
	}
	return f.pass(b[:n]), nil
}

// toGo is how many bytes there are to the end of the record at hand, or of its head.
func (f *feed) toGo() int {
	if f.left > 0 {
		return f.left
	}
	return recordHead - f.had
}

// quit has nothing be read any more, because of err. nil changes nothing.
func (f *feed) quit(err error) {
	if err != nil {
		f.over = err
	}
}

// pass notes the records in b, and returns its length.
func (f *feed) pass(b []byte) int {
	size := len(b)
	for len(b) > 0 {
		if f.left == 0 {
			n := copy(f.head[f.had:], b)
			f.had += n
			if b = b[n:]; f.had < recordHead {
				break
			}
			f.had, f.left = 0, int(f.head[3])<<8|int(f.head[4])
			if f.left == 0 {
				f.records++
			}
			continue
		}
		n := min(f.left, len(b))
		b = b[n:]
		if f.left -= n; f.left == 0 {
			f.records++
		}
	}
	return size
}

// recvAt reads what the client of a loop has said into b. more says that there may be more
// without an event. What was fetched for the client is given before.
func (s *secure) recvAt(b []byte) (n int, more bool, e syscall.Errno) {
	f := &s.feed
	n, e = s.recv(b)
	switch {
	case e == eagain:
		f.records = 0
		return 0, false, e
	case n > 0 && n < len(b):
		f.records--
	}
	return n, n == len(b) || f.records > 0 || len(f.rest) > 0 || !f.drained || f.end, e
}

// fetched gives what was read for the client in a batch: full says that there may be more.
func (f *feed) fetched(b []byte, full bool, e syscall.Errno) {
	switch {
	case e == eagain:
	case e != 0:
		f.fault = e
	case len(b) == 0:
		f.end = true
	default:
		f.rest = append(f.rest, b...)
	}
	f.drained = !full
}

// seal returns what a and b are on the wire, with whatever else waits to be sent, and with the
// farewell if they are the last. It is given back by giveSealed.
func (s *secure) seal(a, b []byte, last bool) ([]byte, error) {
	for _, part := range [...][]byte{a, b} {
		for len(part) > 0 {
			n := min(len(part), bufferBytes)
			if _, err := s.conn.Write(part[:n]); err != nil {
				return nil, err
			}
			part = part[n:]
		}
	}
	if last && !s.torn {
		s.torn = true // once
		_ = s.conn.CloseWrite()
	}
	return s.take(), nil
}

// hearClient is read for a client, whether it speaks TLS or not.
func (l *loop) hearClient(c *loopClient, b []byte) (n int, full bool, e syscall.Errno) {
	s := c.tls
	if s == nil {
		return l.read(&c.loopWire, b)
	}
	if c.fetched != 0 {
		call := &l.batch.calls[c.fetched-1]
		c.fetched = 0
		s.feed.fetched(call.b[:max(call.n, 0)], call.n == len(call.b), call.e)
	}
	n, full, e = s.recvAt(b)
	if s.owes() && !l.tellOwed(c) && e == 0 {
		return 0, false, syscall.EPIPE
	}
	return n, full, e
}

// owes reports whether crypto/tls has something to send that nobody has said.
func (s *secure) owes() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out) > 0
}

// tellOwed sends what crypto/tls wants to say to the client by itself: an alert, or new keys.
// It returns false if the client takes nothing.
func (l *loop) tellOwed(c *loopClient) bool {
	out := c.tls.take()
	defer giveSealed(out)
	if t := c.tray; t != nil && t.owed() {
		t.down.add(out)
		return len(t.down.b) < maxSealed
	}
	n, _ := writeFD(uintptr(c.fd), out)
	return n == len(out)
}

// partClient says that nothing more is sent, as far as the socket takes that at once. What
// was not sent to its end must not look as if it were.
func (l *loop) partClient(c *loopClient) {
	s := c.tls
	if s == nil || s.torn || c.broken || c.tray != nil && c.tray.owed() {
		return
	}
	s.torn = true // once
	_ = s.conn.CloseWrite()
	if out := s.take(); len(out) > 0 {
		writeFD(uintptr(c.fd), out)
		giveSealed(out)
	}
}
