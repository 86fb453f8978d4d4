package engine

// A relief has another thread wait in Go's poller while a loop that was woken from there goes
// on waiting by itself. The thread that waits in the poller runs whatever becomes ready, and the
// scheduler counts on it to come back soon; one that runs a loop may not, and all goroutines
// would hear of the network only when the runtime's monitor looks, every ten milliseconds at
// best. A goroutine that is made ready has the scheduler look for a thread to run it, and that
// one stays at the poller when it has nothing else to do.
type relief chan struct{}

func newRelief() relief {
	r := make(relief, 1)
	go func() { // ends with stop
		for range r {
		}
	}()
	return r
}

// call has somebody wait in the poller, soon. It does not block.
func (r relief) call() {
	select {
	case r <- struct{}{}:
	default: // it is being seen to
	}
}

func (r relief) stop() { close(r) }
