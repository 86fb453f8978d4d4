package lab

import (
	"context"
	"fmt"
	"time"
)

const (
	// patience is how long a stage may take to become healthy before a trial is given up.
	patience = 30 * time.Second
	// settle is how long an event is watched after service came back: longer than a request
	// may take to time out, and than a dead holder's address may last.
	settle = 2 * time.Second
	// giveUp is how long service may be away before an event is ended as it is.
	giveUp = 10 * time.Second
)

// Try plays a fault once, from a steady stage to a steady stage, and measures what it did
// and what undoing it did. An error means that the fault could not be played or that the
// stage did not become well again; what was measured until then is returned with it.
func (r *Rig) Try(ctx context.Context, f Fault) ([]Measure, error) {
	if err := r.Steady(ctx, patience); err != nil {
		return nil, fmt.Errorf("before %s: %w", f.Name, err)
	}
	holder := r.Holder()
	if holder == nil {
		return nil, fmt.Errorf("before %s: nobody alone answers for the VIP", f.Name)
	}
	began := Now()
	if err := f.Strike(ctx, r.Stage, holder); err != nil {
		return nil, fmt.Errorf("%s of %s: %w", f.Name, holder.Name, err)
	}
	if err := r.settled(ctx, began, f); err != nil {
		return nil, err
	}
	ended := Now()
	measures := []Measure{r.Measure(f.Name, f.Promise, began, ended)}
	if f.Undo == nil {
		return measures, nil
	}
	if err := f.Undo(ctx, r.Stage, holder); err != nil {
		return measures, fmt.Errorf("%s of %s: %w", f.Back, holder.Name, err)
	}
	steady := r.Steady(ctx, patience)
	if err := pause(ctx, settle); err != nil {
		return measures, err
	}
	measures = append(measures, r.Measure(f.Name+": "+f.Back, f.Return, ended, Now()))
	if steady != nil {
		return measures, fmt.Errorf("%s, %s: %w", f.Name, f.Back, steady)
	}
	return measures, nil
}

// settled waits until the fault has lasted its time and service is back since a while.
func (r *Rig) settled(ctx context.Context, began Instant, f Fault) error {
	if err := pause(ctx, f.Lasts-Now().Sub(began)); err != nil {
		return err
	}
	for Now().Sub(began) < giveUp {
		now := Now()
		if now.Sub(began) > steadyFor && r.served(now.Add(-steadyFor), now) {
			break
		}
		if err := pause(ctx, poll); err != nil {
			return err
		}
	}
	if f.Lasts > 0 {
		return nil
	}
	return pause(ctx, settle)
}
