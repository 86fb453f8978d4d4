package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// An address may have floodsAtOnce connections cut off for floods, and one more in each
	// floodTime.
	floodsAtOnce = 10
	floodTime    = time.Second

	// mostFlooders is how many addresses are remembered.
	mostFlooders = 4096

	floodSweep = time.Minute

	// floodSaid is how long the log names no other address, or the same again.
	floodSaid = 10 * time.Second
)

// floods remembers, by the address that whose returns, who has had connections cut off for a
// flood (D1, D2, D4): each connection has budgets of its own, and whoever is cut off could
// have new ones at once. It outlives reloads.
type floods struct {
	some  atomic.Int64             // addresses in until
	mu    sync.Mutex               // guards what follows
	until map[netip.Addr]time.Time // when all floods of an address will have been forgotten
	swept time.Time
	said  time.Time // when an address was last named in the log
	quiet int       // that have been barred since, and were not
}

// note counts a flood, and reports whether the log is to say that the address is barred for it.
// others is how often one was barred of which it said nothing.
func (f *floods) note(a netip.Addr, now time.Time) (say bool, others int) {
	a = whose(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until == nil {
		f.until = make(map[netip.Addr]time.Time)
	}
	was, have := f.until[a]
	if !have && len(f.until) >= mostFlooders {
		f.sweep(now)
		for other := range f.until { // any: all of them flood
			if len(f.until) < mostFlooders {
				break
			}
			delete(f.until, other)
		}
	}
	if was.Before(now) {
		was = now
	}
	// Of many that are cut off at once no more are held against it than bar it for floodsAtOnce.
	f.until[a] = minTime(was.Add(floodTime), now.Add(2*floodsAtOnce*floodTime))
	f.some.Store(int64(len(f.until)))
	switch {
	case barredUntil(was, now) || !barredUntil(f.until[a], now):
		return false, 0
	case now.Sub(f.said) < floodSaid:
		f.quiet++
		return false, 0
	}
	others, f.quiet, f.said = f.quiet, 0, now
	return true, others
}

// barred reports whether an address may make no connection now.
func (f *floods) barred(a netip.Addr, now time.Time) bool {
	a = whose(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.swept) > floodSweep {
		f.sweep(now)
	}
	return barredUntil(f.until[a], now)
}

func barredUntil(t, now time.Time) bool { return t.Sub(now) > (floodsAtOnce-1)*floodTime }

func minTime(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sweep forgets those whose floods are over.
func (f *floods) sweep(now time.Time) {
	for a, until := range f.until {
		if !until.After(now) {
			delete(f.until, a)
		}
	}
	f.swept = now
	f.some.Store(int64(len(f.until)))
}
