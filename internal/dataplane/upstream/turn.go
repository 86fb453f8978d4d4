package upstream

import (
	"container/heap"
	"time"
)

// A turn is one server's place among those that are checked, or looked up. While it is
// under way its goroutine owns failing.
type turn struct {
	server  *Server
	pool    *Pool // of the newest configuration
	due     time.Time
	place   int  // in the heap; -1 while it is under way
	first   bool // there was no result yet
	wanted  bool // by the configuration that is being taken into use
	over    bool // no longer wanted, though under way
	failing bool // the last look-up failed

	asked *question // what a check that is under way, or was the last, asks
}

// A lane is the turns of one kind, the next one first. At most limit of them are under
// way at once. Its owner has the lock.
type lane struct {
	limit int
	busy  int
	all   map[*Server]*turn
	heap  dueHeap
}

func newLane(limit int) lane { return lane{limit: limit, all: map[*Server]*turn{}} }

func (l *lane) full() bool { return l.busy >= l.limit }

// keep marks the turn of s as wanted, by p from now on, and returns it, or nil if there
// is none.
func (l *lane) keep(s *Server, p *Pool) *turn {
	t := l.all[s]
	if t != nil {
		t.pool, t.wanted = p, true
	}
	return t
}

// add takes in a new turn.
func (l *lane) add(t *turn) {
	t.wanted = true
	l.all[t.server] = t
	l.put(t, t.due)
}

// put makes t wait until due.
func (l *lane) put(t *turn, due time.Time) {
	t.due = due
	heap.Push(&l.heap, t)
}

// move changes when t is due. One that is under way comes round by itself.
func (l *lane) move(t *turn, due time.Time) {
	if t.place >= 0 {
		t.due = due
		heap.Fix(&l.heap, t.place)
	}
}

// sweep drops the turns that are not marked as wanted, and returns how many of them had
// no result yet.
func (l *lane) sweep() (first int) {
	for s, t := range l.all {
		if t.wanted {
			t.wanted = false
			continue
		}
		t.over = true
		delete(l.all, s)
		if t.place >= 0 {
			heap.Remove(&l.heap, t.place)
		}
		if t.first {
			first++
		}
	}
	return first
}

// next returns a turn that is due and for which there is room, now under way; or nil.
func (l *lane) next(now time.Time) *turn {
	if l.full() || len(l.heap) == 0 || l.heap[0].due.After(now) {
		return nil
	}
	l.busy++
	return heap.Pop(&l.heap).(*turn)
}

// wait returns how long no turn will be due. When there is no room, whoever ends its
// turn says so.
func (l *lane) wait(now time.Time) time.Duration {
	if l.full() || len(l.heap) == 0 {
		return time.Hour
	}
	return max(l.heap[0].due.Sub(now), 0)
}

// dueHeap implements heap.Interface.
type dueHeap []*turn

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].place, h[j].place = i, j }

func (h *dueHeap) Push(x any) {
	t := x.(*turn)
	t.place = len(*h)
	*h = append(*h, t)
}

func (h *dueHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.place = -1
	return t
}
