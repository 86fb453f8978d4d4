package lab

import (
	"context"
	"fmt"
	"time"

	"proxyd/internal/control"
)

// AddressLifetime is how long a dead holder may go on answering for the VIP until the
// kernel takes the address away.
const AddressLifetime = 1500 * time.Millisecond

// A Promise is what clients may expect of an event.
type Promise struct {
	Outage time.Duration // without service, the median of many
	Failed int           // requests on connections of their own; anyFailed: no promise
	Two    time.Duration // in which two hosts answer for the VIP; anyTime: no promise
}

const (
	anyFailed = -1
	anyTime   = time.Duration(-1)
)

// A Fault is something that happens to the pair, and how it is undone.
type Fault struct {
	Key   string // for --only
	Name  string
	Moves bool          // the VIP goes to another node
	Lasts time.Duration // until it is undone; 0: until service has settled

	Strike func(ctx context.Context, s *Stage, holder *Node) error
	Undo   func(ctx context.Context, s *Stage, holder *Node) error // nil: nothing to undo
	Back   string                                                  // what undoing it is called

	Promise Promise
	Return  Promise // of undoing it
}

// unnoticed is the promise of all that clients must not notice.
func unnoticed() Promise {
	return Promise{Outage: 100 * time.Millisecond, Failed: 1, Two: AddressLifetime}
}

// Faults returns every fault that the lab can play, in the order of a drill, and after
// them the changes that nobody may notice.
func Faults() []Fault {
	calm := unnoticed()
	return append([]Fault{
		{
			Key: "handover", Name: "planned hand-over", Moves: true, Promise: calm,
			Strike: func(ctx context.Context, s *Stage, h *Node) error {
				return handOver(ctx, h, s.Other(h))
			},
		},
		{
			Key: "kill", Name: "kill -9", Moves: true,
			Promise: Promise{Outage: 100 * time.Millisecond, Failed: anyFailed, Two: AddressLifetime},
			Strike:  func(_ context.Context, _ *Stage, h *Node) error { return h.Kill() },
			Undo:    func(_ context.Context, _ *Stage, h *Node) error { return h.Start() },
			Back:    "started again", Return: calm,
		},
		{
			Key: "term", Name: "SIGTERM", Moves: true, Promise: calm,
			Strike: func(_ context.Context, _ *Stage, h *Node) error { return h.Stop(20 * time.Second) },
			Undo:   func(_ context.Context, _ *Stage, h *Node) error { return h.Start() },
			Back:   "started again", Return: calm,
		},
		{
			Key: "freeze", Name: "SIGSTOP 10 s", Moves: true, Lasts: 10 * time.Second,
			Promise: Promise{Outage: 350 * time.Millisecond, Failed: anyFailed, Two: AddressLifetime},
			Strike:  func(_ context.Context, _ *Stage, h *Node) error { return h.Freeze() },
			Undo:    func(_ context.Context, _ *Stage, h *Node) error { return h.Thaw() },
			Back:    "SIGCONT", Return: calm,
		},
		{
			Key: "cut", Name: "cable cut", Moves: true,
			Promise: Promise{Outage: 400 * time.Millisecond, Failed: anyFailed, Two: AddressLifetime},
			Strike:  func(_ context.Context, _ *Stage, h *Node) error { return h.Cut() },
			Undo:    func(_ context.Context, _ *Stage, h *Node) error { return h.Uncut() },
			Back:    "cable back", Return: calm,
		},
		{
			Key: "silent", Name: "frames lost, link up", Moves: true,
			Promise: Promise{Outage: 400 * time.Millisecond, Failed: anyFailed, Two: AddressLifetime},
			Strike:  func(_ context.Context, _ *Stage, h *Node) error { return h.Silence() },
			Undo:    func(_ context.Context, _ *Stage, h *Node) error { return h.Unsilence() },
			Back:    "frames back", Return: calm,
		},
		{
			// Neither node can see the other or be told of it, so both may hold for the time.
			Key: "partition", Name: "pair partitioned", Lasts: 3 * time.Second,
			Promise: Promise{Outage: 400 * time.Millisecond, Failed: anyFailed, Two: anyTime},
			Strike:  func(_ context.Context, s *Stage, _ *Node) error { return s.isolate(true) },
			Undo:    func(_ context.Context, s *Stage, _ *Node) error { return s.isolate(false) },
			Back:    "partition healed",
			Return:  Promise{Outage: 400 * time.Millisecond, Failed: anyFailed, Two: AddressLifetime},
		},
	}, changes()...)
}

// FaultByKey returns the fault with a key.
func FaultByKey(key string) (Fault, error) {
	keys := ""
	for _, f := range Faults() {
		if f.Key == key {
			return f, nil
		}
		keys += " " + f.Key
	}
	return Fault{}, fmt.Errorf("no fault %q; there are%s", key, keys)
}

func (s *Stage) isolate(on bool) error {
	for _, n := range s.Nodes {
		if err := n.Isolate(on); err != nil {
			return err
		}
	}
	return nil
}

// handOver asks a node to give its VIPs to another, as hactl failover does.
func handOver(ctx context.Context, from, to *Node) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := from.Client().Failover(ctx, control.Failover{To: to.Name, Reason: "lab"})
	if err != nil {
		return fmt.Errorf("hand over from %s to %s: %w", from.Name, to.Name, err)
	}
	return nil
}
