package accesslog

import (
	"bytes"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxWaiting is how many bytes may wait to be written. Lines beyond it are dropped
	// and counted: a slow disk never holds a request up.
	maxWaiting = 1 << 20

	// gather is how long lines are collected, so that a busy node makes few writes.
	gather = 5 * time.Millisecond

	// tellEvery is how often it is said that an output fails.
	tellEvery = time.Minute
)

// An Outlet is where lines go, and how they are written, from one reload to the next.
// A goroutine of its own writes them.
type Outlet struct {
	style *style
	share share
	out   output
	stats *Stats
	log   *slog.Logger

	reopen atomic.Bool

	mu      sync.Mutex // guards what follows
	lines   []byte     // that wait
	spare   []byte     // an empty buffer
	retired bool       // takes no more

	wake chan struct{} // holds one

	told time.Time // when it was last said that the output fails; zero while it does not; the writer's own
}

func newOutlet(s *style, out output, stats *Stats, log *slog.Logger) *Outlet {
	return &Outlet{style: s, share: newShare(s.sample), out: out, stats: stats, log: log, wake: make(chan struct{}, 1)}
}

// Discard gives up an outlet that was never used.
func (o *Outlet) Discard() {
	if o != nil {
		_ = o.out.close() // nothing was written
	}
}

// put hands a line to the writer, or drops it. It keeps nothing of b. It returns false
// if the outlet takes no more, so that the line belongs to another.
func (o *Outlet) put(b []byte) bool {
	o.mu.Lock()
	switch {
	case o.retired:
		o.mu.Unlock()
		return false
	case len(o.lines)+len(b) > maxWaiting:
		o.mu.Unlock()
		o.stats.Dropped.Add(1)
		return true
	}
	first := len(o.lines) == 0 // else the writer knows
	o.lines = append(o.lines, b...)
	o.mu.Unlock()
	if first {
		o.rouse()
	}
	return true
}

func (o *Outlet) rouse() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// retire makes the writer end when what waits is written.
func (o *Outlet) retire() {
	o.mu.Lock()
	o.retired = true
	o.mu.Unlock()
	o.rouse()
}

// write is the writer's goroutine. It ends after retire.
func (o *Outlet) write() {
	defer o.out.close() // whatever it says, there is nothing left to write
	for range o.wake {
		lines, last := o.take(false)
		if !last {
			time.Sleep(gather)
			lines, last = o.take(true)
		}
		if o.reopen.Swap(false) {
			if err := o.out.reopen(); err != nil {
				o.complain(err)
			}
		}
		if len(lines) > 0 {
			o.writeOut(lines)
		}
		if last {
			return
		}
	}
}

// take returns all that waits if the outlet is retired, which is last, or if now is
// given.
func (o *Outlet) take(now bool) (lines []byte, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !now && !o.retired {
		return nil, false
	}
	lines = o.lines
	o.lines, o.spare = o.spare, nil
	return lines, o.retired
}

func (o *Outlet) writeOut(lines []byte) {
	lost, err := o.out.write(lines)
	o.stats.Written.Add(uint64(bytes.Count(lines, newline) - lost))
	o.stats.Lost.Add(uint64(lost))
	switch {
	case err != nil:
		o.stats.Failed.Add(1)
		o.complain(err)
	case !o.told.IsZero():
		o.log.Info("access log is written again", "lost", o.stats.Lost.Load())
		o.told = time.Time{}
	}
	o.mu.Lock()
	o.spare = lines[:0]
	o.mu.Unlock()
}

// complain says that the output fails, but not at every write.
func (o *Outlet) complain(err error) {
	if now := time.Now(); now.Sub(o.told) >= tellEvery {
		o.told = now
		o.log.Warn("access log cannot be written, lines are lost", "err", err)
	}
}

var newline = []byte{'\n'}
