package engine

import (
	"runtime"
	"slices"
	"time"
)

// turns is who of a connection's streams may add to what waits to be written, while there is
// more to say than the client takes: one after the other, a frame each. The connection's
// mutex guards it.
type turns struct {
	waiting []*h2stream // in the order in which they are to go on
	next    *h2stream   // has been told to go on, and is about to
}

// mayGo reports whether s may add something now.
func (t *turns) mayGo(s *h2stream) bool {
	if t.next == s {
		t.next = nil
		return true
	}
	return t.next == nil && len(t.waiting) == 0
}

// queue has s wait behind all others.
func (t *turns) queue(s *h2stream) {
	if !s.queued {
		s.queued = true
		t.waiting = append(t.waiting, s)
	}
}

// leave is for a stream that waits for nothing any more.
func (t *turns) leave(s *h2stream) {
	if s.queued {
		s.queued = false
		i := slices.Index(t.waiting, s)
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	if t.next == s {
		t.next = nil
	}
}

// grant has the first stream that waits, and that the client's windows let send, go on if there
// is room. mu is held.
func (h *h2conn) grant() {
	t := &h.turns
	if t.next != nil || h.state.Unsent() >= h2Unsent {
		return
	}
	for i, s := range t.waiting {
		if h.state.MaySend(&s.flow) {
			t.waiting = slices.Delete(t.waiting, i, i+1)
			s.queued = false
			t.next = s
			signal(s.out)
			return
		}
	}
}

// giveTurn lets others run before a connection whose client has sent much at once has more of it
// begun. It reports whether that took long: then there is a crowd, of other such connections most of all.
func giveTurn() bool {
	t := now()
	runtime.Gosched()
	return now()-t >= moment(slowTurn)
}

const slowTurn = 500 * time.Microsecond // of all others
