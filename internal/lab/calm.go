package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Calm drill does nothing to a pair, and measures what the nodes take of a processor
// while no client asks anything.
type Calm struct {
	Plan Plan
	For  time.Duration // 0: 30 s
	Out  io.Writer
}

// calmPromises is what an idle node may take of one core, by timing preset.
var calmPromises = []struct {
	timing string
	share  float64
}{{"fast", 0.03}, {"normal", 0.02}, {"slow", 0.02}}

// Run measures each preset, or the one of the plan.
func (c Calm) Run(ctx context.Context) error {
	t := Table{Head: []string{"timing", "node", "of a core", "promise", "switches/s"}}
	var broken []error
	for _, p := range calmPromises {
		if c.Plan.Timing != "" && c.Plan.Timing != p.timing {
			continue
		}
		used, err := c.measure(ctx, p.timing)
		if err != nil {
			return errors.Join(err, t.WriteText(c.Out))
		}
		for _, u := range used {
			t.Add(p.timing, u.node, fmt.Sprintf("%.2f %%", 100*u.share), fmt.Sprintf("< %.0f %%", 100*p.share), fmt.Sprintf("%.0f", u.switches))
			if u.share > p.share {
				broken = append(broken, fmt.Errorf("%s, %s: %.2f %% of a core: %w less than %.0f %%", p.timing, u.node, 100*u.share, ErrPromise, 100*p.share))
			}
		}
	}
	return errors.Join(append(broken, t.WriteText(c.Out))...)
}

// An idleUse is what an idle node took.
type idleUse struct {
	node     string
	share    float64 // of one core
	switches float64 // of its threads, a second
}

func (c Calm) measure(ctx context.Context, timing string) (all []idleUse, err error) {
	p := c.Plan
	p.Timing = timing
	s, err := NewStage(p)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := s.Start(ctx, patience); err != nil {
		return nil, err
	}
	if err := pause(ctx, 10*time.Second); err != nil { // until the nodes know each other well
		return nil, err
	}
	before := map[string]taken{}
	began := Now()
	for _, n := range s.Nodes {
		if before[n.Name], err = takenBy(n.PID()); err != nil {
			return nil, err
		}
	}
	if err := pause(ctx, cmp.Or(c.For, 30*time.Second)); err != nil {
		return nil, err
	}
	for _, n := range s.Nodes {
		after, err := takenBy(n.PID())
		if err != nil {
			return nil, err
		}
		took := Now().Sub(began).Seconds()
		b := before[n.Name]
		all = append(all, idleUse{n.Name, (after.cpu - b.cpu).Seconds() / took, float64(after.switches-b.switches) / took})
	}
	return all, nil
}
