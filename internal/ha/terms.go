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
)

// termBlock is how many terms are reserved on disk at a time. A term is used up by each
// change of a holder and each vain candidacy, so a block lasts for long.
const termBlock = 1000

// Terms keeps on disk a number that no term of this node has passed, so that a node
// which restarts never uses a term twice. Blocks are reserved ahead and beside the loop:
// no failover waits for a disk.
//
// The zero value keeps nothing; it is for a node without a state directory, whose terms
// start above those it hears of.
type Terms struct {
	path string

	mu       sync.Mutex
	highest  uint64 // used in this life, in any election
	reserved uint64 // on disk
	tried    uint64 // the term at which a reservation was last begun
	busy     bool   // it is under way
}

// OpenTerms reads the reservation in the state directory dir, which must exist, and
// reserves the next block. It returns the term above which this life starts.
func OpenTerms(dir string) (t *Terms, start uint64, err error) {
	t = &Terms{path: filepath.Join(dir, "term")}
	b, err := os.ReadFile(t.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, 0, fmt.Errorf("read the reserved term: %w", err)
	default:
		if start, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return nil, 0, fmt.Errorf("read the reserved term: %s holds %.40q, not a number; remove it if every other node is up", t.path, b)
		}
	}
	if err := t.write(start + termBlock); err != nil {
		return nil, 0, fmt.Errorf("reserve terms: %w", err)
	}
	t.reserved = start + termBlock
	return t, start, nil
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
		err := t.write(term + termBlock)
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
