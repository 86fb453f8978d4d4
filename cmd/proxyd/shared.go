package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/state"
)

// changeKind is the kind of the entries that tell how each VIP came to its holder.
const changeKind = "change"

// A shared is what this node and the others know together. What is written to it goes to
// every node at once; when two nodes meet, gossip gives each what the other has, so that
// one which was away learns what happened meanwhile. It is safe for concurrent use, and
// implements gossip.State.
type shared struct {
	// heard has one value after what operators want was changed on another node.
	heard chan struct{}
	// certified has one value after a record of ACME was changed on another node.
	certified chan struct{}
	// record, if set, gives and takes what the nodes wrote down. It is set before the first
	// peer is met.
	record *recorder

	mu    sync.Mutex // guards the store and tell
	store *state.Store
	tell  func(name string, entry func(version uint8) []byte) // to the other nodes, without waiting; nil: there are none
}

func newShared(node string) *shared {
	return &shared{heard: make(chan struct{}, 1), certified: make(chan struct{}, 1), store: state.New(node)}
}

// connect says how other nodes are told; nil: there are none any more.
func (s *shared) connect(tell func(name string, entry func(version uint8) []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell = tell
}

// put writes an entry and tells the other nodes.
func (s *shared) put(term uint64, kind, key string, value []byte, expires time.Time) error {
	_, err := s.write(term, kind, key, value, expires)
	return err
}

// write is put, and returns the entry.
func (s *shared) write(term uint64, kind, key string, value []byte, expires time.Time) (state.Entry, error) {
	s.mu.Lock()
	e, _, err := s.store.Put(term, kind, key, value, expires)
	tell := s.tell
	s.mu.Unlock()
	return e, spread(tell, e, err)
}

// remove writes that an entry is gone and tells the other nodes.
func (s *shared) remove(term uint64, kind, key string, until time.Time) error {
	_, err := s.erase(term, kind, key, until)
	return err
}

// erase is remove, and returns the tombstone.
func (s *shared) erase(term uint64, kind, key string, until time.Time) (state.Entry, error) {
	s.mu.Lock()
	e, _, err := s.store.Delete(term, kind, key, until)
	tell := s.tell
	s.mu.Unlock()
	return e, spread(tell, e, err)
}

func spread(tell func(string, func(version uint8) []byte), e state.Entry, err error) error {
	if err == nil && tell != nil {
		tell(e.Kind+"/"+e.Key, func(version uint8) []byte { return state.Append(nil, version, []state.Entry{e}) })
	}
	return err
}

// get returns an entry that is not over.
func (s *shared) get(kind, key string) (state.Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Get(kind, key, time.Now())
}

// entry returns an entry or its tombstone.
func (s *shared) entry(kind, key string) (state.Entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Latest(kind, key)
}

// kind returns the entries of a kind that are not over, by key.
func (s *shared) kind(kind string) []state.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store.Kind(kind, time.Now())
}

// maxPassed bounds the news of one message that are passed on: more come when nodes meet,
// and then each gives them to the next.
const maxPassed = 8

// Encode implements gossip.State.
func (s *shared) Encode(version uint8) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return state.Append(nil, version, s.store.All())
}

// Merge implements gossip.State.
func (s *shared) Merge(b []byte) error {
	entries, err := state.Decode(b, speaks())
	if err != nil {
		return err
	}
	s.mu.Lock()
	news := s.store.Merge(entries)
	tell := s.tell
	s.mu.Unlock()
	for _, e := range news {
		if e.Kind == historyKind && s.record != nil {
			s.record.learn(e.Key, e.Value)
		}
		if e.Kind == overrideKind || e.Kind == standingKind || e.Kind == pauseKind {
			select {
			case s.heard <- struct{}{}:
			default: // it is told already
			}
		}
		if e.Kind == acmeKind {
			select {
			case s.certified <- struct{}{}:
			default:
			}
		}
		// Two nodes that do not reach each other learn it by a third.
		if len(news) <= maxPassed {
			_ = spread(tell, e, nil)
		}
	}
	return nil
}

// expire forgets what is over, once a minute until ctx ends.
func (s *shared) expire(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			s.store.Expire(now)
			s.mu.Unlock()
		}
	}
}

// changed writes down that VIPs changed hands, each under the term of its new holder, and
// tells the other nodes: of many in one message.
func (s *shared) changed(all ...ha.Change) error {
	var errs []error
	var entries []state.Entry
	s.mu.Lock()
	for _, c := range all {
		text, err := json.Marshal(control.Change{Time: c.Time.UTC(), VIP: c.VIP, From: c.From, To: c.To, Reason: string(c.Reason), Text: c.Text, TookMS: milliseconds(c.Took)})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e, _, err := s.store.Put(c.Term, changeKind, c.VIP, text, time.Time{})
		if err != nil {
			errs = append(errs, fmt.Errorf("vip %s: %w", c.VIP, err))
			continue
		}
		entries = append(entries, e)
	}
	tell := s.tell
	s.mu.Unlock()
	if len(entries) > maxPassed && tell != nil {
		tell(changeKind, func(version uint8) []byte { return state.Append(nil, version, entries) })
		return errors.Join(errs...)
	}
	for _, e := range entries {
		_ = spread(tell, e, nil)
	}
	return errors.Join(errs...)
}

// last returns the latest change of any VIP, nil if none is known.
func (s *shared) last(now time.Time) *control.Change {
	s.mu.Lock()
	entries := s.store.Kind(changeKind, now)
	s.mu.Unlock()
	var last *control.Change
	for _, e := range entries {
		var c control.Change
		// What another version wrote and this one cannot read is left out.
		if json.Unmarshal(e.Value, &c) == nil && (last == nil || c.Time.After(last.Time)) {
			last = &c
		}
	}
	return last
}
