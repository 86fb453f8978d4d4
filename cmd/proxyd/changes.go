package main

import (
	"context"
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/history"
)

// changes are what the election's loop told of VIPs that changed hands, for what follows
// and need not be done before the loop goes on: there may be fifty at once, and the next
// address is waited for.
type changes struct {
	wake chan struct{} // has one value when there are some

	mu   sync.Mutex
	list []ha.Change
}

func newChanges() *changes { return &changes{wake: make(chan struct{}, 1)} }

// add takes in one more. It does not wait.
func (s *changes) add(c ha.Change) {
	s.mu.Lock()
	s.list = append(s.list, c)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // it is told already
	}
}

func (s *changes) take() []ha.Change {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.list
	s.list = nil
	return all
}

// followChanges tells the other nodes of each change, and finds out when this node answers
// for what it took, until ctx ends.
func (k *cluster) followChanges(ctx context.Context, n *node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changes.wake:
		}
		all := k.changes.take()
		if err := k.shared.changed(all...); err != nil {
			k.log.Warn("note a change of holder", "error", err)
		}
		var here []ha.Change
		for _, c := range all {
			if c.To == k.now().config.Node.Name {
				here = append(here, c)
			}
		}
		if len(here) > 0 {
			k.answered(ctx, n, here)
		}
	}
}

// answered finds out when this node's listeners answer after it took addresses, and writes
// that down for each.
func (k *cluster) answered(ctx context.Context, n *node, taken []ha.Change) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	text := ""
	if err := n.plane.Probe(ctx); err != nil {
		text = "they do not: " + err.Error()
	}
	now := clock.Now()
	for _, c := range taken {
		n.record.note(history.Entry{Kind: history.Answered, VIP: c.VIP, Term: c.Term, Text: text, TookMS: milliseconds(now.Sub(c.At))})
	}
}
