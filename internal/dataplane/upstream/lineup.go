package upstream

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A lineup is who may be chosen as of one moment. It is made anew when a server comes up
// or goes down, and when a weight has changed; choosing takes no lock meanwhile. What has
// changed since is caught when a server is taken.
type lineup struct {
	changes uint64    // Counters.changes when it was made
	until   time.Time // when it is to be made again without a change; zero: never
	rest    time.Time // before which it is not made again
	first   int       // the tier that is in use
	anyone  bool      // no server is up: it is better to try any than to refuse all
}

const (
	// restFor keeps a large pool of which some server always changes from lining up all
	// the time: its share of a processor is a percent or so.
	restFor = 2 * time.Microsecond // for each server
	restMin = 256                  // servers; fewer are lined up at each change

	// lookAgain is how often a pool is lined up of which a server is out.
	lookAgain = time.Second
)

// line returns the line-up in force.
func (p *Pool) line(now time.Time) *lineup {
	l := p.lineup.Load()
	switch {
	case l == nil:
		p.mu.Lock()
	case l.changes == p.changes.Load() && (l.until.IsZero() || now.Before(l.until)):
		return l
	case now.Before(l.rest) || !p.mu.TryLock():
		return l // soon; or someone else is at it
	}
	defer p.mu.Unlock()
	if again := p.lineup.Load(); again != l {
		return again
	}
	l = p.arrange(now)
	p.lineup.Store(l)
	return l
}

// arrange weighs every server and tells the rules. mu is held.
func (p *Pool) arrange(now time.Time) *lineup {
	l := &lineup{changes: p.changes.Load()}
	if n := len(p.slots); n > restMin {
		l.rest = now.Add(time.Duration(n) * restFor)
	}
	for i := range p.slots {
		s := &p.slots[i]
		next := s.weigh(now, p.Config.SlowStart)
		if s.unfit.Load() {
			next = sooner(next, now.Add(lookAgain))
		}
		l.until = sooner(l.until, next)
	}
	for l.first < len(p.tiers) && !p.tiers[l.first].up() {
		l.first++
	}
	if l.first == len(p.tiers) {
		l.anyone = true
		for i := range p.slots {
			if s := &p.slots[i]; !s.barred(now) {
				s.set(unit)
			}
		}
		for l.first = 0; l.first < len(p.tiers)-1 && !p.tiers[l.first].up(); {
			l.first++
		}
	}
	for i := range p.tiers {
		p.tiers[i].arrange()
	}
	return l
}

// sooner returns the earlier of two times, of which zero is never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// A tier is the servers that are asked before those of the next: those of the node's own
// zone, and the others. Without zones all are near.
type tier struct {
	near, far group
	share     atomic.Uint32 // of requests that go to the near ones while they have room, of zoneUnit
	turns     atomic.Uint64 // of requests, while some go to either
}

// A group is servers that take turns by one rule.
type group struct {
	slots []*slot
	rule  rule
}

// A rule says which of some slots is next. Its methods may be called at once by many,
// but for arrange, which is called by one at a time.
type rule interface {
	// arrange takes note of what the slots weigh now.
	arrange()
	// choose takes a place on one of the slots that weigh something, and returns it, or
	// nil if there is no place. It never waits.
	choose(a Ask) *slot
}

// newRule makes the rule of that name for slots. draw gives random bits.
func newRule(balance string, slots []*slot, draw func() uint64) (rule, error) {
	switch balance {
	case "", "round_robin":
		return &roundRobin{slots: slots}, nil
	case "least_conn":
		return newLeastConn(slots), nil
	case "ewma":
		return &ewma{slots: slots, draw: draw}, nil
	case "random":
		return &random{slots: slots, draw: draw}, nil
	case "hash":
		return newHashed(slots, hashBound), nil
	case "first":
		return &inOrder{slots: slots, draw: draw}, nil
	}
	return nil, fmt.Errorf("balance %q is not known", balance)
}

const (
	zoneUnit = 1 << 16

	// zoneSpare is how much of its weight a zone may lose before others help it out: all
	// requests stay in the zone while 1/zoneSpare of its weight is up, and of less than
	// that as large a share as is up (Envoy's overprovisioning factor).
	zoneSpare = 1.4
)

// up reports whether any server of the tier may be chosen.
func (t *tier) up() bool { return t.near.weight() > 0 || t.far.weight() > 0 }

// weight is what all servers of the group weigh now.
func (g *group) weight() (sum int64) {
	for _, s := range g.slots {
		sum += int64(s.weight.Load())
	}
	return sum
}

// given is what they would weigh if all were up.
func (g *group) given() (sum int64) {
	for _, s := range g.slots {
		sum += int64(s.given)
	}
	return sum
}

func (t *tier) arrange() {
	for _, g := range []*group{&t.near, &t.far} {
		if g.rule != nil {
			g.rule.arrange()
		}
	}
	share := 1.0
	if near := t.near.weight(); t.far.weight() > 0 {
		share = min(zoneSpare*float64(near)/float64(max(t.near.given(), 1)), 1)
	}
	t.share.Store(uint32(share * zoneUnit))
}

// choose asks the servers of the own zone first, but for the share of requests that it
// cannot bear; the others when there is no room.
func (t *tier) choose(a Ask) *slot {
	first, second := &t.near, &t.far
	if share := uint64(t.share.Load()); share < zoneUnit {
		if n := t.turns.Add(1); n*share/zoneUnit == (n-1)*share/zoneUnit {
			first, second = second, first
		}
	}
	if s := first.choose(a); s != nil {
		return s
	}
	return second.choose(a)
}

func (g *group) choose(a Ask) *slot {
	if g.rule == nil {
		return nil
	}
	return g.rule.choose(a)
}
