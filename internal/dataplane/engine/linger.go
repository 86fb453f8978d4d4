package engine

import (
	"proxyd/internal/dataplane"
)

// maxLinger is how much of a client's bytes is read after the last answer.
const maxLinger = 1 << 20

var errLinger = dataplane.ErrClientSlow

// linger ends our side of the connection and reads what the client still sends, for a
// while: a close with unread bytes would be a reset, and the client might lose the
// answer that it has not read yet.
func (c *clientConn) linger() {
	l := limit{until: now() + moment(c.engine.conf.Linger), over: errLinger}
	if c.closeWrite(&l) != nil {
		return
	}
	b := getBuffer()
	defer putBuffer(b)
	for got := 0; got < maxLinger; {
		n, err := c.read(b[:], &l)
		if err != nil {
			return
		}
		got += n
	}
}
