package upstream

import "sync/atomic"

// random draws two servers by their weights and chooses the one that has fewer exchanges
// for its weight; the first, if they have equally few. So the weights' shares are kept
// as long as servers are equally quick, and a slow one is spared without a look at all
// of them.
type random struct {
	slots []*slot
	draw  func() uint64
	urn   atomic.Pointer[urn]
}

func (r *random) arrange() { r.urn.Store(newUrn(r.slots)) }

func (r *random) choose(a Ask) *slot {
	u := r.urn.Load()
	if len(u.bins) == 0 {
		return nil
	}
	const tries = 4
	for range tries {
		s, other := r.slots[u.at(r.draw())], r.slots[u.at(r.draw())]
		if s.busier(other) {
			s, other = other, s
		}
		if s.take(a) {
			return s
		}
		if s != other && other.take(a) {
			return other
		}
	}
	return takeFrom(r.slots, r.draw(), a)
}

// takeFrom takes the first place that there is on one of slots, looking at all of them
// from a random one on.
func takeFrom(slots []*slot, draw uint64, a Ask) *slot {
	from := int(draw % uint64(len(slots)))
	for i := range slots {
		if s := slots[(from+i)%len(slots)]; s.take(a) {
			return s
		}
	}
	return nil
}

// An urn holds slots, each as often as it weighs, and is drawn from in two steps
// whatever is in it (Walker's alias method, filled as Vose does it): a bin holds one
// slot up to a level and another one above.
type urn struct{ bins []bin }

type bin struct {
	level        uint32 // of 1<<32; the rest is the other's
	slot, second uint32
}

func newUrn(slots []*slot) *urn {
	var total, n int64
	for _, s := range slots {
		if w := int64(s.weight.Load()); w > 0 {
			total += w
			n++
		}
	}
	u := &urn{bins: make([]bin, 0, n)}
	// A slot's weight times n is what it has to give to bins that hold total each.
	type part struct {
		bin  int
		left int64
	}
	var small, large []part
	for i, s := range slots {
		w := int64(s.weight.Load()) * n
		if w == 0 {
			continue
		}
		p := part{len(u.bins), w}
		u.bins = append(u.bins, bin{slot: uint32(i), second: uint32(i)})
		if w < total {
			small = append(small, p)
		} else {
			large = append(large, p)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], &large[len(large)-1]
		small = small[:len(small)-1]
		u.bins[s.bin].level = uint32(float64(s.left) / float64(total) * (1 << 32))
		u.bins[s.bin].second = u.bins[l.bin].slot
		if l.left -= total - s.left; l.left < total {
			small = append(small, *l)
			large = large[:len(large)-1]
		}
	}
	return u
}

// at returns the slot that a draw of 64 random bits brings.
func (u *urn) at(draw uint64) uint32 {
	b := &u.bins[(draw>>32)*uint64(len(u.bins))>>32]
	if uint32(draw) < b.level {
		return b.slot
	}
	return b.second
}
