// Package accesslog writes a line for each exchange, and for each refused request, to a
// file, standard output or a syslog. Nobody who makes a line ever waits for the output:
// what an output cannot take in time is dropped and counted.
package accesslog

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// Options are what a Log needs of the world. All zero values work.
type Options struct {
	Logger *slog.Logger // told, at most once a minute, of an output that fails; default: nothing is logged
	Stdout io.Writer    // what output = "stdout" means; default os.Stdout
}

// A Log is the access log of one process. It outlives reloads: each gives it an Outlet.
type Log struct {
	Stats

	log     *slog.Logger
	stdout  io.Writer
	current atomic.Pointer[Outlet] // nil: off

	mu   sync.Mutex     // guards Use against Close
	open sync.WaitGroup // outlets whose writer has not ended
}

// Stats are the counters of a Log.
type Stats struct {
	Written atomic.Uint64 // lines that an output took
	Dropped atomic.Uint64 // lines that did not find room, since the output was too slow
	Lost    atomic.Uint64 // lines that the output refused: no space, no directory, nobody there
	Failed  atomic.Uint64 // writes of which at least one line was lost
}

// An Entry is what the line of an exchange says besides what the exchange itself knows.
type Entry struct {
	Now      time.Time
	Status   int
	Failed   bool     // the client did not get a whole answer
	Policies []string // of the route
}

// New returns a Log that is off.
func New(o Options) *Log {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Stdout == nil {
		o.Stdout = os.Stdout
	}
	return &Log{log: o.Logger, stdout: o.Stdout}
}

// Open makes the outlet that c asks for, nil if it asks for none. It is used by Use or
// given up by Discard.
func (l *Log) Open(c config.Access, node string) (*Outlet, error) {
	if c.Off {
		return nil, nil
	}
	out, err := openOutput(c, node, l.stdout)
	if err != nil {
		return nil, err
	}
	return newOutlet(newStyle(c, node), out, &l.Stats, l.log), nil
}

// Use sends the lines from now on to o (nil: nowhere). What waits is still written where
// it would have gone.
func (l *Log) Use(o *Outlet) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o != nil {
		l.open.Go(o.write) // ends after retire
	}
	if old := l.current.Swap(o); old != nil {
		old.retire()
	}
}

// On reports whether lines go somewhere: no line is made for nobody.
func (l *Log) On() bool { return l.current.Load() != nil }

// Exchange writes the line of x, if it is to be written. It uses the room after x.Text,
// which the end of an exchange is the last to need.
func (l *Log) Exchange(x *dataplane.Exchange, e *Entry) {
	var sampled, counted bool
	for {
		o := l.current.Load()
		if o == nil {
			return
		}
		if !o.style.always(x, e) {
			if !counted { // the outlet may be replaced meanwhile; the dice are thrown once
				sampled, counted = o.share.next(), true
			}
			if !sampled {
				return
			}
		}
		from := len(x.Text)
		b := o.style.exchange(x.Text, x, e)
		x.Text = b[:from]
		if o.put(b[from:]) {
			return
		}
	}
}

// Refused writes the line of bytes that never became a request.
func (l *Log) Refused(d *dataplane.Listener, client netip.AddrPort, m *dataplane.Malformed, now time.Time) {
	for {
		o := l.current.Load()
		if o == nil || o.put(o.style.refused(nil, d, client, m, now)) {
			return
		}
	}
}

// Reopen opens a file again by its name, as one wants after it was moved away.
func (l *Log) Reopen() {
	if o := l.current.Load(); o != nil {
		o.reopen.Store(true)
		o.rouse()
	}
}

// Close writes what waits and turns the log off. It returns when that is done or ctx
// ends.
func (l *Log) Close(ctx context.Context) {
	l.Use(nil)
	done := make(chan struct{})
	go func() { // ends with the last writer
		l.open.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
