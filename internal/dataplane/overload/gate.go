// Package overload decides which new exchanges a saturated node takes on. It works on
// numbers alone: how long requests lay unread, and how many exchanges are under way.
package overload

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is over how long delays are judged.
	window = 100 * time.Millisecond

	// A delay of alarmWindows in a row that is alarmTimes the usual one shuts the gate of a
	// node which a quota on its processor time holds back, within bounds: below leastAlarm
	// nobody minds, and above mostAlarm it is too much however usual. A node that has seen
	// nothing yet takes anything below mostAlarm for usual. It learns within about
	// fallWindows that less is, and much more slowly that more is, lest a load that
	// grows and grows be usual at any time.
	alarmWindows = 3
	alarmTimes   = 2
	leastAlarm   = 40 * time.Millisecond
	mostAlarm    = 100 * time.Millisecond
	fallWindows  = 30
	riseWindows  = 300

	// patience is the alarm of a node without a quota. It shares the machine with others,
	// its clients on a test bench among them, and their work makes the delay too, which
	// no refusal of ours shortens. Many clients that ask again as soon as they are answered
	// make a queue as long as there are clients. Only what clients will hardly wait out is
	// overload.
	patience = 400 * time.Millisecond

	// The target is the delay to which a shut gate works the queue down: the usual one,
	// within these bounds. Below, the kernel's clock says little; a processor that is
	// taken away by the tenth of a second makes nearly as much as the upper one without
	// any queue.
	leastTarget = 4 * time.Millisecond
	mostTarget  = 20 * time.Millisecond

	// most measurements of a window are kept.
	most = 64

	// fewest measurements of a window say anything.
	fewest = 4

	// calmWindows without a refusal or a delay open the gate again.
	calmWindows = 10

	leastLimit = 4

	// Where it is known of each request how long it has waited, nobody is let in who has waited
	// for strictAlarm: many who come at once would make a queue that a bound takes a second to
	// work off. From then on nobody is who has waited for strictWait, as long as serving all
	// whose refusals wait would take crowdTime, and for strictTime after that. What is under
	// way in that time makes turns of the loops that are worth their rests; more would only
	// wait longer, and be out of the processor's caches when its turn comes.
	strictAlarm = 60 * time.Millisecond
	strictWait  = 5 * time.Millisecond
	leastWork   = time.Millisecond // under way, which is done however late
	strictTime  = calmWindows * window
	crowdTime   = 20 * time.Millisecond

	// A refusal costs a part of what an exchange does, and whoever is refused at once
	// asks again at once. So refusals wait, long enough that there is one to refusalShare
	// exchanges at most; they hold their connection and nothing else.
	refusalShare = 24
	leastHold    = 250 * time.Millisecond
	mostHold     = 5 * time.Second
	mostHeld     = 16384

	// leastAble is how many exchanges a window any node is taken to be able to do.
	leastAble = 50
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

	// Idle reports whether the process uses clearly less than its quota. nil: it does not.
	Idle func() bool

	inflight atomic.Int64
	limit    atomic.Int64 // 0: open
	seen     atomic.Uint64
	refused  atomic.Uint64
	measured atomic.Int64 // when a delay was asked for, nanoseconds since 1970
	held     atomic.Int64
	spare    atomic.Bool
	crowd    atomic.Bool
	lag      atomic.Int64 // that was measured last
	able     atomic.Int64 // exchanges that can be let in in a window
	strict   atomic.Int64 // until when the gate is strict, nanoseconds since 1970

	mu   sync.Mutex // guards what follows
	rule controller

	early struct { // of Early alone
		refused uint64
		n       int
	}
}

// How often the delay is asked for: of one in so many exchanges, and of the first after
// measuredGap, so that a node with few and dear ones is judged as well.
const (
	measuredOpen = 16
	measuredShut = 4
	measuredGap  = 10 * time.Millisecond
)

// Enter reports whether an exchange may go on, and counts it if so: Leave follows. lag
// returns how long its request lay unread, or a negative number if that is not known; it
// may be nil. exact says that it is cheap, and that lag is what to judge this request by.
func (g *Gate) Enter(now time.Time, lag func() time.Duration, exact bool) bool {
	limit := g.limit.Load()
	every := uint64(measuredOpen)
	if limit > 0 {
		every = measuredShut
	}
	t := now.UnixNano()
	strict := g.isStrict(t)
	gap := t - g.measured.Load()
	turn := g.seen.Add(1)%every == 0 || gap > int64(measuredGap) || gap < -int64(strictTime)
	if lag != nil && (turn || exact && strict) {
		d := lag()
		late := exact && d > g.longest(strict) && g.busy()
		if late || strict && g.crowd.Load() {
			g.strict.Store(t + int64(strictTime))
		}
		if turn {
			g.measured.Store(t)
			g.lag.Store(int64(d))
			if d >= 0 {
				limit = g.learn(now, d)
			}
		}
		if late {
			g.refused.Add(1)
			return false
		}
	}
	if n := g.inflight.Add(1); limit > 0 && n > limit {
		g.inflight.Add(-1)
		g.refused.Add(1)
		return false
	}
	return true
}

// busy reports whether so much is under way that to let in more, who have waited for too long
// already, would keep others waiting. All of a crowd that comes at once have waited for too
// long: nobody is helped if all are refused and nothing is done.
func (g *Gate) busy() bool {
	n := g.inflight.Load()
	return n >= leastLimit && time.Duration(n)*window >= time.Duration(g.able.Load())*leastWork
}

// isStrict reports whether the gate is strict at t. A wall clock that was set back does not
// make it so for longer than it was meant to be; threads read it within a second.
func (g *Gate) isStrict(t int64) bool {
	left := g.strict.Load() - t
	return left > 0 && left <= 2*int64(strictTime)
}

// longest returns how long one who is let in has waited at most, where that is known.
func (g *Gate) longest(strict bool) time.Duration {
	if strict {
		return strictWait
	}
	return strictAlarm
}

// Hold returns how long the answer to an exchange that was not let in is to wait: then
// Release follows. With too many that wait, it is to be sent at once, and ok is false.
func (g *Gate) Hold() (d time.Duration, ok bool) {
	held := g.held.Add(1)
	if held > mostHeld {
		g.held.Add(-1)
		return 0, false
	}
	able := max(g.able.Load(), leastAble)
	d = min(max(time.Duration(held*refusalShare/able)*window, leastHold), mostHold)
	return d*3/4 + d/64*time.Duration(g.refused.Load()%32), true // so that they do not all come back together
}

// Release ends what Hold began.
func (g *Gate) Release() { g.held.Add(-1) }

// Inflight returns how many exchanges were let in and have not left.
func (g *Gate) Inflight() int64 { return g.inflight.Load() }

// Held returns how many refusals wait.
func (g *Gate) Held() int64 { return g.held.Load() }

// Refused returns how many exchanges were not let in, ever.
func (g *Gate) Refused() uint64 { return g.refused.Load() }

// Leave ends what Enter let in.
func (g *Gate) Leave() { g.inflight.Add(-1) }

// Shut reports whether exchanges are refused that wait too long, or are too many, at this time.
func (g *Gate) Shut(now time.Time) bool {
	return g.limit.Load() > 0 || g.isStrict(now.UnixNano())
}

const (
	// earlyPart is of how many who wait one goes on early, where there is room for more.
	earlyPart = 128

	// lagLast is for how long a delay that was measured says that there is one.
	lagLast = 2 * roomTick

	// earlyAble is of how many exchanges, that can be let in in a window, one is the most that
	// goes on early where all are timed: a quarter more in each tick.
	earlyAble = 4 * int(window/roomTick)
)

// Early returns how many refusals of those that wait are to go on before their time, since
// less comes than could be done without a delay. It is for Room.Early, which one goroutine
// at a time calls.
func (g *Gate) Early(now time.Time, waiting int) int {
	e := &g.early
	refused := g.refused.Load()
	most := int64(strictWait) // a delay above it says that there is no room
	idle := g.Idle != nil && g.Idle()
	if !idle {
		most /= 2
	}
	calm := idle || refused == e.refused
	e.refused = refused
	lag := g.lag.Load()
	if now.UnixNano()-g.measured.Load() > int64(lagLast) {
		lag = 0 // nothing has come since: all wait
	}
	switch {
	case !g.isStrict(now.UnixNano()):
		e.n = 0
		if g.spare.Load() {
			return waiting / earlyPart
		}
		return 0
	case !calm || lag > most:
		e.n = 0
	default:
		e.n = min(2*e.n+1, int(g.able.Load())/earlyAble+1)
	}
	return e.n
}

// learn notes a measurement and returns the bound that holds from now on.
func (g *Gate) learn(now time.Time, lag time.Duration) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rule.curbed, g.rule.strict = g.Curbed, g.isStrict(now.UnixNano())
	g.rule.observe(now, lag, counts{g.inflight.Load(), g.held.Load(), g.seen.Load(), g.refused.Load()})
	g.limit.Store(g.rule.limit)
	g.spare.Store(g.rule.spare)
	g.crowd.Store(g.rule.crowd)
	g.able.Store(int64(g.rule.able))
	return g.rule.limit
}
