// Package gather does in one go what several goroutines ask for at the same time: a node
// that holds many addresses takes, renews and yields all of them at the same moment, and a
// step of the kernel's costs more than what is in it.
package gather

import "sync"

// A Queue gathers requests while the ones before them are carried out. The zero value is
// ready. It needs no bound: whoever asks waits.
type Queue[T any] struct {
	mu   sync.Mutex
	next *batch[T] // that will be carried out next; nil: nobody waits

	busy sync.Mutex // held while requests are carried out
}

// batch is what waits together. The mutex busy of its Queue guards done.
type batch[T any] struct {
	all  []*T
	done bool
}

// Do returns when x has been given to do, together with all that others ask for meanwhile.
// Each request is given once, in the order in which they came, and do, which leaves in
// them what came of them, is called by one goroutine at a time. Which of the callers' do
// it is cannot be told, so all of them must do the same.
func (q *Queue[T]) Do(x *T, do func(all []*T)) {
	q.mu.Lock()
	if q.next == nil {
		q.next = new(batch[T])
	}
	mine := q.next
	mine.all = append(mine.all, x)
	q.mu.Unlock()

	q.busy.Lock()
	defer q.busy.Unlock()
	if mine.done {
		return
	}
	q.mu.Lock()
	q.next = nil
	q.mu.Unlock()
	mine.done = true
	do(mine.all)
}

// Waiting returns how many requests wait for those that are being carried out.
func (q *Queue[T]) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		return 0
	}
	return len(q.next.all)
}
