package main

import (
	"encoding/json"
	"sync"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha"
	"proxyd/internal/ha/state"
)

// changeKind is the kind of the entries that tell how each VIP came to its holder.
const changeKind = "change"

// A shared is what this node and the others know together. Gossip gives it to a peer when
// they meet, so that a node which was away learns what happened meanwhile. It is safe for
// concurrent use, and implements gossip.State.
type shared struct {
	// heard has one value after another node's wish about a server or a route came in.
	heard chan struct{}

	mu    sync.Mutex // guards the store
	store *state.Store
}

func newShared(node string) *shared {
	return &shared{heard: make(chan struct{}, 1), store: state.New(node)}
}

// Encode implements gossip.State.
func (s *shared) Encode() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return state.Append(nil, s.store.All())
}

// Merge implements gossip.State.
func (s *shared) Merge(b []byte) error {
	entries, err := state.Decode(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.store.Merge(entries) {
		if e.Kind == overrideKind {
			select {
			case s.heard <- struct{}{}:
			default: // it is told already
			}
		}
	}
	return nil
}

// changed writes down that a VIP changed hands, under the term of its new holder.
func (s *shared) changed(c ha.Change) error {
	text, err := json.Marshal(control.Change{Time: c.Time.UTC(), VIP: c.VIP, From: c.From, To: c.To, Reason: string(c.Reason), Text: c.Text})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, err = s.store.Put(c.Term, changeKind, c.VIP, text, time.Time{})
	return err
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
