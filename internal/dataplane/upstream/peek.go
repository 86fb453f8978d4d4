package upstream

// Peek returns the server that Pick would return now, and takes nothing. It is nil where
// chance decides, or where there is none.
func (p *Pool) Peek(a Ask) *Server {
	l := p.line(a.Now)
	for i := l.first; i < len(p.tiers); i++ {
		var s *slot
		switch rule := p.tiers[i].rule.(type) {
		case *roundRobin:
			s = rule.peek()
		case *leastConn:
			s = rule.peek()
		case *hashed:
			s = rule.peek(a.Hash)
		case *inOrder:
			s = firstUp(rule.slots)
		}
		if s != nil {
			return s.Server
		}
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
		if s := r.slots[o.turns[(from+i)%uint64(len(o.turns))]]; s.weight.Load() > 0 {
			return s
		}
	}
	return firstUp(r.slots)
}

func (r *leastConn) peek() *slot {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.slots[r.heap[0]]; s.weight.Load() > 0 {
		return s
	}
	return nil
}

func (r *hashed) peek(hash uint64) *slot {
	const tries = 16
	for try := range tries {
		if s := r.slots[r.table.at(hash, try)]; s.weight.Load() > 0 && s.admits(hash) && !r.overloaded(s) {
			return s
		}
	}
	return firstUp(r.slots)
}

func firstUp(slots []*slot) *slot {
	for _, s := range slots {
		if s.weight.Load() > 0 {
			return s
		}
	}
	return nil
}
