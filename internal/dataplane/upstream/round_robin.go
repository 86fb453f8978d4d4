package upstream

import (
	"sync"
	"sync/atomic"
)

// roundRobin is nginx's smooth weighted round robin: of weights 5, 1 and 1 the order is
// a a b a c a a. The order is worked out beforehand, so that a turn is one addition.
type roundRobin struct {
	slots []*slot
	order atomic.Pointer[order]

	mu sync.Mutex // held by who makes or prolongs the order
}

// An order is a stretch of the sequence of turns.
type order struct {
	turns []uint32 // places in roundRobin.slots
	whole bool     // turns is the whole sequence, which begins again
	next  atomic.Uint64
	rest  *smooth // where the sequence goes on; nil if turns is whole
}

const (
	// maxWhole bounds the steps that working out a whole sequence may take. A longer one
	// is worked out a stretch at a time.
	maxWhole   = 1 << 18
	maxStretch = 1 << 16 // steps
)

// arrange makes the order anew. It goes on behind the server whose turn was last.
func (r *roundRobin) arrange() {
	r.mu.Lock()
	defer r.mu.Unlock()
	from := 0
	if old := r.order.Load(); old != nil {
		from = old.after()
	}
	s := newSmooth(r.slots, from)
	o := &order{}
	if s.total*int64(len(s.classes)) <= maxWhole {
		o.turns, o.whole = s.stretch(int(s.total)), true
	} else {
		o.turns, o.rest = s.stretch(max(maxStretch/len(s.classes), 64)), s
	}
	r.order.Store(o)
}

// choose lets those whose turn it is but who have no place miss it.
func (r *roundRobin) choose(a Ask) *slot {
	o := r.order.Load()
	for range min(len(o.turns), 2*len(r.slots)) {
		i := o.next.Add(1) - 1
		for !o.whole && i >= uint64(len(o.turns)) {
			o = r.prolong(o)
			i = o.next.Add(1) - 1
		}
		if s := r.slots[o.turns[i%uint64(len(o.turns))]]; s.take(a) {
			return s
		}
	}
	for _, s := range r.slots { // some are far apart in the order
		if s.take(a) {
			return s
		}
	}
	return nil
}

// prolong returns the stretch after o.
func (r *roundRobin) prolong(o *order) *order {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.order.Load(); now != o {
		return now
	}
	next := &order{turns: o.rest.stretch(len(o.turns)), rest: o.rest}
	r.order.Store(next)
	return next
}

// after returns the place behind the one whose turn was last.
func (o *order) after() int {
	n := o.next.Load()
	if n == 0 || len(o.turns) == 0 {
		return 0
	}
	if !o.whole {
		n = min(n, uint64(len(o.turns)))
	}
	return int(o.turns[(n-1)%uint64(len(o.turns))]) + 1
}

// smooth works out the sequence. At each turn nginx adds its weight to what every server
// has, lets the first that has most be next, and takes the sum of all weights from it.
// Servers of equal weight can only follow one another, so it is enough to look at the
// next one of each weight.
type smooth struct {
	classes []class
	total   int64
	turn    int64
}

// A class is the servers of one weight.
type class struct {
	weight  int64
	members []member
	next    int   // of members
	rounds  int64 // that all members have had
}

type member struct{ at, rank int } // place in slots, and in what order ties are broken

// newSmooth begins a sequence over the slots that weigh something, in their order from
// the place from on.
func newSmooth(slots []*slot, from int) *smooth {
	s := &smooth{}
	known := map[int64]int{} // weight: place in classes
	divisor := int64(0)
	for rank := range slots {
		at := (from + rank) % len(slots)
		w := int64(slots[at].weight.Load())
		if w == 0 {
			continue
		}
		i, seen := known[w]
		if !seen {
			i = len(s.classes)
			known[w] = i
			s.classes = append(s.classes, class{weight: w})
			divisor = gcd(divisor, w)
		}
		s.classes[i].members = append(s.classes[i].members, member{at, rank})
	}
	for i := range s.classes {
		c := &s.classes[i]
		c.weight /= divisor
		s.total += c.weight * int64(len(c.members))
	}
	return s
}

// stretch returns the next n turns.
func (s *smooth) stretch(n int) []uint32 {
	turns := make([]uint32, n)
	for i := range turns {
		turns[i] = uint32(s.step())
	}
	return turns
}

func (s *smooth) step() int {
	s.turn++
	var best *class
	var most int64
	for i := range s.classes {
		c := &s.classes[i]
		has := s.turn*c.weight - s.total*c.rounds
		if best == nil || has > most || has == most && c.members[c.next].rank < best.members[best.next].rank {
			best, most = c, has
		}
	}
	at := best.members[best.next].at
	if best.next++; best.next == len(best.members) {
		best.next = 0
		best.rounds++
	}
	if s.turn == s.total { // as at the beginning
		s.turn = 0
		for i := range s.classes {
			s.classes[i].rounds = 0
		}
	}
	return at
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
