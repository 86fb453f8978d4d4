package history

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"proxyd/internal/ondisk"
)

const (
	// maxFile is how large a file grows before the next one is begun. There are two, so a
	// node keeps at least this much and at most twice as much.
	maxFile = 512 << 10
	// maxKept bounds the entries in memory.
	maxKept = 4096
	// maxWaiting bounds the entries that wait for the disk; of more the oldest are lost to
	// it, not to memory.
	maxWaiting = 1024
	// retryDisk is how long a disk that failed is left alone.
	retryDisk = 5 * time.Second
)

// A Ring keeps the latest entries of all nodes, in memory and on disk. Noting one never
// waits for the disk: Run writes. It is safe for concurrent use.
type Ring struct {
	dir  string
	node string
	life int64
	wake chan struct{} // has one value when entries wait

	mu      sync.Mutex
	seq     uint64
	entries []Entry
	known   map[id]struct{}
	waiting []Entry // for the disk
	stats   Stats
	ears    map[*ear]struct{}

	// What follows belongs to Run.
	file *os.File
	size int64
}

// Stats says how the ring is.
type Stats struct {
	Entries   int
	Written   uint64 // to the disk
	Errors    uint64 // attempts to write that failed
	Lost      uint64 // entries that the disk never got
	Corrupted uint64 // lines on the disk that were no whole entries when it was opened
	Fault     string // why the disk does not get them now; "" if it does
}

// Open reads what earlier lives left in dir and begins a life of node, named for the time
// at which it started. A disk that cannot be read costs what is on it: the error says so,
// and the Ring is usable all the same.
func Open(dir, node string, started time.Time) (*Ring, error) {
	r := &Ring{dir: dir, node: node, life: started.UnixNano(), wake: make(chan struct{}, 1),
		known: map[id]struct{}{}, ears: map[*ear]struct{}{}}
	var errs []error
	for _, name := range []string{r.path(old), r.path(current)} {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			errs = append(errs, err)
			continue
		}
		entries, whole, bad, newer := parse(text)
		if newer > 0 {
			errs = append(errs, fmt.Errorf("%s: %d entries are passed over: %w", name, newer, ondisk.ErrNewer))
		}
		r.stats.Corrupted += bad
		for _, e := range entries {
			r.keep(e)
		}
		if whole < int64(len(text)) {
			// A write that a crash cut short: what is appended must begin a line of its own.
			errs = append(errs, os.Truncate(name, whole))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("history of an earlier life: %w", err)
	}
	return r, nil
}

const (
	current = "history.log"
	old     = "history.old"
)

func (r *Ring) path(name string) string { return filepath.Join(r.dir, name) }

// Note writes down what this node saw. It fills in who tells it and, if it is zero, when.
func (r *Ring) Note(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	e.Node, e.Life, e.Seq = r.node, r.life, r.seq
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	e.shorten()
	r.take(e)
}

// Learn takes in what other nodes tell, and reports how much of it was news.
func (r *Ring) Learn(entries []Entry) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range entries {
		if _, known := r.known[e.id()]; known || e.Node == "" || e.Node == r.node && e.Life == r.life {
			continue
		}
		e.shorten()
		r.take(e)
		n++
	}
	return n
}

// take keeps an entry, tells the ears and has it written. r.mu is held.
func (r *Ring) take(e Entry) {
	r.keep(e)
	if len(r.waiting) == maxWaiting {
		r.waiting = slices.Delete(r.waiting, 0, 1)
		r.stats.Lost++
	}
	r.waiting = append(r.waiting, e)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	for a := range r.ears {
		select {
		case a.c <- e:
		default:
			a.missed = true
		}
	}
}

// keep puts an entry into memory. r.mu is held, or nobody else has r yet.
func (r *Ring) keep(e Entry) {
	if _, known := r.known[e.id()]; known {
		return
	}
	if len(r.entries) == maxKept {
		for _, gone := range r.entries[:maxKept/8] {
			delete(r.known, gone.id())
		}
		r.entries = slices.Delete(r.entries, 0, maxKept/8)
	}
	r.entries = append(r.entries, e)
	r.known[e.id()] = struct{}{}
}

// All returns what is kept, of all nodes in one order.
func (r *Ring) All() []Entry {
	r.mu.Lock()
	entries := slices.Clone(r.entries)
	r.mu.Unlock()
	return Order(entries)
}

// Own returns the latest entries of this node, at most n, the oldest first.
func (r *Ring) Own(n int) []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Entry
	for i := len(r.entries) - 1; i >= 0 && len(out) < n; i-- {
		if r.entries[i].Node == r.node {
			out = append(out, r.entries[i])
		}
	}
	slices.Reverse(out)
	return out
}

// Stats returns how the ring is.
func (r *Ring) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Entries = len(r.entries)
	return s
}

// An ear is who follows the ring.
type ear struct {
	c      chan Entry
	missed bool // it was too slow
}

// maxUnheard is how many entries wait for one who follows and does not read.
const maxUnheard = 256

// ErrSlow ends a Follow whose reader did not keep up.
var ErrSlow = errors.New("history: the reader is too slow; entries were passed over")

// Follow calls tell for each entry from now on until ctx ends, which is no error, or tell
// fails.
func (r *Ring) Follow(ctx context.Context, tell func(Entry) error) error {
	a := &ear{c: make(chan Entry, maxUnheard)}
	r.mu.Lock()
	r.ears[a] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.ears, a)
		r.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-a.c:
			if err := tell(e); err != nil {
				return err
			}
		}
		r.mu.Lock()
		missed := a.missed
		r.mu.Unlock()
		if missed && len(a.c) == 0 {
			return ErrSlow
		}
	}
}

// Run writes what is noted to the disk until ctx ends, then what still waits.
func (r *Ring) Run(ctx context.Context) {
	defer func() {
		if r.file != nil {
			r.file.Close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			r.flush()
			return
		case <-r.wake:
		}
		if r.flush() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return // it failed a moment ago
		case <-time.After(retryDisk):
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	}
}

// flush writes what waits. What could not be written waits again.
func (r *Ring) flush() error {
	r.mu.Lock()
	batch := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	err := r.write(batch)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.stats.Written += uint64(len(batch))
		r.stats.Fault = ""
		return nil
	}
	r.stats.Errors++
	r.stats.Fault = err.Error()
	r.waiting = append(batch, r.waiting...)
	if over := len(r.waiting) - maxWaiting; over > 0 {
		r.waiting = slices.Delete(r.waiting, 0, over)
		r.stats.Lost += uint64(over)
	}
	return err
}

// write appends a batch, whole or not at all as far as the disk lets it.
func (r *Ring) write(batch []Entry) error {
	if err := r.begin(); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	var text []byte
	for i := range batch {
		text = appendLine(text, &batch[i])
	}
	_, err := r.file.Write(text)
	if err == nil {
		err = r.file.Sync()
	}
	if err != nil {
		// Half a line would spoil the next one.
		err = errors.Join(err, r.file.Truncate(r.size), r.file.Close())
		r.file = nil
		return fmt.Errorf("history: %w", err)
	}
	r.size += int64(len(text))
	return nil
}

// begin opens the file to append to, the next one if the present one is full.
func (r *Ring) begin() error {
	if r.file != nil && r.size < maxFile {
		return nil
	}
	if r.file != nil {
		r.file.Close()
		r.file = nil
		if err := os.Rename(r.path(current), r.path(old)); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(r.path(current), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	i, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	r.file, r.size = f, i.Size()
	if r.size >= maxFile {
		return r.begin()
	}
	return nil
}
