package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"proxyd/internal/ha"
)

// A duty is what one node of a cluster does for all: it orders certificates.
type duty struct {
	here bool
	term uint64 // under which; 0 without a lease
	why  string // it is not here
}

// dutyTime bounds the look at who has the duty.
const dutyTime = time.Second

// duty says whether this node has the duty now. With VIPs the holder of the first has it:
// there is one holder at a time, whatever dies or is cut off. In a cluster without VIPs it is
// the first in order of those that are fit and have heard each other for a while, which a
// cut may make two.
func (n *node) duty(ctx context.Context) duty {
	n.mu.Lock()
	k, c, going := n.cluster, n.config, n.succeeding
	n.mu.Unlock()
	switch {
	case going || n.life.Err() != nil:
		return duty{why: "this process ends, or another takes its place"}
	case k == nil:
		return duty{here: true}
	}
	ctx, cancel := context.WithTimeout(ctx, dutyTime)
	defer cancel()
	v, err := k.node.Status(ctx)
	if err != nil {
		return duty{why: err.Error()}
	}
	for _, vip := range v.VIPs { // by name
		conf := c.VIP[vip.Name]
		if conf == nil || conf.Follow != "" {
			continue
		}
		d := duty{here: vip.Here && vip.Lease > 0, term: vip.Term}
		switch {
		case len(vip.Holders) == 0:
			d.why = fmt.Sprintf("nobody holds vip.%s", vip.Name)
		case !d.here:
			d.why = fmt.Sprintf("%s holds vip.%s", vip.Holders[0], vip.Name)
		}
		return d
	}
	return n.firstOf(v)
}

// dutySettle is for how long a node without a lease must be the first.
const dutySettle = 10 * time.Second

// firstOf finds the node that has the duty where there is no VIP.
func (n *node) firstOf(v ha.View) duty {
	heard, first := 0, ""
	var fit []string
	for i, nv := range v.Nodes {
		if i > 0 && nv.State == ha.Unheard {
			continue
		}
		heard++
		if !nv.Witness && nv.State != ha.Draining {
			fit = append(fit, string(nv.ID))
		}
	}
	if len(fit) > 0 {
		first = slices.Min(fit)
	}
	n.firstMu.Lock()
	defer n.firstMu.Unlock()
	if first != n.first {
		n.first, n.firstSince = first, time.Now()
	}
	switch self := string(v.Nodes[0].ID); {
	case len(v.Nodes) > 2 && heard <= len(v.Nodes)/2:
		return duty{why: fmt.Sprintf("only %d of %d nodes are heard, and there is no VIP whose holder would know that it is alone", heard, len(v.Nodes))}
	case first != self:
		return duty{why: fmt.Sprintf("%s comes first", first)}
	case time.Since(n.firstSince) < dutySettle:
		return duty{why: "this node comes first since a moment ago"}
	}
	return duty{here: true}
}
