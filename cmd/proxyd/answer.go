package main

import (
	"context"
	"slices"
	"strings"

	"proxyd/internal/control"
	"proxyd/internal/history"
)

// History implements control.Operator.
func (n *node) History(_ context.Context, q control.HistoryQuery) (*control.History, error) {
	all := n.record.ring.All()
	s := n.record.ring.Stats()
	h := &control.History{Entries: []history.Entry{}, Tellers: tellers(all), Errors: s.Errors, Lost: s.Lost, Fault: s.Fault}
	for _, e := range all {
		if !e.Time.Before(q.Since) && (q.VIP == "" || e.VIP == "" || e.VIP == q.VIP) {
			h.Entries = append(h.Entries, e)
		}
	}
	if q.N > 0 && len(h.Entries) > q.N {
		h.Entries = h.Entries[len(h.Entries)-q.N:]
	}
	return h, nil
}

// tellers says of whom there are entries, by name.
func tellers(all []history.Entry) []control.Teller {
	out := []control.Teller{}
	for _, e := range all {
		i := slices.IndexFunc(out, func(t control.Teller) bool { return t.Node == e.Node })
		if i < 0 {
			i, out = len(out), append(out, control.Teller{Node: e.Node})
		}
		out[i].Entries++
		if e.Time.After(out[i].Latest) {
			out[i].Latest = e.Time
		}
	}
	slices.SortFunc(out, func(a, b control.Teller) int { return strings.Compare(a.Node, b.Node) })
	return out
}

// Why implements control.Operator.
func (n *node) Why(_ context.Context, q control.WhyQuery) (*history.Story, error) {
	s, ok := history.Why(n.record.ring.All(), q.VIP, q.Term)
	if !ok {
		return nil, control.Refuse("no such change is in the history of any node that is heard; `hactl history` shows what there is")
	}
	return &s, nil
}

// Watch implements control.Operator.
func (n *node) Watch(ctx context.Context, tell func(history.Entry) error) error {
	return n.record.ring.Follow(ctx, tell)
}
