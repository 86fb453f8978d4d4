package keyring

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Rotation gives every node another key. The node where it is asked for runs it.
//
// Each step is done on every node before the next one begins on any: all believe the new key,
// then all seal with it, then all drop the others. So whatever a node seals with is believed
// by every other, at each moment, and wherever a rotation breaks off the cluster stays whole.
// The next rotation goes on with what it finds.
type Rotation struct {
	Nodes  []string // every voter
	By     string   // who asked for it, and where
	Ask    func(ctx context.Context, node string, q Question) (Answer, error)
	Now    func() time.Time
	Settle time.Duration // how long what was sealed with the old key may still be on its way

	id    string
	state map[string]Answer // by node, as it last answered
}

// ErrUnfinished is wrapped by what Run returns when some nodes have the new key already.
var ErrUnfinished = errors.New("the rotation is not finished, and nothing is lost by that: every node believes what any other seals with; rotate again to go on")

// Rotated is what a rotation did.
type Rotated struct {
	Key     Held
	Before  []string // marks of the keys that are dropped
	Resumed bool     // it went on with one that was broken off
}

// Run makes the rotation. An error that is not ErrUnfinished has changed nothing.
func (r *Rotation) Run(ctx context.Context) (Rotated, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Rotated{}, err
	}
	r.id, r.state = hex.EncodeToString(random[:]), map[string]Answer{}
	defer r.unlock()
	for _, node := range slices.Sorted(slices.Values(r.Nodes)) { // of two at once one gets all
		if err := r.ask(ctx, node, Question{Do: Lock}); err != nil {
			return Rotated{}, err
		}
	}
	if err := r.sameVoters(); err != nil {
		return Rotated{}, err
	}
	key, resumed, err := r.choose(ctx)
	if err != nil {
		return Rotated{}, err
	}
	out := Rotated{Key: Held{key.Mark(), key.Number, key.Since}, Before: r.others(key.Mark()), Resumed: resumed}
	for _, step := range []Question{{Do: Accept, Key: &key}, {Do: Use, Mark: key.Mark()}, {Do: Keep, Mark: key.Mark()}} {
		if step.Do == Keep {
			if err := r.settle(ctx); err != nil {
				return Rotated{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
			}
		}
		for _, node := range r.Nodes {
			if err := r.ask(ctx, node, step); err != nil {
				return Rotated{}, fmt.Errorf("%w: %w", ErrUnfinished, err)
			}
		}
	}
	return out, nil
}

func (r *Rotation) ask(ctx context.Context, node string, q Question) error {
	q.ID, q.By = r.id, r.By
	a, err := r.Ask(ctx, node, q)
	if err != nil {
		return fmt.Errorf("%s: %w", node, err)
	}
	if len(a.Keys) == 0 {
		return fmt.Errorf("%s: it says nothing of its keys", node)
	}
	r.state[node] = a
	return nil
}

// sameVoters refuses a rotation that would leave out a node that another one knows.
func (r *Rotation) sameVoters() error {
	want := slices.Sorted(slices.Values(r.Nodes))
	for _, node := range r.Nodes {
		if got := slices.Sorted(slices.Values(r.state[node].Voters)); !slices.Equal(got, want) {
			return fmt.Errorf("%s has other voters, %v; make cluster.join the same on every node first", node, got)
		}
	}
	return nil
}

// choose returns the key that all are to have: the one of a rotation that broke off, or a
// new one.
func (r *Rotation) choose(ctx context.Context) (key Key, resumed bool, err error) {
	var latest Held
	at := ""
	marks := map[string]bool{}
	for _, node := range r.Nodes {
		for _, h := range r.state[node].Keys {
			marks[h.Mark] = true
			if at == "" || h.Number > latest.Number || h.Number == latest.Number && h.Mark > latest.Mark {
				latest, at = h, node
			}
		}
	}
	if len(marks) == 1 {
		key, err = NewKey(latest.Number+1, r.Now())
		return key, false, err
	}
	a, err := r.Ask(ctx, at, Question{Do: Give, ID: r.id, By: r.By, Mark: latest.Mark})
	if err == nil && (a.Key == nil || a.Key.Mark() != latest.Mark) {
		err = errors.New("it does not give the key that it has")
	}
	if err != nil {
		return Key{}, true, fmt.Errorf("%s: %w", at, err)
	}
	return *a.Key, true, nil
}

// others are the keys that any node has beside one.
func (r *Rotation) others(mark string) (out []string) {
	for _, a := range r.state {
		for _, h := range a.Keys {
			if h.Mark != mark && !slices.Contains(out, h.Mark) {
				out = append(out, h.Mark)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (r *Rotation) settle(ctx context.Context) error {
	t := time.NewTimer(r.Settle)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// unlockTime bounds how long a node is asked to wait for nothing more.
const unlockTime = 2 * time.Second

// unlock lets the nodes take part in another rotation. One that does not hear it waits for a
// while.
func (r *Rotation) unlock() {
	for node := range r.state {
		ctx, cancel := context.WithTimeout(context.Background(), unlockTime)
		_, _ = r.Ask(ctx, node, Question{Do: Unlock, ID: r.id})
		cancel()
	}
}
