package upstream

import "slices"

// Peek tells what Pick would do now, and takes nothing: the server that it would return,
// or its error. Where chance decides both are nil.
func (p *Pool) Peek(a Ask) (*Server, error) {
	if p.Config.Queue != nil && p.queue.length.Load() > 0 {
		return nil, ErrFull
	}
	l := p.line(a.Now)
	if at := p.places[a.Keep]; at != nil {
		switch {
		case !at.full() && at.keeps(a.Now):
			return at.Server, nil
		case at.full() && p.Config.Queue != nil:
			return nil, ErrFull
		}
	}
	if s, drawn := p.tiers[l.first].peek(a); s != nil {
		return s.Server, nil
	} else if drawn {
		return nil, nil
	}
	if slices.ContainsFunc(p.servers, func(s *Server) bool { at := p.places[s]; return at.weight.Load() > 0 && at.full() }) {
		return nil, ErrFull
	}
	return nil, ErrNone
}

// peek is choose without taking a place. drawn says that there is one, by chance.
func (t *tier) peek(a Ask) (s *slot, drawn bool) {
	first, second := &t.near, &t.far
	if share := uint64(t.share.Load()); share < zoneUnit {
		if n := t.turns.Load() + 1; n*share/zoneUnit == (n-1)*share/zoneUnit {
			first, second = second, first
		}
	}
	if s, drawn = first.peek(a); s != nil || drawn {
		return s, drawn
	}
	return second.peek(a)
}

func (g *group) peek(a Ask) (s *slot, drawn bool) {
	switch rule := g.rule.(type) {
	case *roundRobin:
		return rule.peek(), false
	case *leastConn:
		return rule.peek(), false
	case *hashed:
		return rule.peek(a.Hash), false
	case *inOrder:
		return firstOpen(rule.slots), false
	}
	return nil, firstOpen(g.slots) != nil
}

func (r *roundRobin) peek() *slot {
	o := r.order.Load()
	if o == nil || len(o.turns) == 0 {
		return nil
	}
	from := o.next.Load()
	for i := range uint64(min(len(o.turns), 2*len(r.slots))) {
		if s := r.slots[o.turns[(from+i)%uint64(len(o.turns))]]; s.open() {
			return s
		}
	}
	return firstOpen(r.slots)
}

func (r *leastConn) peek() *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	best := -1
	for i, s := range r.slots {
		if s.open() && (best < 0 || r.before(i, best)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return r.slots[best]
}

func (r *hashed) peek(hash uint64) *slot {
	const tries = 16
	last := 0
	for try := range tries {
		last = r.table.at(hash, try)
		if s := r.slots[last]; s.open() && s.admits(hash) && !r.overloaded(s) {
			return s
		}
	}
	return firstOpen(slices.Concat(r.slots[last:], r.slots[:last])) // as takeFrom goes round
}

func firstOpen(slots []*slot) *slot {
	for _, s := range slots {
		if s.open() {
			return s
		}
	}
	return nil
}

// open reports whether the slot has a place to give.
func (s *slot) open() bool { return s.weight.Load() > 0 && !s.full() }
