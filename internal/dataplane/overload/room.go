package overload

import (
	"slices"
	"sync"
	"time"
)

// A Room is where refused exchanges wait for their answer. However many there are, one
// timer sees to them: those whose time has come within the same tick go on together, and
// their answers go out together. The zero Room is empty.
type Room struct {
	// Early is asked in each tick how many of those who wait are to go on before their time,
	// the first ones first: the node may be able to do more than comes. Too many may have been
	// refused when a crowd came at once, and clients that wait ask for nothing. nil: nobody.
	Early func(now time.Time, waiting int) int

	mu    sync.Mutex // guards what follows, and the places
	slots [roomTicks][]*Place
	began time.Time // when tick 0 was
	tick  int64     // the last one that was seen to
	timed bool      // release will be called
	count int
}

// A Place is that of one who waits.
type Place struct {
	room *Room
	do   func() // nil: called, or left
}

const (
	roomTick  = 20 * time.Millisecond
	roomTicks = int64(mostHold*5/4/roomTick) + 2
)

// Wait has do called after about the given time, which Hold returned, by a goroutine of
// the room's. do must not block.
func (r *Room) Wait(d time.Duration, do func()) *Place {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.timed { // though all have left, it may be
		r.began, r.tick, r.timed = time.Now(), 0, true
		time.AfterFunc(roomTick, r.release)
	}
	at := int64((time.Since(r.began) + d) / roomTick)
	at = min(max(at, r.tick+1), r.tick+roomTicks-1)
	p := &Place{r, do}
	slot := &r.slots[at%roomTicks]
	*slot = append(*slot, p)
	r.count++
	return p
}

// Leave ends the wait of one who is gone, and reports whether it waited still: then it is not
// called any more.
func (p *Place) Leave() bool {
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	if p.do == nil {
		return false
	}
	p.do = nil
	p.room.count--
	return true
}

// release calls those whose time has come, and comes again as long as there are others.
func (r *Room) release() {
	r.mu.Lock()
	now := int64(time.Since(r.began) / roomTick)
	var due []func()
	for ; r.tick < now; r.tick++ {
		slot := &r.slots[(r.tick+1)%roomTicks]
		due = take(due, *slot)
		clear(*slot)
		*slot = (*slot)[:0]
	}
	if waiting := r.count - len(due); r.Early != nil && waiting > 0 {
		due = r.first(due, r.Early(time.Now(), waiting))
	}
	r.count -= len(due)
	if r.timed = r.count > 0; r.timed {
		time.AfterFunc(roomTick, r.release)
	} else {
		r.empty()
	}
	r.mu.Unlock()
	for _, do := range due {
		do()
	}
}

// empty forgets the places of those who have left.
func (r *Room) empty() {
	for i, slot := range r.slots {
		clear(slot)
		r.slots[i] = slot[:0]
	}
}

// take adds what is to be called for these places.
func take(due []func(), places []*Place) []func() {
	for _, p := range places {
		if p.do != nil {
			due = append(due, p.do)
			p.do = nil
		}
	}
	return due
}

// first takes out the n whose time comes first.
func (r *Room) first(due []func(), n int) []func() {
	for at := r.tick + 1; n > 0 && at < r.tick+roomTicks; at++ {
		slot := &r.slots[at%roomTicks]
		k := 0
		for ; k < len(*slot) && n > 0; k++ {
			if (*slot)[k].do != nil {
				n--
			}
		}
		due = take(due, (*slot)[:k])
		*slot = slices.Delete(*slot, 0, k)
	}
	return due
}
