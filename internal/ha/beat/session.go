package beat

import "crypto/cipher"

// maxRetired bounds how many earlier lives of a peer are remembered. A cluster whose
// peer restarts more often than this within one life of ours has other worries.
const maxRetired = 1024

// A session is what is known of a peer's present life.
type session struct {
	epoch   uint64 // 0: none accepted yet
	cipher  cipher.AEAD
	window  window
	claimed uint64              // the latest authentic epoch, perhaps of a recording: what we echo until one is accepted
	retired map[uint64]struct{} // lives that are over
}

// echo returns what tells the peer that we know this life of it.
func (s *session) echo() uint64 {
	if s.claimed != 0 {
		return s.claimed
	}
	return s.epoch
}

// accept judges an authentic datagram of the peer. fresh says that its echo is the
// epoch of our own life. It reports whether a new life of the peer has begun.
func (s *session) accept(h head, c cipher.AEAD, fresh bool) (begun bool, err error) {
	if _, over := s.retired[h.epoch]; over {
		return false, errReplay
	}
	if h.epoch == s.epoch {
		if !s.window.take(h.seq) {
			return false, errReplay
		}
		return false, nil
	}
	if !fresh {
		// Not yet proven to be of now; echoing it lets the peer prove it.
		s.claimed = h.epoch
		return false, errEarly
	}
	if s.retired == nil {
		s.retired = map[uint64]struct{}{}
	}
	if s.epoch != 0 {
		if len(s.retired) == maxRetired {
			clear(s.retired)
		}
		s.retired[s.epoch] = struct{}{}
	}
	s.epoch, s.cipher, s.window, s.claimed = h.epoch, c, window{}, 0
	s.window.take(h.seq)
	return true, nil
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
