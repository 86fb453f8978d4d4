package overload

import (
	"slices"
	"time"
)

// counts are what a Gate has counted: what there is now, and totals.
type counts struct {
	inflight, held int64
	seen, refused  uint64
}

// A controller turns delays into a bound. It is a value without clock or lock.
type controller struct {
	curbed func() bool
	strict bool          // who waits too long is refused one by one
	limit  int64         // 0: none
	target time.Duration // of the delay, while there is a limit
	ends   time.Time
	now    sample        // of the window at hand
	before sample        // of the one before
	from   counts        // when the window began
	pace   float64       // exchanges a window that were let in, averaged over about ten
	best   float64       // the most exchanges a window that were let in, of the last seconds with a limit
	curb   int           // alarming windows for which a quota counts still
	spare  bool          // there is a limit, and neither a refusal nor a delay
	able   float64       // exchanges that were let in in windows with more than enough to do
	crowd  bool          // so many refusals wait that without a bound they would make a queue
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

// low returns the mean of the lower half of what is kept; 0 if that is too little to say.
// A queue that is worked off now and then, however long it gets in between, has times
// without a delay, as CoDel has found. A mean says more than any one measurement: the
// kernel counts in steps of up to ten milliseconds.
func (s *sample) low() time.Duration {
	n := min(s.count, most)
	if n < fewest {
		return 0
	}
	all := s.delays
	slices.Sort(all[:n])
	sum := time.Duration(0)
	for _, d := range all[:n/2] {
		sum += d
	}
	return sum / time.Duration(n/2)
}

// observe notes a delay, and what was counted until now.
func (c *controller) observe(now time.Time, lag time.Duration, n counts) {
	switch late := now.Sub(c.ends); {
	case late > calmWindows*window: // nothing came for so long, or this is the first
		*c = controller{curbed: c.curbed, strict: c.strict, able: c.able, ends: now.Add(window), from: n, calmed: c.calmed}
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
	// What was refused since seen was read is in refused alone: it may be the larger one.
	let := max(float64(n.seen-c.from.seen)-float64(refused), 0) / windows
	c.pace += (let - c.pace) / 10
	c.best = max(c.best*0.97, let)
	switch {
	case float64(refused) > let*windows: // says less: who are late are refused, though there would be time for others
		c.able += (let - c.able) / fallWindows
	case refused > 0:
		c.able += (let - c.able) / 4
	}
	c.able = max(c.able, let)
	c.crowd = float64(n.held)*float64(window) > c.pace*float64(crowdTime)
	// Two windows, so that one pause does not fill both.
	delay := min(c.now.low(), c.before.low())
	c.spare = c.limit > 0 && refused == 0 && delay <= c.target
	switch {
	case c.limit > 0:
		c.steer(delay, let, n.inflight, refused > 0, n.held > 0)
	case c.strict: // so what others wait for is no sign of a queue
	case delay > c.alarm():
		c.alarmed(delay, let, n)
	default:
		c.late = 0
		if calmed := newUsual - delay; calmed > c.calmed {
			c.calmed += (calmed - c.calmed) / fallWindows
		} else {
			c.calmed += (calmed - c.calmed) / riseWindows
		}
	}
}

// steer moves the bound by a part of the exchanges that make up the difference between the
// delay and its target, so many as are let in meanwhile. As long as refusals wait it is only
// calm because they do.
//
// More may be under way than the bound lets in: who came before it was set, and waits for a server
// or for a client that uploads slowly. While there is no delay they cost nothing, and the bound is
// of those who come besides; else they would keep all others out for as long as they stay.
func (c *controller) steer(delay time.Duration, let float64, inflight int64, refusing, waiting bool) {
	excess := delay - c.target
	if refusing && excess <= 0 {
		c.limit = max(c.limit, inflight)
	}
	n := int64(let * float64(excess) / float64(window))
	switch {
	case excess > 0 && let < c.best/2: // what makes the delay is not what is let in
		c.limit, c.calm = c.limit+max(c.limit/16, 1), 0
	case excess > 0:
		c.limit, c.calm = max(c.limit-max(n/2, 1), c.limit/2, leastLimit), 0
	case refusing:
		c.limit, c.calm = c.limit+max(-n/4, 1), 0
	case waiting:
		c.calm = 0
	default:
		if c.calm++; c.calm >= calmWindows {
			c.limit = 0
		}
	}
}

// newUsual is what a node that has seen nothing yet takes for the usual delay.
const newUsual = mostAlarm / alarmTimes

// usual is the delay that is.
func (c *controller) usual() time.Duration { return max(newUsual-c.calmed, 0) }

// alarm is the delay beyond which a window alarms.
func (c *controller) alarm() time.Duration {
	return min(max(alarmTimes*c.usual(), leastAlarm), mostAlarm)
}

// alarmed notes a window with an alarming delay, in which so many exchanges were let in.
func (c *controller) alarmed(delay time.Duration, let float64, n counts) {
	bound, goal := c.alarm(), min(max(c.usual(), leastTarget), mostTarget)
	if c.curbed != nil {
		if c.curb--; c.curbed() {
			c.curb = calmWindows // a window may fall between two of the quota's
		}
		if c.curb = max(c.curb, 0); c.curb == 0 {
			bound, goal = patience, mostTarget
		}
	}
	if delay <= bound {
		c.late = 0
		return
	}
	if c.late++; c.late >= alarmWindows {
		// Of those under way, as many wait for us as are let in during the delay. What the
		// rest waits for is its servers.
		waits := let * float64(delay-goal) / float64(window)
		c.limit = max(n.inflight-int64(waits), int64(let*float64(goal)/float64(window)), leastLimit)
		c.late, c.calm, c.target = 0, 0, goal
		c.best = let // what a node did for few clients it may not do for many
	}
}
