package upstream

import "time"

// A barrier keeps exchanges from a server for a while. Then one is let through, and its
// end decides whether the barrier is lifted or stays for longer. The zero barrier is
// lifted. It is a value without clock or lock.
type barrier struct {
	span  time.Duration // how long it keeps exchanges away
	until time.Time     // none before; zero: lifted
	trial time.Time     // when the one was let through; zero: it was not
}

// lifted reports that nothing is kept away.
func (b *barrier) lifted() bool { return b.until.IsZero() }

// open reports whether an exchange may pass now.
func (b *barrier) open(now time.Time) bool { return b.lifted() || !now.Before(b.until) }

// trying reports whether an exchange that was let through has not ended yet.
func (b *barrier) trying() bool { return !b.trial.IsZero() }

// shut keeps exchanges away for span from now on.
func (b *barrier) shut(now time.Time, span time.Duration) {
	*b = barrier{span: span, until: now.Add(span)}
}

// pass notes an exchange that was let through. No other follows until it has ended, or
// the span has passed without a word of it.
func (b *barrier) pass(now time.Time) {
	if !b.lifted() {
		b.until, b.trial = now.Add(b.span), now
	}
}

// succeed notes that an exchange, begun then, went well, and reports whether that lifts
// the barrier. One begun before the trial proves nothing.
func (b *barrier) succeed(begun time.Time) bool {
	if !b.trying() || begun.Before(b.trial) {
		return false
	}
	*b = barrier{}
	return true
}
