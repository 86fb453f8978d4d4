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
	// Early reports whether the node could do with more than comes: then some go on before
	// their time, the first ones first. Too many may have been refused when a
	// crowd came at once, and clients that wait ask for nothing. nil: never.
	Early func() bool

	mu    sync.Mutex // guards what follows
	slots [roomTicks][]func()
	began time.Time // when tick 0 was
	tick  int64     // the last one that was seen to
	count int
}

const (
	roomTick  = 20 * time.Millisecond
	roomTicks = int64(mostHold*5/4/roomTick) + 2

	// earlyPart is of how many one goes on early, in each tick.
	earlyPart = 128
)

// Wait has do called after about the given time, which Hold returned, by a goroutine of
// the room's. do must not block.
func (r *Room) Wait(d time.Duration, do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count == 0 {
		r.began, r.tick = time.Now(), 0
		time.AfterFunc(roomTick, r.release)
	}
	at := int64((time.Since(r.began) + d) / roomTick)
	at = min(max(at, r.tick+1), r.tick+roomTicks-1)
	slot := &r.slots[at%roomTicks]
	*slot = append(*slot, do)
	r.count++
}

// release calls those whose time has come, and comes again as long as there are others.
func (r *Room) release() {
	r.mu.Lock()
	now := int64(time.Since(r.began) / roomTick)
	var due []func()
	for ; r.tick < now; r.tick++ {
		slot := &r.slots[(r.tick+1)%roomTicks]
		due = append(due, *slot...)
		clear(*slot)
		*slot = (*slot)[:0]
	}
	if r.Early != nil && r.Early() {
		due = append(due, r.first((r.count-len(due))/earlyPart)...)
	}
	r.count -= len(due)
	if r.count > 0 {
		time.AfterFunc(roomTick, r.release)
	}
	r.mu.Unlock()
	for _, do := range due {
		do()
	}
}

// first takes out the n whose time comes first.
func (r *Room) first(n int) (all []func()) {
	for at := r.tick + 1; len(all) < n && at < r.tick+roomTicks; at++ {
		slot := &r.slots[at%roomTicks]
		k := min(n-len(all), len(*slot))
		all = append(all, (*slot)[:k]...)
		*slot = slices.Delete(*slot, 0, k)
	}
	return all
}
