package engine

import (
	"sync"
	"sync/atomic"
	"time"
)

// A pacer has the event loops rest where a quota bounds the processor time of the process,
// so that they use it evenly. Else the kernel lets them use it all at the beginning of a
// period, and stops every thread for what is left of a tenth of a second: clients wait as
// long, and so does the heartbeat. A loop that rests does so for a few milliseconds, and has
// more to do at once when it goes on.
//
// The zero pacer knows of no quota. All methods may be called at once.
type pacer struct {
	share atomic.Int64 // thousandths of a processor; 0: no quota
	saved atomic.Int64 // nanoseconds that may be used at once, after a time in which less was
	rests atomic.Uint64
	spare atomic.Bool // much of saved is

	mu    sync.Mutex // guards what follows
	at    moment
	bound time.Duration // of the processor time that may have been used by then
}

const (
	// pacedPart is the part of a quota that is spread, in hundredths. The rest is lost as the
	// kernel shares a quota out among processors.
	pacedPart = 95

	// savedPart is the part of a quota that may be used at once.
	savedPart = 25

	leastRest = 500 * time.Microsecond // less would be lost in the way there and back
	mostRest  = 5 * time.Millisecond

	// mostOwed is how much is made up for that others than the loops have used.
	mostOwed = 20 * time.Millisecond

	// pacedBatch is about how many events are seen to between two rests.
	pacedBatch = 32
)

// set tells of a quota of so much time in each period; 0 is none.
func (p *pacer) set(quota, period time.Duration) {
	if quota <= 0 || period <= 0 {
		p.share.Store(0)
		p.spare.Store(false)
		return
	}
	p.saved.Store(int64(quota * savedPart / 100))
	p.share.Store(max(int64(quota)*10*pacedPart/int64(period), 1))
}

// on reports whether there is a quota.
func (p *pacer) on() bool { return p.share.Load() > 0 }

// rest returns how long a loop is to rest at t, when the process has used so much time since
// it began; 0 is not at all.
func (p *pacer) rest(t moment, used time.Duration) time.Duration {
	share := p.share.Load()
	if share == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bound += time.Duration(int64(min(t-p.at, moment(time.Second))) * share / 1000)
	p.bound = min(max(p.bound, used-mostOwed), used+time.Duration(p.saved.Load()))
	p.at = t
	p.spare.Store(p.bound-used > time.Duration(p.saved.Load()/2))
	over := used - p.bound
	if over <= 0 {
		return 0
	}
	p.rests.Add(1)
	return min(max(over*1000/time.Duration(share), leastRest), mostRest)
}
