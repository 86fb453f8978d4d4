package engine

import "sync"

// A job is something for a goroutine that need not be made for it.
type job interface{ work() }

// workers are goroutines that wait for a job, with stacks that have grown to what jobs need.
// Each ends when there are enough that wait.
type workers struct {
	mu   sync.Mutex
	idle []chan job // the youngest is last
}

// mostIdle is how many goroutines wait for a job.
const mostIdle = 256

// run has j done, at once.
func (w *workers) run(j job) {
	w.mu.Lock()
	n := len(w.idle)
	if n == 0 {
		w.mu.Unlock()
		go w.live(j) // ends when it is one too many, or with stop
		return
	}
	c := w.idle[n-1]
	w.idle[n-1] = nil
	w.idle = w.idle[:n-1]
	w.mu.Unlock()
	c <- j
}

func (w *workers) live(j job) {
	c := make(chan job, 1)
	for j != nil {
		j.work()
		w.mu.Lock()
		if len(w.idle) >= mostIdle {
			w.mu.Unlock()
			return
		}
		w.idle = append(w.idle, c)
		w.mu.Unlock()
		j = <-c
	}
}

// stop ends those that wait.
func (w *workers) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.idle {
		c <- nil
	}
	w.idle = nil
}
