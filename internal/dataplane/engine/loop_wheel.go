package engine

const (
	tickBits   = 23 // a tick is 8.4 ms
	wheelTicks = 1024
)

// A wheel wakes wires when they are due, within a tick. Moving a due time further away
// costs nothing: the wire stays where it is and, when its slot comes, goes on to its new
// place. So a connection that is busy touches the wheel once in a long while.
type wheel struct {
	slots [wheelTicks]*loopWire // heads of lists
	used  [wheelTicks / 64]uint64
	at    int64 // the next tick to come, or the one that pop is at
	least int64 // the tick at which a wire that is set can be woken at the earliest
	count int
}

// tickOf returns the first tick at which m has passed.
func tickOf(m moment) int64 { return (int64(m) + 1<<tickBits - 1) >> tickBits }

// set makes w due at a moment, 0 for never.
func (h *wheel) set(w *loopWire, due moment) {
	w.due = due
	if due == 0 {
		return
	}
	tick := max(tickOf(due), h.at, h.least)
	if w.inWheel {
		if w.slot <= tick {
			return
		}
		h.unlink(w)
	}
	h.link(w, tick)
}

func (h *wheel) link(w *loopWire, tick int64) {
	tick = min(tick, h.at+wheelTicks-1) // what lies beyond comes by again
	i := tick % wheelTicks
	w.slot, w.inWheel = tick, true
	w.prev, w.next = nil, h.slots[i]
	if w.next != nil {
		w.next.prev = w
	}
	h.slots[i] = w
	h.used[i/64] |= 1 << (i % 64)
	h.count++
}

// unlink takes w out, if it is in.
func (h *wheel) unlink(w *loopWire) {
	if !w.inWheel {
		return
	}
	i := w.slot % wheelTicks
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		h.slots[i] = w.next
		if w.next == nil {
			h.used[i/64] &^= 1 << (i % 64)
		}
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.inWheel = nil, nil, false
	h.count--
}

// pop returns a wire that is due at t, or nil if there is none left. What is set to be
// due at once meanwhile has its turn in the next tick, so that pop comes to an end.
func (h *wheel) pop(t moment) *loopWire {
	for last := int64(t) >> tickBits; h.at <= last; h.at++ {
		if h.count == 0 {
			h.at = last + 1
			break
		}
		h.least = h.at + 1
		for w := h.slots[h.at%wheelTicks]; w != nil; w = h.slots[h.at%wheelTicks] {
			h.unlink(w)
			switch {
			case w.due == 0:
			case w.due > t:
				h.link(w, max(tickOf(w.due), h.least))
			default:
				w.due = 0
				return w
			}
		}
	}
	return nil
}

// next returns when pop should be called next; 0 is never.
func (h *wheel) next() moment {
	if h.count == 0 {
		return 0
	}
	for tick := h.at; tick < h.at+wheelTicks; {
		i := tick % wheelTicks
		if h.used[i/64]>>(i%64) == 0 {
			tick += 64 - i%64
			continue
		}
		if h.used[i/64]>>(i%64)&1 != 0 {
			return moment(tick << tickBits)
		}
		tick++
	}
	return 0
}
