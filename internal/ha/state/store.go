// Package state is what the nodes of a cluster agree on: small entries of which the
// last written wins. Stores that have seen the same entries, in any order and any
// number of times, hold the same. Nothing here reads a clock or a socket.
package state

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Bounds of one entry. State is for what every node must have at once, not for files.
const (
	MaxValue = 1 << 20 // bytes of a value
	MaxName  = 255     // bytes of a kind, a key or a node
	// MaxSize is how many bytes of entries a store has when nothing more may be written to
	// it; from others it takes in twice as much. All of it goes over the wire when two
	// nodes meet.
	MaxSize = 8 << 20
)

// ErrTooLarge is wrapped by what refuses an entry beyond the bounds.
var ErrTooLarge = errors.New("state entry too large")

// ErrFull is wrapped by what refuses an entry for which there is no room.
var ErrFull = errors.New("the shared state is full")

// Stamp orders all writes: by term, so that a holder that was replaced loses, then by
// sequence, then by node.
type Stamp struct {
	Term, Seq uint64
	Node      string
}

// Compare returns -1, 0 or +1 as s is before, the same as or after t.
func (s Stamp) Compare(t Stamp) int {
	return cmp.Or(cmp.Compare(s.Term, t.Term), cmp.Compare(s.Seq, t.Seq), cmp.Compare(s.Node, t.Node))
}

// Entry is one thing agreed on. An Entry in a Store is never changed, and its Value
// must not be.
type Entry struct {
	Kind, Key string
	Value     []byte
	Deleted   bool // a tombstone: the entry is gone; Value is empty
	Stamp     Stamp
	Expires   time.Time // wall time, to the second; zero is never
}

// expired reports whether e is over at now.
func (e Entry) expired(now time.Time) bool { return !e.Expires.IsZero() && !now.Before(e.Expires) }

// compare orders two entries of the same name. Stamps decide; equal stamps with
// different contents (a writer that lost its memory) are ordered by content, so that
// all nodes choose the same.
func (e Entry) compare(f Entry) int {
	return cmp.Or(
		e.Stamp.Compare(f.Stamp),
		compareBool(e.Deleted, f.Deleted),
		e.Expires.Compare(f.Expires),
		bytes.Compare(e.Value, f.Value),
	)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// size is how many bytes e is on the wire; 0 of the zero value.
func (e Entry) size() int {
	if e.Kind == "" {
		return 0
	}
	return minEntry + len(e.Stamp.Node) + len(e.Kind) + len(e.Key) + len(e.Value)
}

func (e Entry) check() error {
	switch {
	case e.Kind == "" || e.Key == "" || e.Stamp.Node == "":
		return fmt.Errorf("state entry %q/%q: kind, key and node must not be empty", e.Kind, e.Key)
	case len(e.Kind) > MaxName || len(e.Key) > MaxName || len(e.Stamp.Node) > MaxName:
		return fmt.Errorf("%w: a name of more than %d bytes", ErrTooLarge, MaxName)
	case len(e.Value) > MaxValue:
		return fmt.Errorf("%w: %s/%s has %d bytes, at most %d are allowed", ErrTooLarge, e.Kind, e.Key, len(e.Value), MaxValue)
	case e.Deleted && len(e.Value) > 0:
		return fmt.Errorf("state entry %s/%s: a tombstone with a value", e.Kind, e.Key)
	case e.Deleted && e.Expires.IsZero():
		return fmt.Errorf("state entry %s/%s: a tombstone that never expires", e.Kind, e.Key)
	case !e.Expires.IsZero() && (e.Expires.Unix() <= 0 || e.Expires.Nanosecond() != 0):
		return fmt.Errorf("state entry %s/%s: expiry %v is not a whole second after 1970", e.Kind, e.Key, e.Expires)
	}
	return nil
}

type name struct{ kind, key string }

// Store is one node's copy. The zero value is not usable; make one with New. It is not
// safe for concurrent use: its owner is ha.Node's one goroutine.
type Store struct {
	node    string
	seq     uint64 // highest seen in any stamp
	size    int    // bytes of all entries
	entries map[name]Entry
}

// New returns an empty store that writes as node.
func New(node string) *Store { return &Store{node: node, entries: map[name]Entry{}} }

// Put writes an entry that expires at the instant (zero is never; it is rounded up to
// a second) and returns it for the other nodes. It keeps no reference to value. The
// write loses, and is returned all the same, if the entry was written under a higher
// term; changed says whether it won.
func (s *Store) Put(term uint64, kind, key string, value []byte, expires time.Time) (e Entry, changed bool, err error) {
	return s.write(Entry{Kind: kind, Key: key, Value: bytes.Clone(value), Stamp: Stamp{Term: term}, Expires: second(expires)})
}

// Delete writes a tombstone, kept until the instant: longer than any node may be away
// that still has the entry.
func (s *Store) Delete(term uint64, kind, key string, until time.Time) (e Entry, changed bool, err error) {
	return s.write(Entry{Kind: kind, Key: key, Deleted: true, Stamp: Stamp{Term: term}, Expires: second(until)})
}

func (s *Store) write(e Entry) (Entry, bool, error) {
	e.Stamp.Seq, e.Stamp.Node = s.seq+1, s.node
	if err := e.check(); err != nil {
		return Entry{}, false, err
	}
	if old := s.entries[name{e.Kind, e.Key}]; !e.Deleted && s.size-old.size()+e.size() > MaxSize {
		return Entry{}, false, fmt.Errorf("%w: %s/%s would be more than %d bytes with what is in it", ErrFull, e.Kind, e.Key, MaxSize)
	}
	return e, len(s.Merge([]Entry{e})) > 0, nil
}

// Merge takes in entries of another node and returns those that were news. Entries
// beyond the bounds are left out. Expired ones are taken in too, for an order in which
// they came earlier must not give another result; Expire removes them. What there is no
// room for is left out.
func (s *Store) Merge(remote []Entry) (changed []Entry) {
	for _, e := range remote {
		if e.check() != nil {
			continue
		}
		s.seq = max(s.seq, e.Stamp.Seq)
		n := name{e.Kind, e.Key}
		old, known := s.entries[n]
		if known && e.compare(old) <= 0 {
			continue
		}
		size := s.size - old.size() + e.size()
		if size > 2*MaxSize || !known && len(s.entries) >= MaxEntries {
			continue // nobody who keeps to the rules wrote so much
		}
		s.entries[n], s.size = e, size
		changed = append(changed, e)
	}
	return changed
}

// Get returns the entry if there is one that is neither deleted nor expired.
func (s *Store) Get(kind, key string, now time.Time) (Entry, bool) {
	e, ok := s.entries[name{kind, key}]
	if !ok || e.Deleted || e.expired(now) {
		return Entry{}, false
	}
	return e, true
}

// Latest returns what was written last, be it a tombstone or over.
func (s *Store) Latest(kind, key string) (Entry, bool) {
	e, ok := s.entries[name{kind, key}]
	return e, ok
}

// Kind returns the live entries of a kind by key.
func (s *Store) Kind(kind string, now time.Time) []Entry {
	return slices.DeleteFunc(s.All(), func(e Entry) bool {
		return e.Kind != kind || e.Deleted || e.expired(now)
	})
}

// All returns every entry, tombstones included, by kind and key: one side of a
// push-pull.
func (s *Store) All() []Entry {
	all := make([]Entry, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// Since returns the entries whose stamp has a sequence above seq, by kind and key.
func (s *Store) Since(seq uint64) []Entry {
	return slices.DeleteFunc(s.All(), func(e Entry) bool { return e.Stamp.Seq <= seq })
}

// Seq returns the highest sequence seen, for Since.
func (s *Store) Seq() uint64 { return s.seq }

// Expire forgets what is over at now, and returns what was live until then, by kind
// and key. Nodes whose clocks differ forget at different instants; an entry that comes
// back by a merge is expired and is forgotten again.
func (s *Store) Expire(now time.Time) (over []Entry) {
	for _, e := range s.All() {
		if !e.expired(now) {
			continue
		}
		delete(s.entries, name{e.Kind, e.Key})
		s.size -= e.size()
		if !e.Deleted {
			over = append(over, e)
		}
	}
	return over
}

// Digest is the same on two nodes if and only if they hold the same entries.
func (s *Store) Digest() [sha256.Size]byte {
	h := sha256.New()
	var b []byte
	for _, e := range s.All() {
		b = appendEntry(b[:0], e)
		h.Write(b)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// second rounds t up to a whole second, in UTC.
func second(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	u := t.UTC().Truncate(time.Second)
	if u.Before(t) {
		u = u.Add(time.Second)
	}
	return u
}
