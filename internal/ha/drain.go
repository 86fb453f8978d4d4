package ha

import (
	"encoding/binary"
	"net/netip"
	"time"

	"proxyd/internal/clock"
)

// A drain is an address that a node does not hold any more and still serves older
// connections of. Whoever holds it sends their packets on to the node that held before it,
// and that one to the node before: who has the higher term comes first, so no packet can go
// in a circle.

// doubt is for how long packets are sent on to a holder that fell silent: it may only be
// late, and then no connection is lost. It is short, because clients of a host that is lost
// wait meanwhile for the reset that lets them begin anew.
const doubt = 2 * time.Second

// sayEnded is for how long the others are told that there is no drain any more.
const sayEnded = 2 * time.Second

// sameEnd is by how much the end of a drain may seem to move because messages do not all
// take the same time.
const sameEnd = time.Second

// seat is what a node says with every beat of a VIP that it holds, or drains: where it is,
// and how it stands with older connections.
type seat struct {
	VIP   string // by name, followers too
	Term  uint64 // under which it holds or held
	Holds bool
	Left  time.Duration // of the drain
	Conns int           // that are left; -1: not counted yet
	MAC   [6]byte       // on the VIP's network
	Addr  netip.Addr    // its own there, of the VIP's family; zero if it has none
}

func (s *seat) append(b []byte) []byte {
	b = appendText(b, s.VIP)
	b = binary.AppendUvarint(b, s.Term)
	b = append(b, flag(s.Holds))
	b = binary.AppendUvarint(b, uint64(max(s.Left, 0)))
	b = binary.AppendUvarint(b, uint64(s.Conns+1))
	b = append(b, s.MAC[:]...)
	return appendText(b, string(s.Addr.AsSlice()))
}

func (s *seat) read(r *reader) error {
	*s = seat{VIP: r.text(), Term: r.uvarint(), Holds: r.byte()&1 != 0, Left: r.duration(), Conns: int(min(r.uvarint(), 1<<31)) - 1}
	for i := range s.MAC {
		s.MAC[i] = r.byte()
	}
	s.Addr, _ = netip.AddrFromSlice([]byte(r.text()))
	return r.err
}

// seated is a seat as it was heard.
type seated struct {
	seat
	Until clock.Instant // the drain's end
}

// onward is where packets of one address are sent on to.
type onward struct {
	MAC   [6]byte
	Addr  netip.Addr
	Until clock.Instant // 0: nowhere
}

// seats puts into the frame for p where this node is for the VIPs that it has, or had a
// while ago.
func (n *Node) seats(now clock.Instant, p *peer) {
	for _, e := range n.electors {
		for i, h := range e.holders {
			until, conns := h.Draining()
			s := seat{VIP: e.vips[i], Term: e.term, Holds: e.held, Conns: conns}
			switch {
			case e.held:
				s.Conns = -1
			case until > now:
				s.Left = until.Sub(now)
				e.drained = now
			case e.drained == 0 || now.Sub(e.drained) > sayEnded:
				continue
			}
			s.MAC, s.Addr = h.Seat()
			p.out.add(seatRecord, s.append)
		}
	}
}

// seat takes in where a peer is for a VIP.
func (n *Node) seat(now clock.Instant, p *peer, s seat) {
	if n.byVIP[s.VIP] == nil {
		return
	}
	heard := seated{seat: s}
	if s.Left > 0 {
		heard.Until = now.Add(s.Left)
	}
	p.seats[s.VIP] = heard
}

// drain returns until when p serves older connections of a VIP, as far as this node can
// know; the zero instant says that it does not. Who said last that it holds the VIP, and was
// replaced, either has not said yet that it drains, or fell silent.
func (n *Node) drain(now clock.Instant, p *peer, vip string) clock.Instant {
	s, known := p.seats[vip]
	if !known {
		return 0
	}
	until, end := s.Until, p.heard.Add(n.Timing.Lease+doubt)
	if s.Holds {
		until = end
	} else if !p.alive {
		until = min(until, end)
	}
	if until <= now {
		return 0
	}
	return until
}

// sendOn sends packets of all addresses on to the nodes that had them before this one, or
// ends that: of all at once, since what it takes may grow with how many there are.
func (n *Node) sendOn(now clock.Instant) {
	var works []*work
	for _, e := range n.electors {
		if do := n.redirect(now, e, e.held); do != nil {
			works = append(works, &work{do: do})
		}
	}
	together(works)
}

// redirect finds out where packets of e's addresses are to be sent on to, and returns what
// does it where that has changed, nil if it has not. It may be done beside the loop. holds says
// whether this node holds them, or is about to.
func (n *Node) redirect(now clock.Instant, e *elector, holds bool) (do func()) {
	var changes []func()
	for i, h := range e.holders {
		to := onward{}
		if draining, _ := h.Draining(); holds || draining > now {
			to = n.before(now, e, e.vips[i], holds)
		}
		was, told := e.onward[e.vips[i]]
		if told && to.MAC == was.MAC && to.Addr == was.Addr && (to.Until == 0) == (was.Until == 0) && to.Until.Sub(was.Until).Abs() < sameEnd {
			continue
		}
		if e.onward == nil {
			e.onward = map[string]onward{}
		}
		e.onward[e.vips[i]] = to
		changes = append(changes, func() {
			if err := h.SendOn(to.MAC, to.Addr, to.Until); err != nil {
				n.Log.Warn("older connections are not kept", "vip", e.vips[i], "error", err)
			}
		})
	}
	if len(changes) == 0 {
		return nil
	}
	return func() {
		for _, change := range changes {
			change()
		}
	}
}

// before returns where the node is that had a VIP before this one and still drains it.
func (n *Node) before(now clock.Instant, e *elector, vip string, holds bool) (to onward) {
	term := uint64(0)
	for _, p := range n.peers {
		s := p.seats[vip]
		until := n.drain(now, p, vip)
		if until == 0 || s.Term < term || !holds && s.Term >= e.term {
			continue
		}
		term, to = s.Term, onward{s.MAC, s.Addr, until}
	}
	return to
}

// DrainView is a node that still serves older connections of a VIP.
type DrainView struct {
	Node  string // by name
	Here  bool   // it is this node
	Conns int    // that are left; -1: not counted yet
	Left  time.Duration
}

// drains lists who still serves older connections of a VIP.
func (n *Node) drains(now clock.Instant, e *elector, vip string) (out []DrainView) {
	for i, h := range e.holders {
		if until, conns := h.Draining(); e.vips[i] == vip && !e.held && until > now {
			out = append(out, DrainView{Node: n.Name, Here: true, Conns: conns, Left: until.Sub(now)})
		}
	}
	for _, p := range n.peers {
		if s := p.seats[vip]; p.alive && !s.Holds && s.Until > now {
			out = append(out, DrainView{Node: n.nameOf(p.id), Conns: s.Conns, Left: s.Until.Sub(now)})
		}
	}
	return out
}
