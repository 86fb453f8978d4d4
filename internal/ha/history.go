package ha

import (
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A Change is one time that a VIP changed hands.
type Change struct {
	Time   time.Time
	VIP    string
	From   string // "" if nobody held it, or nobody knows who
	To     string
	Term   uint64
	Reason election.Reason
	Text   string        // what the operator gave as the reason
	At     clock.Instant // Time, by this node's own clock
	Heard  clock.Instant // the last sign of life of the old holder; 0 if there was none, or it is not known
	Trail  []Fact        // what this node met before it
	Took   time.Duration // last sign of life of the old holder to the first announcement; only of changes to this node
}

// maxChanges is how many changes are remembered.
const maxChanges = 64

// history is the latest changes, the oldest first.
type history struct{ list []Change }

func (h *history) add(c Change) {
	if len(h.list) == maxChanges {
		h.list = append(h.list[:0], h.list[1:]...)
	}
	h.list = append(h.list, c)
}

func (h *history) all() []Change { return append([]Change(nil), h.list...) }

// changed notes that a VIP, and those that follow it, changed hands.
func (n *Node) changed(c Change) {
	for _, vip := range n.byVIP[c.VIP].vips {
		c := c
		c.VIP = vip
		n.history.add(c)
		n.Log.Info("the address changed hands", "vip", vip, "from", c.From, "to", c.To, "term", c.Term, "reason", c.Reason, "text", c.Text)
		if n.OnChange != nil {
			n.OnChange(c)
		}
	}
}
