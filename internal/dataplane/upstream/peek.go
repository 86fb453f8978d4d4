package upstream

// Peek returns the server that Pick would return now, and takes nothing. It is nil where
// chance decides, or where there is none. Of a zone that shares its requests with others
// it names the near server.
func (p *Pool) Peek(a Ask) *Server {
	if at := p.places[a.Keep]; at != nil && at.keeps(a.Now) && !at.full() {
		return at.Server
	}
	l := p.line(a.Now)
	for i := l.first; i < len(p.tiers); i++ {
		t := &p.tiers[i]
		for _, g := range []*group{&t.near, &t.far} {
			if s := g.peek(a); s != nil {
				return s.Server
			}
		}
	}
	return nil
}

// peek is choose without taking a place.
func (g *group) peek(a Ask) *slot {
	switch rule := g.rule.(type) {
	case *roundRobin:
		return rule.peek()
	case *leastConn:
		return rule.peek()
	case *hashed:
		return rule.peek(a.Hash)
	case *inOrder:
		return firstUp(rule.slots)
	}
	return nil
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
	return firstUp(r.slots)
}

func (r *leastConn) peek() *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.slots[r.heap[0]]; s.open() {
		return s
	}
	return nil
}

func (r *hashed) peek(hash uint64) *slot {
	const tries = 16
	for try := range tries {
		if s := r.slots[r.table.at(hash, try)]; s.open() && s.admits(hash) && !r.overloaded(s) {
			return s
		}
	}
	return firstUp(r.slots)
}

func firstUp(slots []*slot) *slot {
	for _, s := range slots {
		if s.open() {
			return s
		}
	}
	return nil
}

// open reports whether the slot has a place to give.
func (s *slot) open() bool { return s.weight.Load() > 0 && !s.full() }
