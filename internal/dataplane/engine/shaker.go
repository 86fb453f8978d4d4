package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
)

// A shaker has handshakes of TLS, one after the other, as a coroutine: where crypto/tls would
// wait for the client, whoever called next goes on, and comes back when the client has said
// more. There is no scheduler between the two, nor a thread to be woken; the stack has grown
// to what a handshake needs when it is used again.
//
// All of it is for the loop that made it. A coroutine goes on only where it was made: on the loop's
// own thread if the loop had one then, on any if it had none.
type shaker struct {
	next func() shakeEvent
	stop func() // ends it, between two handshakes

	sealed *secure
	panics func(any)
	err    error  // of the handshake, when it is done
	hears  bool   // the client has been told nothing yet
	heard  []byte // what it has said so far
	yield  func(shakeEvent) bool
}

// A shakeEvent is why a shaker gives its turn away.
type shakeEvent uint8

const (
	shakeDone  shakeEvent = iota // the handshake is over: err says how
	shakeWaits                   // it is the client's turn
)

// errLong ends a handshake that is to be had aside.
var errLong = errors.New("the handshake takes long")

var errStopped = errors.New("stopped within a handshake")

// newShaker returns a shaker for begin. panics is told of a panic in a handshake.
func newShaker(panics func(any)) *shaker {
	k := &shaker{panics: panics}
	next, stop := iter.Pull(func(yield func(shakeEvent) bool) {
		k.yield = yield
		for {
			k.shake()
			if !yield(shakeDone) {
				return
			}
		}
	})
	k.stop = stop
	k.next = func() shakeEvent {
		came, _ := next()
		return came
	}
	return k
}

// begin makes what follows a handshake upon s.
func (k *shaker) begin(s *secure, conf *tls.Config) {
	s.shaker = k
	s.conn = tls.Server(s, conf)
	k.sealed, k.err, k.hears, k.heard = s, nil, true, k.heard[:0]
}

// shake has one handshake.
func (k *shaker) shake() {
	defer func() {
		if p := recover(); p != nil {
			k.panics(p)
			k.err = fmt.Errorf("handshake: %w", errPanic)
		}
		k.sealed = nil
	}()
	k.err = k.sealed.conn.Handshake()
}

// wait returns when the client has said more.
func (k *shaker) wait() error {
	if !k.yield(shakeWaits) {
		return errStopped
	}
	return nil
}

// Aside implements dataplane.Aside.
func (s *secure) Aside() error {
	if k := s.shaker; k != nil && k.hears {
		return errLong
	}
	return nil
}

// mostShakers is how many shakers of a busier time a loop holds on to.
const mostShakers = 64

func (l *loop) newShaker() *shaker {
	l.shaking++
	n := len(l.shakers)
	if n == 0 {
		return newShaker(l.engine.side.conf.Panic)
	}
	k := l.shakers[n-1]
	l.shakers[n-1] = nil
	l.shakers = l.shakers[:n-1]
	return k
}

// giveShaker takes one back that is done.
func (l *loop) giveShaker(k *shaker) {
	l.shaking--
	if len(l.shakers) < mostShakers {
		l.shakers = append(l.shakers, k)
	} else {
		k.stop()
	}
}

// dismissShakers ends those that have nothing to do, and reports whether that was all.
func (l *loop) dismissShakers() bool {
	if l.shaking > 0 {
		return false
	}
	for i, k := range l.shakers {
		k.stop()
		l.shakers[i] = nil
	}
	l.shakers = l.shakers[:0]
	return true
}
