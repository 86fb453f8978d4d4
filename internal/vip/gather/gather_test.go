package gather

import (
	"runtime"
	"slices"
	"sync"
	"testing"
)

// await lets other goroutines run until so many requests wait. A goroutine at a mutex is
// not at rest for synctest.Wait.
func await[T any](q *Queue[T], n int) {
	for q.Waiting() < n {
		runtime.Gosched()
	}
}

func TestWhatComesMeanwhileIsDoneInOneGo(t *testing.T) {
	var q Queue[int]
	var steps [][]int
	let, began := make(chan struct{}), make(chan struct{}, 1)
	do := func(all []*int) {
		var step []int
		for _, x := range all {
			step = append(step, *x)
			*x = -*x
		}
		steps = append(steps, step)
		if len(steps) == 1 {
			began <- struct{}{}
			<-let
		}
	}
	var callers sync.WaitGroup
	ask := func(i int) {
		x := i
		if q.Do(&x, do); x != -i {
			t.Errorf("Do(%d) left %d, want %d", i, x, -i)
		}
	}
	callers.Go(func() { ask(1) })
	<-began
	for i := 2; i <= 50; i++ {
		callers.Go(func() { ask(i) })
		await(&q, i-1)
	}
	close(let)
	callers.Wait()
	var rest []int
	for i := 2; i <= 50; i++ {
		rest = append(rest, i)
	}
	if len(steps) != 2 || !slices.Equal(steps[0], []int{1}) || !slices.Equal(steps[1], rest) {
		t.Errorf("steps %v, want 1 alone and then 2 to 50 in order", steps)
	}
	if n := q.Waiting(); n != 0 {
		t.Errorf("%d wait at the end", n)
	}
}

func TestEachRequestIsDoneOnce(t *testing.T) {
	var q Queue[int]
	total := 0 // under the queue's own lock
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 1000 {
				x := 0
				q.Do(&x, func(all []*int) {
					for _, x := range all {
						total++
						*x++
					}
				})
				if x != 1 {
					t.Errorf("a request was done %d times", x)
				}
			}
		})
	}
	callers.Wait()
	if total != 8000 {
		t.Errorf("%d requests were done, want 8000", total)
	}
}
