package upstream

import (
	"fmt"
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
		next := s.weigh(now)
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

// A tier is the servers that are asked before those of the next.
type tier struct {
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

// up reports whether any server of the tier may be chosen.
func (t *tier) up() bool {
	for _, s := range t.slots {
		if s.weight.Load() > 0 {
			return true
		}
	}
	return false
}

func (t *tier) arrange() {
	if t.rule != nil {
		t.rule.arrange()
	}
}

func (t *tier) choose(a Ask) *slot {
	if t.rule == nil {
		return nil
	}
	return t.rule.choose(a)
}
