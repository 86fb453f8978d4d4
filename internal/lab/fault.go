package lab

import (
	"context"
	"fmt"
	"time"
)

// AddressLifetime is how long a dead holder may go on answering for the VIP until the
// kernel takes the address away.
const AddressLifetime = 1500 * time.Millisecond

// A Promise is what clients may expect of an event.
type Promise struct {
	Outage  time.Duration // without service, the median of many
	Failed  int           // requests on connections of their own; anyFailed: no promise
	Two     time.Duration // in which two hosts answer for the VIP; anyTime: no promise
	Changes *int          // times that another host answers for the VIP than before; nil: no promise
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
	return append(scripted(), changes()...)
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
