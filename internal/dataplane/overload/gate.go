// Package overload decides which new exchanges a saturated node takes on. It works on
// numbers alone: how long requests lay unread, and how many exchanges are under way.
package overload

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is over how long delays are judged, by their median: a runtime that works
	// off a queue out of order lets some through at once, however long it is.
	window = 100 * time.Millisecond

	// A delay of alarmWindows in a row that is alarmTimes the usual one shuts the gate of a
	// node which a quota on its processor time holds back, within bounds: below leastAlarm
	// nobody minds, and above mostAlarm it is too much however usual. What is usual is
	// averaged over about usualWindows. A node that has seen nothing yet takes anything below
	// mostAlarm for usual.
	alarmWindows = 5
	alarmTimes   = 2
	leastAlarm   = 60 * time.Millisecond
	mostAlarm    = 150 * time.Millisecond
	usualWindows = 100

	// patience is the alarm of a node without a quota. It shares the machine with others,
	// its clients on a test bench among them, and their work makes the delay too, which
	// no refusal of ours shortens. Only what clients will hardly wait out is overload.
	patience = time.Second

	// target is the delay to which a shut gate works the queue down, where an alarm shut it;
	// in proportion where patience did. A processor that is shared out by the tenth of a
	// second makes nearly as much without any queue.
	target = 20 * time.Millisecond

	// most measurements of a window are kept.
	most = 64

	// fewest measurements of a window say anything.
	fewest = 4

	// calmWindows without a refusal or a delay open the gate again.
	calmWindows = 10

	leastLimit = 4

	// A refusal costs a part of what an exchange does, and whoever is refused at once
	// asks again at once. So refusals wait, long enough that there is one to refusalShare
	// exchanges at most; they hold their connection and nothing else.
	refusalShare = 5
	leastHold    = 250 * time.Millisecond
	mostHold     = 5 * time.Second
	mostHeld     = 16384
)

// A Gate counts the exchanges under way and, while the node does not keep up with what
// comes, bounds them. It judges the queue of unread requests as CoDel judges one: not by
// how long it gets at times, but by whether it stays long. The bound follows the delay:
// what is beyond it would only lengthen the queue. The zero Gate is open.
//
// All methods may be called at once. An open gate costs two atomic counts an exchange,
// and a measurement now and then.
type Gate struct {
	// Curbed reports whether a quota on processor time has held the process back since
	// the call before. It is asked while delays are alarming. nil: it has.
	Curbed func() bool

	inflight atomic.Int64
	limit    atomic.Int64 // 0: open
	seen     atomic.Uint64
	refused  atomic.Uint64
	held     atomic.Int64
	hold     atomic.Int64 // nanoseconds for which a refusal waits

	mu   sync.Mutex // guards what follows
	rule controller
}

// Measured says how often the delay is asked for: of one in so many exchanges.
const (
	measuredOpen = 16
	measuredShut = 4
)

// Enter reports whether an exchange may go on, and counts it if so: Leave follows. lag
// returns how long its request lay unread, or a negative number if that is not known; it
// may be nil.
func (g *Gate) Enter(now time.Time, lag func() time.Duration) bool {
	limit := g.limit.Load()
	every := uint64(measuredOpen)
	if limit > 0 {
		every = measuredShut
	}
	if g.seen.Add(1)%every == 0 && lag != nil {
		if d := lag(); d >= 0 {
			limit = g.learn(now, d)
		}
	}
	if n := g.inflight.Add(1); limit > 0 && n > limit {
		g.inflight.Add(-1)
		g.refused.Add(1)
		return false
	}
	return true
}

// Hold returns how long the answer to an exchange that was not let in is to wait: then
// Release follows. With too many that wait, it is to be sent at once, and ok is false.
func (g *Gate) Hold() (d time.Duration, ok bool) {
	if g.held.Add(1) > mostHeld {
		g.held.Add(-1)
		return 0, false
	}
	d = max(time.Duration(g.hold.Load()), leastHold)
	return d*3/4 + d/64*time.Duration(g.refused.Load()%32), true // so that they do not all come back together
}

// Release ends what Hold began.
func (g *Gate) Release() { g.held.Add(-1) }

// Inflight returns how many exchanges were let in and have not left.
func (g *Gate) Inflight() int64 { return g.inflight.Load() }

// Held returns how many refusals wait.
func (g *Gate) Held() int64 { return g.held.Load() }

// Leave ends what Enter let in.
func (g *Gate) Leave() { g.inflight.Add(-1) }

// Shut reports whether exchanges are bounded now.
func (g *Gate) Shut() bool { return g.limit.Load() > 0 }

// learn notes a measurement and returns the bound that holds from now on.
func (g *Gate) learn(now time.Time, lag time.Duration) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rule.curbed = g.Curbed
	g.rule.observe(now, lag, counts{g.inflight.Load(), g.held.Load(), g.seen.Load(), g.refused.Load()})
	g.limit.Store(g.rule.limit)
	g.hold.Store(int64(g.rule.hold))
	return g.rule.limit
}

// counts are what a Gate has counted: what there is now, and totals.
type counts struct {
	inflight, held int64
	seen, refused  uint64
}

// A controller turns delays into a bound. It is a value without clock or lock.
type controller struct {
	curbed func() bool
	limit  int64         // 0: none
	target time.Duration // of the delay, while there is a limit
	hold   time.Duration // for which a refusal waits
	ends   time.Time
	now    sample        // of the window at hand
	before sample        // of the one before
	from   counts        // when the window began
	pace   float64       // exchanges a window that were let in, averaged over about ten
	best   float64       // that pace when the gate was shut
	curb   int           // alarming windows for which a quota counts still
	late   int           // windows in a row with an alarming delay
	calmed time.Duration // by how much the usual delay is below what a new node takes it for
	calm   int           // windows in a row without a refusal or a delay
}

// A sample is the measurements of a window.
type sample struct {
	count  int
	delays [most]time.Duration
}

// add keeps a measurement; with too many, in place of an older one.
func (s *sample) add(d time.Duration) {
	s.delays[s.count%most] = d
	s.count++
}

// median returns the middle of what is kept; 0 if that is too little to say.
func (s *sample) median() time.Duration {
	n := min(s.count, most)
	if n < fewest {
		return 0
	}
	all := s.delays
	slices.Sort(all[:n])
	return all[n/2]
}

// observe notes a delay, and what was counted until now.
func (c *controller) observe(now time.Time, lag time.Duration, n counts) {
	switch late := now.Sub(c.ends); {
	case late > calmWindows*window: // nothing came for so long, or this is the first
		*c = controller{curbed: c.curbed, ends: now.Add(window), from: n, calmed: c.calmed}
	case late >= 0:
		c.step(n, float64(window+late)/float64(window))
		c.before, c.now = c.now, sample{}
		c.ends, c.from = now.Add(window), n
	}
	c.now.add(lag)
}

// step judges what was in the given number of windows that have passed.
func (c *controller) step(n counts, windows float64) {
	refused := n.refused - c.from.refused
	let := float64(n.seen-c.from.seen-refused) / windows
	c.pace += (let - c.pace) / 10
	c.hold = min(max(time.Duration(float64(n.held)*refusalShare/max(c.pace, 1)*float64(window)), leastHold), mostHold)
	// Two windows, so that one pause does not fill both.
	delay := min(c.now.median(), c.before.median())
	switch {
	case c.limit == 0 && delay > c.alarm():
		c.alarmed(delay, n)
	case c.limit == 0:
		c.late = 0
		c.calmed += (mostAlarm/alarmTimes - delay - c.calmed) / usualWindows
	case delay > c.target && let < c.best/2: // what makes the delay is not what is let in
		c.limit, c.calm = c.limit+max(c.limit/8, 1), 0
	case delay > 3*c.target:
		c.limit, c.calm = max(c.limit*3/4, leastLimit), 0
	case delay > c.target:
		c.limit, c.calm = max(c.limit*19/20, leastLimit), 0
	case refused > 0:
		c.limit, c.calm = c.limit+max(c.limit/32, 1), 0
	default:
		if c.calm++; c.calm >= calmWindows {
			c.limit = 0
		}
	}
}

// alarm is the delay beyond which a window alarms.
func (c *controller) alarm() time.Duration {
	return max(mostAlarm-alarmTimes*max(c.calmed, 0), leastAlarm)
}

// alarmed notes a window with an alarming delay.
func (c *controller) alarmed(delay time.Duration, n counts) {
	bound := c.alarm()
	if c.curbed != nil {
		if c.curb--; c.curbed() {
			c.curb = calmWindows // a window may fall between two of the quota's
		}
		if c.curb = max(c.curb, 0); c.curb == 0 {
			bound = patience
		}
	}
	if delay <= bound {
		c.late = 0
		return
	}
	if c.late++; c.late >= alarmWindows {
		c.limit, c.late, c.calm = max(n.inflight, leastLimit), 0, 0
		c.target, c.best = max(target*bound/mostAlarm, target), c.pace
	}
}
