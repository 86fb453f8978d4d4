package election

import "time"

// item is something that will happen in a world; of one instant, what was planned first.
type item struct {
	at  time.Duration
	seq int
	do  func()
}

// queue is a heap of what will happen, the first at the root. container/heap would put each
// item into an interface, and worlds are many.
type queue []item

func (q queue) before(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}

func (q *queue) push(x item) {
	*q = append(*q, x)
	h := *q
	for i := len(h) - 1; i > 0 && h.before(i, (i-1)/2); i = (i - 1) / 2 {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
	}
}

func (q *queue) pop() item {
	h := *q
	first, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = item{} // what it would do is garbage
	h = h[:last]
	*q = h
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(h); c++ {
			if h.before(c, least) {
				least = c
			}
		}
		if least == i {
			return first
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
}
