package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Store has the certificates in use. It outlives reloads of the configuration, and takes
// files that have changed into use by itself.
type Store struct {
	disk Disk
	log  *slog.Logger
	set  atomic.Pointer[Set]

	mu      sync.Mutex // guards what follows, and that one at a time replaces set
	files   []*Certificate
	managed []*Certificate // that come from no file; behind those that do
	faults  map[Pair]fault
	next    int // at which of files the next look begins
}

// A fault is why a pair that has changed is not in use, and of which state of the files
// that is true.
type fault struct {
	text   string
	stamps [2]stamp
}

// NewStore returns a Store without a certificate.
func NewStore(disk Disk, log *slog.Logger) *Store {
	s := &Store{disk: disk, log: log, faults: map[Pair]fault{}}
	s.set.Store(NewSet(nil))
	return s
}

// LoadAll reads every pair. Nothing of it is in use before Use.
func (d Disk) LoadAll(pairs []Pair) (*Set, error) {
	all := make([]*Certificate, 0, len(pairs))
	for _, p := range pairs {
		c, err := d.Load(p)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return NewSet(all), nil
}

// Use serves the certificates of set, in place of those of files, from now on.
func (s *Store) Use(set *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = set.all
	s.set.Store(NewSet(slices.Concat(s.files, s.managed)))
	clear(s.faults)
}

// Manage serves certificates that come from no file, in place of those before, beside those
// of files.
func (s *Store) Manage(all []*Certificate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.managed = all
	s.set.Store(NewSet(slices.Concat(s.files, s.managed)))
}

// Set returns what is in use.
func (s *Store) Set() *Set { return s.set.Load() }

// Get chooses the certificate for a handshake; it is tls.Config's GetCertificate.
func (s *Store) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.set.Load().choose(hello)
}

// Fault returns why what has changed of c's files is not in use; "" if nothing has.
func (s *Store) Fault(c *Certificate) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults[c.Pair].text
}

const (
	// lookEvery is how soon a changed file is in use.
	lookEvery = time.Second
	// mostLooked is how many pairs are looked at then. Ten thousand take a tenth of a second, which
	// a node that has nothing else to do would spend all the time.
	mostLooked = 1000
)

// Watch looks after the files until ctx ends.
func (s *Store) Watch(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.Look()
		case <-ctx.Done():
			return
		}
	}
}

// Look reads the files that have changed since they were read; of more than mostLooked pairs as
// many, and with the next call those that follow. A pair that is not good, or of which only one
// half is new, changes nothing: the one in use stays.
func (s *Store) Look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.files)
	changed := false
	for range min(len(all), mostLooked) {
		i := s.next % len(all)
		s.next = i + 1
		c := all[i]
		now := [2]stamp{s.stamp(c.stamps[0].name), s.stamp(c.stamps[1].name)}
		if same(now, c.stamps) {
			delete(s.faults, c.Pair)
			continue
		}
		if f, known := s.faults[c.Pair]; known && same(now, f.stamps) {
			continue
		}
		next, err := s.disk.Load(c.Pair)
		if err != nil {
			s.faults[c.Pair] = fault{err.Error(), now}
			s.log.Warn("a changed certificate is not taken into use, the one before serves on", "subject", c.Subject, "error", err)
			continue
		}
		delete(s.faults, c.Pair)
		all[i], changed = next, true
		if !bytes.Equal(next.tls.Certificate[0], c.tls.Certificate[0]) {
			s.log.Info("certificate replaced", "subject", next.Subject, "serial", next.Serial, "until", next.NotAfter)
			for _, doubt := range next.Doubts(time.Now()) {
				s.log.Warn("certificate", "warning", doubt)
			}
		}
	}
	if changed {
		s.files = all
		s.set.Store(NewSet(slices.Concat(s.files, s.managed)))
	}
}

// A stamp is the state of a file, by which one sees that it has changed.
type stamp struct {
	name string
	info fs.FileInfo // nil: it is not there
}

func (s *Store) stamp(name string) stamp {
	info, err := s.disk.Stat(name)
	if err != nil {
		return stamp{name: name}
	}
	return stamp{name, info}
}

func same(a, b [2]stamp) bool {
	for i := range a {
		x, y := a[i].info, b[i].info
		switch {
		case x == nil || y == nil:
			if x != y {
				return false
			}
		case x.Size() != y.Size() || !x.ModTime().Equal(y.ModTime()) || !os.SameFile(x, y):
			return false
		}
	}
	return true
}
