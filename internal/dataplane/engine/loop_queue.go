package engine

import "time"

// A queue is what clients of a loop want to begin and the loop has not come to, where a quota
// is used evenly and the loop therefore rests in between. Whatever is under way goes first: it
// takes its place no longer than it must, and who is let in is served in time. The loop takes
// all events from the kernel as soon as it can, so that it knows how long each has waited. What
// others on the machine do to the loop does not count: no refusal would make that shorter.
//
// The zero queue is empty.
type queue struct {
	all    []queued
	from   int    // those before are seen to
	turned moment // when the turn at hand began; 0: there is no quota
	clock  moment // as turned, but as if nobody took the processor away
	rested moment // for how long the loop meant to rest after that turn
}

// A queued event waits for its turn.
type queued struct {
	wire  *loopWire // which has what has happened to it since
	gen   uint32
	since moment // on the queue's clock
}

const (
	// leastNew is how many who wait are seen to in a turn, however much is under way.
	leastNew = pacedBatch / 4

	// spareBatch is pacedBatch while the process is far from what the quota allows: its turns
	// come late then, since others have the processors.
	spareBatch = 4 * pacedBatch

	// longTurn is how long a turn takes, without the rest after it, only if the loop had to
	// wait for a processor.
	longTurn = 3 * time.Millisecond
)

func (q *queue) some() bool { return q.from < len(q.all) }

// line puts those of n events that begin something at the end of the queue and returns how
// many are to be seen to in this turn: the others, and who has waited longest.
func (l *loop) line(n int, t moment) int {
	q := &l.queue
	q.clock += min(t-q.turned, q.rested+moment(longTurn))
	q.turned, q.rested = t, 0
	kept := 0
	for i := range l.events[:n] {
		ev := &l.events[i]
		if w := l.starter(ev.Fd, uint32(ev.Pad)); w != nil {
			// Once, however many pieces it says it in: a batch reads once for each event, and
			// a client must not make the queue longer by itself.
			if w.lined == 0 {
				q.all = append(q.all, queued{w, w.gen, q.clock})
			}
			w.lined |= readiness(ev.Events)
			continue
		}
		l.events[kept] = *ev
		kept++
	}
	most := pacedBatch
	if l.engine.pacer.spare.Load() {
		most = spareBatch
	}
	for most = max(most, kept+leastNew); kept < min(most, len(l.events)) && q.some(); {
		p := &q.all[q.from]
		q.from++
		if !p.wire.is(p.gen) {
			continue
		}
		if c := p.wire.client; c.served {
			c.heard = p.since
		}
		ev := &l.events[kept]
		ev.Fd, ev.Pad, ev.Events = p.wire.fd, int32(p.gen), uint32(p.wire.lined)
		p.wire.lined = 0
		kept++
	}
	switch {
	case !q.some():
		q.all, q.from = q.all[:0], 0
	case q.from > len(q.all)/2:
		q.all, q.from = q.all[:copy(q.all, q.all[q.from:])], 0
	}
	return kept
}

// starter returns the wire of an event with which a client may begin an exchange; nil if it
// is another's.
func (l *loop) starter(fd int32, gen uint32) *loopWire {
	if gen == 0 {
		return nil
	}
	if w := l.table[fd]; w != nil && w.gen == gen && w.client != nil && w.client.phase == phaseIdle {
		return w
	}
	return nil
}
