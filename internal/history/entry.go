// Package history is what happened in a cluster, as its nodes wrote it down: entries with
// their evidence, a ring of them in memory and on disk, one order for those of all nodes,
// and the story that they tell of a change.
package history

import (
	"slices"
	"time"
)

// An Entry is one thing that one node saw or did. Keys are stable. An Entry is never
// changed once it is written down.
type Entry struct {
	Node string    `json:"node"` // who tells it
	Life int64     `json:"life"` // of its process: when that started, in nanoseconds since 1970
	Seq  uint64    `json:"seq"`  // grows within a life
	Time time.Time `json:"time"` // by the teller's clock
	Kind Kind      `json:"kind"`

	VIP    string `json:"vip,omitempty"`
	Term   uint64 `json:"term,omitempty"` // of the holder in a change, else the highest known
	From   string `json:"from,omitempty"` // of a change: who held before; "" nobody, or nobody knows who
	To     string `json:"to,omitempty"`   // of a change: who holds now; of other entries the node that it is about
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`
	// TookMS is, of a change to the teller, the time from the old holder's last sign of
	// life to the first announcement, and of a silence how long it was.
	TookMS float64 `json:"took_ms,omitempty"`
	Steps  []Step  `json:"steps,omitempty"` // the evidence, in order
}

// A Step is one piece of evidence.
type Step struct {
	MS   float64 `json:"ms"` // after the instant of the entry; negative is before
	What string  `json:"what"`
	Node string  `json:"node,omitempty"` // whom it is about
	Text string  `json:"text,omitempty"`
}

// Kind is what an Entry is about.
type Kind string

const (
	Changed  Kind = "change"    // a VIP has a new holder
	Answered Kind = "answered"  // the new holder's own listeners answered after the change
	Released Kind = "release"   // the teller let a VIP go
	Heard    Kind = "heard"     // a node is heard for the first time, or again
	Lost     Kind = "lost"      // a node is not heard any more
	NearMiss Kind = "near_miss" // a silence that was more than half of what is borne
	Permit   Kind = "permit"    // the network was asked whether this node may hold alone
	Fitness  Kind = "fitness"   // the teller could serve, or not
	Track    Kind = "track"     // what the teller's fitness depends on has failed, or is good
	Asked    Kind = "asked"     // an operator, or a leaving node, asked for a hand-over
	Stall    Kind = "stall"     // the teller itself was asleep
	Fault    Kind = "fault"     // the teller could not hold
	Conflict Kind = "conflict"  // another MAC claimed a VIP that the teller held
	Repair   Kind = "repair"    // somebody else removed the address; it was put back
	Config   Kind = "config"    // another configuration is in force, or one was refused
	Keys     Kind = "keys"      // the cluster's keys changed
	Overload Kind = "overload"  // the teller began to refuse what it cannot do in time, or keeps up again

	Certificate Kind = "certificate" // one was ordered by ACME, and came or did not

	// Upgraded is a process that took the place of another on the teller's host, or did not.
	Upgraded Kind = "upgrade"

	Started Kind = "start"
	Stopped Kind = "stop"
)

// id tells entries apart.
type id struct {
	node string
	life int64
	seq  uint64
}

func (e *Entry) id() id { return id{e.Node, e.Life, e.Seq} }

// Order puts the entries of several nodes in one order. What one node tells stays in the
// order in which it happened there; of one VIP a lower term comes before a higher one,
// whatever the clocks say; for the rest the clocks decide.
func Order(entries []Entry) []Entry {
	byNode := map[string][]Entry{}
	for _, e := range entries {
		byNode[e.Node] = append(byNode[e.Node], e)
	}
	var queues []*queue
	for _, list := range byNode {
		slices.SortFunc(list, func(a, b Entry) int {
			if a.Life != b.Life {
				return int(min(max(a.Life-b.Life, -1), 1))
			}
			return int(min(max(int64(a.Seq)-int64(b.Seq), -1), 1))
		})
		queues = append(queues, newQueue(list))
	}
	slices.SortFunc(queues, func(a, b *queue) int { return cmpString(a.list[0].Node, b.list[0].Node) })
	out := make([]Entry, 0, len(entries))
	for len(out) < len(entries) {
		var next, any *queue
		for _, q := range queues {
			if q.empty() {
				continue
			}
			if any == nil || q.head().Time.Before(any.head().Time) {
				any = q
			}
			if (next == nil || q.head().Time.Before(next.head().Time)) && !behind(q, queues) {
				next = q
			}
		}
		if next == nil {
			next = any // each waits for the other: clocks are all there is
		}
		out = append(out, *next.head())
		next.pop()
	}
	return out
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// behind reports whether another node still has to tell of a lower term of the VIP that
// the next entry of q is about.
func behind(q *queue, all []*queue) bool {
	h := q.head()
	if h.VIP == "" || h.Term == 0 {
		return false
	}
	for _, o := range all {
		if o != q && o.lowest(h.VIP) < h.Term {
			return true
		}
	}
	return false
}

// A queue is what one node has still to tell.
type queue struct {
	list []Entry
	at   int
	low  map[string][]uint64 // by VIP: the lowest term from the entry of each index on
}

const noTerm = ^uint64(0)

func newQueue(list []Entry) *queue {
	q := &queue{list: list, low: map[string][]uint64{}}
	for _, e := range list {
		if e.VIP != "" && e.Term != 0 && q.low[e.VIP] == nil {
			q.low[e.VIP] = make([]uint64, len(list)+1)
		}
	}
	for vip, low := range q.low {
		low[len(list)] = noTerm
		for i := len(list) - 1; i >= 0; i-- {
			low[i] = low[i+1]
			if e := &list[i]; e.VIP == vip && e.Term != 0 {
				low[i] = min(low[i], e.Term)
			}
		}
	}
	return q
}

func (q *queue) empty() bool  { return q.at == len(q.list) }
func (q *queue) head() *Entry { return &q.list[q.at] }
func (q *queue) pop()         { q.at++ }

func (q *queue) lowest(vip string) uint64 {
	if low := q.low[vip]; low != nil {
		return low[q.at]
	}
	return noTerm
}
