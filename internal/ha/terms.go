package ha

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// termBlock is how many terms are reserved on disk at a time. A term is used up by each
// change of a holder and each vain candidacy, so a block lasts for long.
const termBlock = 1000

// ErrUnreserved is wrapped by what OpenTerms returns for a disk that takes nothing.
var ErrUnreserved = errors.New("no terms can be reserved on disk")

// Terms keeps on disk a number that no term of this node has passed, so that a node
// which restarts never uses a term twice. Blocks are reserved ahead and beside the loop:
// no failover waits for a disk.
//
// The zero value keeps nothing; it is for a node without a state directory, whose terms
// start above those it hears of.
type Terms struct {
	path  string
	store func(term uint64) error // write, outside tests

	mu       sync.Mutex
	highest  uint64 // used in this life, in any election
	reserved uint64 // on disk
	tried    uint64 // the term at which a reservation was last begun
	busy     bool   // it is under way
}

// OpenTerms reads the reservation in the state directory dir, which must exist, and
// reserves the next block. It returns the term above which this life starts.
//
// A full disk keeps no node from taking part: where nothing can be reserved the error wraps
// ErrUnreserved, and the terms that are returned all the same are reserved as soon as they
// can be. Such a life starts as many terms higher as seconds have passed since the last
// reservation, so that the lives of one node have other terms without a disk too.
func OpenTerms(dir string) (t *Terms, start uint64, err error) {
	t = &Terms{path: filepath.Join(dir, "term")}
	t.store = t.write
	start, err = t.open()
	return t, start, err
}

// open reserves the first block of a life and returns the term above which that starts.
func (t *Terms) open() (start uint64, err error) {
	b, err := os.ReadFile(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, fmt.Errorf("read the reserved term: %w", err)
	default:
		if start, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return 0, fmt.Errorf("read the reserved term: %s holds %.40q, not a number; remove it if every other node is up", t.path, b)
		}
	}
	if err := t.store(start + termBlock); err != nil {
		if info, bad := os.Stat(t.path); bad == nil {
			start += uint64(max(time.Since(info.ModTime())/time.Second, 0))
		}
		return start, fmt.Errorf("%w: %w", ErrUnreserved, err)
	}
	t.reserved = start + termBlock
	return start, nil
}

// Used says that term is in use. When less than half a block is left above it, the next
// one is reserved in the background; done is then called with the outcome.
func (t *Terms) Used(term uint64, done func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.highest = max(t.highest, term)
	if t.path == "" || t.busy || term <= t.tried || term+termBlock/2 < t.reserved {
		return
	}
	t.busy, t.tried = true, term
	go func() { // ends when the file is written
		err := t.store(term + termBlock)
		t.mu.Lock()
		t.busy = false
		if err == nil {
			t.reserved = term + termBlock
		}
		t.mu.Unlock()
		done(err)
	}()
}

// Highest returns the highest term used in this life, in any election. An election that was
// forgotten and is taken up again starts above it: what was promised in it was not above.
func (t *Terms) Highest() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.highest
}

// write replaces the file: at every instant it holds the old number or the new one.
func (t *Terms) write(term uint64) error {
	dir := filepath.Dir(t.path)
	f, err := os.CreateTemp(dir, "term-*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, term)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
