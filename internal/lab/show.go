package lab

import (
	"context"
	"fmt"
	"sync"
	"time"

	"proxyd/internal/control"
)

// A Show is a rig that somebody breaks by hand: what can be done to it, and what there is
// to see. Act and Scene may be called at once.
type Show struct {
	rig   *Rig
	began Instant

	mu     sync.Mutex
	status map[string]control.NodeStatus // each node's word about itself
	ails   map[string]string             // what was done to a node and not undone: frozen, cut off
	events []Measure                     // oldest first
	open   *openEvent                    // the last one, while it is still watched
	notice string                        // what went wrong last, or what the kernel withholds
}

type openEvent struct {
	name    string
	promise Promise
	from    Instant
}

// watched is how long an event is watched before its measure stands.
const watched = 3 * time.Second

// NewShow starts the nodes of a rig and returns without waiting for them. It ends with ctx.
func NewShow(ctx context.Context, r *Rig) (*Show, error) {
	s := &Show{rig: r, began: Now(), status: map[string]control.NodeStatus{}, ails: map[string]string{}}
	if refused := Withheld(); len(refused) > 0 {
		s.notice = "this kernel refuses " + refused[0]
	}
	s.open = &openEvent{"start of both", startPromise(), s.began}
	for _, n := range r.Stage.Nodes {
		if err := n.Start(); err != nil {
			return nil, err
		}
		go s.follow(ctx, n) // ends with ctx
	}
	return s, nil
}

// follow asks a node for its own state again and again.
func (s *Show) follow(ctx context.Context, n *Node) {
	for pause(ctx, 200*time.Millisecond) == nil {
		var own control.NodeStatus
		if st, err := n.Status(ctx); err == nil {
			for _, ns := range st.Nodes {
				if ns.Name == n.Name {
					own = ns
				}
			}
		}
		s.mu.Lock()
		s.status[n.Name] = own
		s.mu.Unlock()
	}
}

// An Action is what a key does.
type Action byte

const (
	KillHolder   Action = 'k'
	FreezeHolder Action = 'f'
	CutHolder    Action = 'c'
	HandOver     Action = 'h'
	BringBack    Action = 'b'
)

// Act does something to the pair. What it led to is measured from then on.
func (s *Show) Act(ctx context.Context, a Action) {
	var err error
	if a == BringBack {
		err = s.bringBack()
	} else if holder := s.rig.Holder(); holder == nil {
		err = fmt.Errorf("nobody alone holds the VIP just now")
	} else {
		err = s.strike(ctx, a, holder)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice = ""
	if err != nil {
		s.notice = err.Error()
	}
}

func (s *Show) strike(ctx context.Context, a Action, holder *Node) error {
	key, ailment := "", ""
	switch a {
	case KillHolder:
		key = "kill"
	case FreezeHolder:
		key, ailment = "freeze", "frozen"
	case CutHolder:
		key, ailment = "cut", "cut off"
	case HandOver:
		key = "handover"
	}
	f, err := FaultByKey(key)
	if err != nil {
		return err
	}
	if key == "freeze" {
		f.Name = "SIGSTOP"
	}
	s.begin(f.Name+" of "+holder.Name, f.Promise)
	if ailment != "" {
		s.mu.Lock()
		s.ails[holder.Name] = ailment
		s.mu.Unlock()
	}
	return f.Strike(ctx, s.rig.Stage, holder)
}

// bringBack undoes all that was done.
func (s *Show) bringBack() error {
	for _, n := range s.rig.Stage.Nodes {
		s.mu.Lock()
		ailment := s.ails[n.Name]
		delete(s.ails, n.Name)
		s.mu.Unlock()
		var undo func() error
		switch {
		case ailment == "frozen":
			undo = n.Thaw
		case ailment == "cut off":
			undo = n.Uncut
		case !n.Alive():
			undo = n.Start
		default:
			continue
		}
		s.begin(n.Name+" is back", unnoticed())
		if err := undo(); err != nil {
			return err
		}
	}
	return nil
}

// begin closes the event under watch and opens another.
func (s *Show) begin(name string, p Promise) {
	now := Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.close(now)
	s.open = &openEvent{name, p, now}
}

// close turns the open event into a measure. s.mu is held.
func (s *Show) close(now Instant) {
	if s.open != nil {
		s.events = append(s.events, s.rig.Measure(s.open.name, s.open.promise, s.open.from, now))
		s.open = nil
	}
}

// A Scene is what there is to see at one moment.
type Scene struct {
	VIP      string
	Up       time.Duration
	Nodes    []NodeScene
	Rate     []Beat // requests, oldest first
	Requests int    // in the last second
	Total    int    // since the first answer
	Failed   int    // of those
	P50, P99 time.Duration
	Events   []Measure // oldest first
	Watching bool      // the last event is not over
	Notice   string
}

// NodeScene is one node of a Scene.
type NodeScene struct {
	Name, Addr, State, Reason, Socket string
	Holds                             bool
	PID                               int
}

// A Beat is the requests of a quarter of a second.
type Beat struct{ OK, Failed int }

const beatTime = 250 * time.Millisecond

// Scene returns what there is to see now, with a number of beats.
func (s *Show) Scene(beats int) Scene {
	now := Now()
	holders := s.rig.Watch.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil && now.Sub(s.open.from) > watched && s.over(now) {
		s.close(now)
	}
	sc := Scene{VIP: s.rig.Stage.VIP.String(), Up: now.Sub(s.began), Notice: s.notice, Events: append([]Measure(nil), s.events...)}
	if s.open != nil {
		sc.Watching = true
		sc.Events = append(sc.Events, s.rig.Measure(s.open.name, s.open.promise, s.open.from, now))
	}
	sc.Total, sc.Failed = s.rig.Load.Totals()
	for _, n := range s.rig.Stage.Nodes {
		sc.Nodes = append(sc.Nodes, s.node(n, holders))
	}
	if err := s.rig.Load.Err(); err != nil {
		sc.Notice = err.Error()
	}
	recent := s.rig.Load.Between(now.Add(-time.Duration(beats+1)*beatTime), now)
	sc.Rate = beatsOf(recent, now, beats)
	var second []Attempt
	for _, a := range recent {
		if a.End > now.Add(-time.Second) {
			second = append(second, a)
		}
	}
	sc.Requests = len(second)
	sc.P50, sc.P99 = Latency(second)
	return sc
}

// over reports whether service is there; the start lasts until it is.
func (s *Show) over(now Instant) bool {
	return len(s.events) > 0 || s.rig.served(now.Add(-steadyFor), now)
}

func (s *Show) node(n *Node, holders []string) NodeScene {
	sc := NodeScene{Name: n.Name, Addr: n.Addr.String(), Socket: n.Socket, PID: n.PID()}
	for _, h := range holders {
		sc.Holds = sc.Holds || h == n.Name
	}
	own := s.status[n.Name]
	switch {
	case !n.Alive():
		sc.State = "dead"
	case s.ails[n.Name] != "":
		sc.State = s.ails[n.Name]
	case own.State == "":
		sc.State = "starting"
	case own.State == "up" && sc.Holds:
		sc.State = "holder"
	case own.State == "up":
		sc.State = "standby"
	default:
		sc.State, sc.Reason = own.State, own.Reason
	}
	return sc
}

// beatsOf counts requests by the quarter of a second in which they ended. The quarters are
// those of the clock, so that a beat does not change its height as it moves.
func beatsOf(attempts []Attempt, now Instant, n int) []Beat {
	out := make([]Beat, n)
	last := int64(now) / int64(beatTime)
	for _, a := range attempts {
		i := n - 1 - int(last-1-int64(a.End)/int64(beatTime))
		if i < 0 || i >= n {
			continue
		}
		if a.Outcome == OK {
			out[i].OK++
		} else {
			out[i].Failed++
		}
	}
	return out
}
