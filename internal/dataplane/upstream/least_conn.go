package upstream

import "sync"

// leastConn chooses the server that has the fewest exchanges for its weight. Those that
// have equally few take turns by their weights: each has a time of its own at which its
// turn is, and a turn moves that on by one part in its weight.
//
// The slots are kept in a heap, the next one on top, so that neither choosing nor giving
// back looks at all of them.
type leastConn struct {
	slots []*slot

	mu     sync.Mutex // guards what follows
	heap   []int      // places in slots; each is before the two below it
	where  []int      // place in heap of each slot
	active []int64    // exchanges of each slot, as the heap has them
	weight []int64    // of each slot; 0 is behind all others
	time   []uint64   // of each slot; wraps around
	now    uint64     // the time of the last one chosen
	aside  []int      // slots that get no place in this choice
}

// A seat is where a server's number of exchanges is kept in order: in the pool of the
// snapshot in force. One that is retired learns only of what it looks at.
type seat struct {
	rule *leastConn
	at   int
}

// perTurn is how far a turn moves a server's time, divided by its weight.
const perTurn = 1 << 40

func newLeastConn(slots []*slot) *leastConn {
	n := len(slots)
	r := &leastConn{slots: slots, heap: make([]int, n), where: make([]int, n), active: make([]int64, n), weight: make([]int64, n), time: make([]uint64, n)}
	for i := range n {
		r.heap[i], r.where[i] = i, i
	}
	return r
}

// tell tells the server's seat that it has more or fewer exchanges.
func (s *Server) tell() {
	if at := s.seat.Load(); at != nil {
		at.rule.moved(at.at)
	}
}

func (r *leastConn) arrange() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range r.slots {
		r.weight[i], r.active[i] = int64(s.weight.Load()), s.Active.Load()
	}
	for at := len(r.heap)/2 - 1; at >= 0; at-- {
		r.sink(at)
	}
}

// moved puts a slot where its number of exchanges belongs now.
func (r *leastConn) moved(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active[i] = r.slots[i].Active.Load()
	r.settle(r.where[i])
}

func (r *leastConn) choose(a Ask) *slot {
	s := r.top(a)
	if s == nil {
		return nil
	}
	if at := s.seat.Load(); at != nil && at.rule != r {
		at.rule.moved(at.at)
	}
	return s
}

func (r *leastConn) top(a Ask) (best *slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for best == nil && r.able(r.heap[0]) > 0 {
		i := r.heap[0]
		switch s := r.slots[i]; {
		case r.active[i] != s.Active.Load(): // someone is about to tell
			r.active[i] = s.Active.Load()
		case s.take(a):
			best = s
			r.active[i] = s.Active.Load()
			if ahead(r.time[i], r.now) {
				r.now = r.time[i]
			}
			r.time[i] = r.now + perTurn/uint64(r.weight[i])
		default:
			r.aside = append(r.aside, i)
			r.weight[i] = 0
		}
		r.sink(0)
	}
	for _, i := range r.aside {
		r.weight[i] = int64(r.slots[i].weight.Load())
		r.settle(r.where[i])
	}
	r.aside = r.aside[:0]
	return best
}

// able is what a slot weighs: nothing if it is full.
func (r *leastConn) able(i int) int64 {
	if limit := r.slots[i].limit; limit > 0 && r.active[i] >= limit {
		return 0
	}
	return r.weight[i]
}

// before reports whether slot i is chosen before slot j.
func (r *leastConn) before(i, j int) bool {
	v, w := r.able(i), r.able(j)
	if v == 0 || w == 0 {
		return v > w
	}
	// Compare a/v with b/w without dividing.
	if a, b := r.active[i]*w, r.active[j]*v; a != b {
		return a < b
	}
	if r.time[i] != r.time[j] {
		return ahead(r.time[j], r.time[i])
	}
	return i < j
}

// ahead reports whether a is later than b.
func ahead(a, b uint64) bool { return int64(a-b) > 0 }

// settle moves the slot at a place of the heap up or down to where it belongs.
func (r *leastConn) settle(at int) {
	for at > 0 && r.before(r.heap[at], r.heap[(at-1)/2]) {
		r.swap(at, (at-1)/2)
		at = (at - 1) / 2
	}
	r.sink(at)
}

func (r *leastConn) sink(at int) {
	for {
		below := 2*at + 1
		if below >= len(r.heap) {
			return
		}
		if below+1 < len(r.heap) && r.before(r.heap[below+1], r.heap[below]) {
			below++
		}
		if !r.before(r.heap[below], r.heap[at]) {
			return
		}
		r.swap(at, below)
		at = below
	}
}

func (r *leastConn) swap(a, b int) {
	r.heap[a], r.heap[b] = r.heap[b], r.heap[a]
	r.where[r.heap[a]], r.where[r.heap[b]] = a, b
}
