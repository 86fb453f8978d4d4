package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// A Soak plays faults in random order for a long time and watches what must never be: two
// hosts that answer for the VIP, or none, while nothing is broken.
type Soak struct {
	Plan   Plan
	Faults []Fault
	For    time.Duration
	Seed   uint64    // of the order
	Keep   string    // directory for logs and configurations if anything goes wrong, or ""
	Out    io.Writer // progress
}

// SoakFaults returns what a soak plays: all that is over in seconds.
func SoakFaults() []Fault {
	var out []Fault
	for _, f := range Faults() {
		switch f.Key {
		case "reload", "deploy", "downgrade": // they are drills of a minute each
		case "freeze":
			f.Name, f.Lasts = "SIGSTOP 3 s", 3*time.Second
			out = append(out, f)
		default:
			out = append(out, f)
		}
	}
	return out
}

// ErrPromise is in the error of a soak that ran to its end with a promise broken.
var ErrPromise = errors.New("promised")

// longestQuiet is how long a soak leaves the cluster alone between two faults.
const longestQuiet = 5 * time.Second

// Run plays until the time is over, or until a stage does not become well again. Every
// promise that was broken by more than a busy machine explains is in the error.
func (k Soak) Run(ctx context.Context) (measures []Measure, err error) {
	rig, err := NewRig(k.Plan, DrillLoad())
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	defer func() {
		if err != nil && k.Keep != "" {
			err = errors.Join(err, rig.Stage.Keep(k.Keep))
		}
	}()
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return nil, err
	}
	if err := rig.Steady(ctx, patience); err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(k.Seed, 0))
	var broken error
	note := func(m Measure) {
		measures = append(measures, m)
		fmt.Fprintln(k.Out, m)
		if !m.Within(single) {
			broken = errors.Join(broken, fmt.Errorf("%s: more than %d times what is %w", m.Event, single, ErrPromise))
		}
	}
	for end := Now().Add(k.For); Now() < end; {
		from := Now()
		if err := pause(ctx, time.Duration(random.Int64N(int64(longestQuiet)))); err != nil {
			return measures, broken // the time of whoever asked is over
		}
		note(rig.Measure("nothing happens", Promise{Outage: 100 * time.Millisecond, Failed: 0, Two: 0}, from, Now()))
		ms, err := rig.Try(ctx, k.Faults[random.IntN(len(k.Faults))])
		for _, m := range ms {
			note(m)
		}
		if ctx.Err() != nil {
			return measures, broken
		}
		if err != nil {
			return measures, fmt.Errorf("%w (before that: %v)", err, broken)
		}
	}
	return measures, broken
}
