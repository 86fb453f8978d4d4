package beat

import (
	"crypto/cipher"
	"math/rand/v2"
)

// A session is what is known of a peer's present life.
//
// A life that is not known yet is believed once it has echoed our challenge, and each
// challenge lets one life in: what was recorded of an earlier one, even what was held
// back, echoes one that is used up. A datagram that is not believed yet still tells the
// peer's challenge, since it is authentic; a recording may spoil that until the next beat.
type session struct {
	epoch     uint64 // 0: none accepted yet
	cipher    cipher.AEAD
	window    window
	challenge uint64 // ours
	theirs    uint64 // the latest of the peer's
}

func newSession() session { return session{challenge: newChallenge()} }

// newChallenge returns an unpredictable number that is not 0, which peers echo that have
// not heard of us.
func newChallenge() uint64 {
	for {
		// The runtime's generator is seeded by the kernel and cannot be predicted (ChaCha8).
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// proof returns what goes into our next datagram.
func (s *session) proof() proof { return proof{challenge: s.challenge, echo: s.theirs} }

// accept judges an authentic datagram. It reports whether a new life of the peer has begun.
func (s *session) accept(h head, c cipher.AEAD, p proof) (begun bool, err error) {
	switch {
	case h.epoch == s.epoch && s.cipher != nil:
		if !s.window.take(h.seq) {
			return false, errReplay
		}
		s.cipher = c // another one after a rotation of the key
	case p.echo == s.challenge:
		s.epoch, s.cipher, s.window, s.challenge = h.epoch, c, window{}, newChallenge()
		s.window.take(h.seq)
		begun = true
	default:
		err = errEarly
	}
	s.theirs = p.challenge
	return begun, err
}

// A window remembers which of the last 64 sequence numbers were seen (RFC 4303, 3.4.3).
type window struct {
	highest uint64
	seen    uint64 // bit i: highest-i was seen
}

// take notes seq and reports whether it is new.
func (w *window) take(seq uint64) bool {
	if seq > w.highest {
		if d := seq - w.highest; d < 64 {
			w.seen = w.seen<<d | 1
		} else {
			w.seen = 1
		}
		w.highest = seq
		return true
	}
	d := w.highest - seq
	if d >= 64 || w.seen&(1<<d) != 0 {
		return false
	}
	w.seen |= 1 << d
	return true
}
