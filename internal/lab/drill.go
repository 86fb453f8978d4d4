package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// A Drill plays faults again and again on one stage and sums up what they did.
type Drill struct {
	Plan   Plan
	Faults []Fault
	Rounds int
	Keep   string    // directory for logs and configurations if anything goes wrong, or ""
	Out    io.Writer // progress
}

// ShortFaults returns what CI plays in every build.
func ShortFaults() []Fault {
	var out []Fault
	for _, f := range Faults() {
		switch f.Key {
		case "freeze":
			f.Name, f.Lasts = "SIGSTOP 3 s", 3*time.Second
			out = append(out, f)
		case "handover", "kill", "cut":
			out = append(out, f)
		}
	}
	return out
}

// Run plays all rounds. Every round has each fault once, so that noise of the machine
// spreads over all of them. The measures are returned also with an error.
func (d Drill) Run(ctx context.Context) (measures []Measure, err error) {
	load := DrillLoad()
	if d.Plan.Six {
		load.Target = netip.AddrPortFrom(address6(vipOctet).Addr(), 80).String()
	}
	rig, err := NewRig(d.Plan, load)
	if err != nil {
		return nil, err
	}
	defer rig.Close()
	defer func() {
		if err != nil && d.Keep != "" {
			err = errors.Join(err, rig.Stage.Keep(d.Keep))
		}
	}()
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return nil, err
	}
	var failed error
	for round := range d.Rounds {
		for _, f := range d.Faults {
			ms, err := rig.Try(ctx, f)
			measures = append(measures, ms...)
			for _, m := range ms {
				fmt.Fprintf(d.Out, "%d/%d  %s\n", round+1, d.Rounds, m)
			}
			if err == nil {
				continue
			}
			failed = errors.Join(failed, fmt.Errorf("round %d: %w", round+1, err))
			fmt.Fprintf(d.Out, "%d/%d  %v\n", round+1, d.Rounds, err)
			// One fault that cannot be played must not hide what the others do.
			if err := rig.Stage.Mend(); err != nil || ctx.Err() != nil {
				return measures, errors.Join(failed, err)
			}
		}
	}
	return measures, failed
}

// String is one line about the event.
func (m Measure) String() string {
	verdict := ""
	if !m.Within(1) {
		verdict = "  (over its promise)"
	}
	// Shorter stalls are what a busy machine does all the time.
	if m.Stall > 20*time.Millisecond {
		verdict += fmt.Sprintf("  (the client stood still for %s)", show(m.Stall))
	}
	after := m.After
	if after == "" {
		after = "none or two"
	}
	return fmt.Sprintf("%-34s outage %-8s failed %-4d two at once %-8s holder %s%s", m.Event, show(m.Outage), m.FailedAll(), show(m.Two), after, verdict)
}
