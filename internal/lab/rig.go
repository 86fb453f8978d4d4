package lab

import (
	"context"
	"fmt"
	"time"
)

// A Rig is a stage under load and under watch.
type Rig struct {
	Stage *Stage
	Load  *Load
	Watch *Watcher
}

// DrillLoad is the load under which events are measured: 200 new connections a second, and
// a few that are kept.
func DrillLoad() LoadSpec {
	return LoadSpec{Rate: 200, Kept: 8, KeptRate: 80, Deadline: time.Second}
}

// NewRig lays out a stage with a watcher and a client that already asks; proxyd does not
// run yet. Close it.
func NewRig(p Plan, load LoadSpec) (*Rig, error) {
	s, err := NewStage(p)
	if err != nil {
		return nil, err
	}
	r := &Rig{Stage: s}
	if r.Watch, err = s.Watch(s.More...); err != nil {
		r.Close()
		return nil, err
	}
	if r.Load, err = s.Load(load); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close ends load and watch and removes the stage.
func (r *Rig) Close() {
	if r.Load != nil {
		r.Load.Close()
	}
	if r.Watch != nil {
		r.Watch.Close()
	}
	r.Stage.Close()
}

// Holder returns the node that alone answers for the VIP, or nil.
func (r *Rig) Holder() *Node {
	if by := r.Watch.Now(); len(by) == 1 {
		return r.Stage.Node(by[0])
	}
	return nil
}

// Steady waits until the cluster says that it is healthy, one host answers for the VIP, and
// requests have succeeded for a while.
func (r *Rig) Steady(ctx context.Context, patience time.Duration) error {
	began := time.Now()
	if err := r.Stage.Healthy(ctx, patience); err != nil {
		return err
	}
	return within(ctx, patience-time.Since(began), "undisturbed service", func() (bool, error) {
		if err := r.Load.Err(); err != nil {
			return false, err
		}
		now := Now()
		if r.Holder() == nil {
			return false, notYet{fmt.Errorf("who answers for the VIP: %v", r.Watch.Now())}
		}
		lately := now.Add(-steadyFor)
		attempts := r.Load.Between(lately, now)
		return r.served(lately, now), notYet{fmt.Errorf("of %d requests in the last %v some failed (%s), or there was a gap of %v",
			len(attempts), steadyFor, kinds(Failures(attempts, false)), Outage(attempts, lately, now, 0))}
	})
}

// steadyFor is how long requests must succeed until a stage counts as steady.
const steadyFor = 500 * time.Millisecond

// served reports whether requests succeeded all the time between two instants.
func (r *Rig) served(from, to Instant) bool {
	attempts := r.Load.Between(from.Add(-100*time.Millisecond), to)
	return len(Failures(attempts, false)) == 0 && len(attempts) > 0 &&
		Outage(attempts, from, to, 0) < 100*time.Millisecond
}

// A Measure is what clients and neighbours saw of an event.
type Measure struct {
	Event      string
	From, To   Instant
	Promise    Promise
	Outage     time.Duration
	Stall      time.Duration   // longest time in which the client itself stood still
	Failed     map[Outcome]int // requests on connections of their own
	KeptFailed int             // requests on kept connections
	Requests   int
	Seen       []string // hosts that answered for the VIP
	Two        time.Duration
	None       time.Duration
	Changes    int    // times that another host answered for the VIP than before
	Before     string // holder when it began, "" for none or two
	After      string
}

// FailedAll returns the number of failed requests on connections of their own.
func (m Measure) FailedAll() int {
	n := 0
	for _, k := range m.Failed {
		n += k
	}
	return n
}

// Within reports whether the event stayed inside factor times what was promised of one:
// single events scatter, so 1 is for medians of many.
func (m Measure) Within(factor int) bool {
	p := m.Promise
	return m.Outage <= p.Outage*time.Duration(factor) &&
		(p.Failed == anyFailed || m.FailedAll() <= p.Failed*factor) &&
		(p.Two == anyTime || m.Two <= p.Two*time.Duration(factor)) &&
		(p.Changes == nil || m.Changes <= *p.Changes)
}

// Measure reads the records between two instants.
func (r *Rig) Measure(event string, p Promise, from, to Instant) Measure {
	attempts := r.Load.Between(from.Add(-time.Second), to.Add(200*time.Millisecond))
	var before, during []Attempt
	for _, a := range attempts {
		if a.End <= from {
			before = append(before, a)
		} else if a.End <= to {
			during = append(during, a)
		}
	}
	asks := r.Watch.Asks(from, to)
	m := Measure{
		Event: event, From: from, To: to, Promise: p,
		Outage:   Outage(attempts, from, to, Usual(before)),
		Stall:    Stall(during, Usual(before)),
		Failed:   Failures(during, false),
		Requests: len(during),
		Seen:     SeenBy(asks),
		Two:      TwoHeld(asks),
		None:     NoneHeld(asks),
		Changes:  Changes(asks),
		Before:   alone(lastOf(r.Watch.Asks(from.Add(-4*askEvery), from))),
		After:    alone(lastOf(asks)),
	}
	for _, n := range Failures(during, true) {
		m.KeptFailed += n
	}
	return m
}

// lastOf returns who answered the last ask but one: the last may still be under way.
func lastOf(asks []Ask) []string {
	if len(asks) < 2 {
		return nil
	}
	return asks[len(asks)-2].By
}

func alone(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return ""
}
