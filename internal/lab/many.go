package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"
)

// A Many drill moves many VIPs at once, each with an election of its own, and measures how
// long the last of them takes: when their holder is killed, and when it is told to hand
// them over. A VIP has moved when the new holder has announced it, which is when its
// neighbours send there.
type Many struct {
	Plan   Plan
	Rounds int // of each kind
	VIPs   int // 0: 50
	Out    io.Writer
}

// manyPromise is how long the last of 50 VIPs may take, the median of the rounds.
const manyPromise = 50 * time.Millisecond

// ManyMoved is what one move of many VIPs showed.
type ManyMoved struct {
	How   string
	Took  []time.Duration // from the event to the announcement, for each VIP; sorted
	Two   time.Duration   // longest in which two hosts answered for one of them
	Stray []netip.Addr    // VIPs that the new holder has not, two seconds later
}

// Run plays both kinds in turns.
func (m Many) Run(ctx context.Context) error {
	m.Rounds, m.VIPs = cmp.Or(m.Rounds, 10), cmp.Or(m.VIPs, 50)
	m.Plan.More = m.VIPs - 1
	rig, err := NewRig(m.Plan, LoadSpec{Rate: 100, Deadline: time.Second})
	if err != nil {
		return err
	}
	defer rig.Close()
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return err
	}
	var moves []ManyMoved
	for range m.Rounds {
		for _, how := range []string{"kill -9", "hand-over"} {
			r, err := m.move(ctx, rig, how)
			if err != nil {
				return errors.Join(err, m.report(moves))
			}
			fmt.Fprintln(m.Out, r)
			moves = append(moves, r)
		}
	}
	return m.report(moves)
}

func (m Many) move(ctx context.Context, rig *Rig, how string) (r ManyMoved, err error) {
	s := rig.Stage
	holder, err := m.together(ctx, rig)
	if err != nil {
		return r, fmt.Errorf("before %s: %w", how, err)
	}
	other := s.Other(holder)
	began := Now()
	if how == "kill -9" {
		err = holder.Kill()
	} else {
		err = handOver(ctx, holder, other)
	}
	if err == nil {
		err = pause(ctx, settle)
	}
	if err != nil {
		return r, fmt.Errorf("%s: %w", how, err)
	}
	r = seenOfMany(rig.Watch, append([]netip.Addr{s.VIP}, s.More...), other.Name, began, Now())
	r.How = how
	return r, s.Mend()
}

// together waits until one node has every VIP, and asks for it where they are divided.
func (m Many) together(ctx context.Context, rig *Rig) (*Node, error) {
	if err := rig.Steady(ctx, patience); err != nil {
		return nil, err
	}
	holder := rig.Holder()
	if holder == nil {
		return nil, fmt.Errorf("nobody alone answers for %s", rig.Stage.VIP)
	}
	err := within(ctx, patience, "all VIPs at "+holder.Name, func() (bool, error) {
		st, err := holder.Status(ctx)
		if err != nil {
			return false, notYet{err}
		}
		for _, v := range st.VIPs {
			if v.Holder == nil || *v.Holder != holder.Name {
				_ = handOver(ctx, rig.Stage.Other(holder), holder) // looked at again
				return false, notYet{fmt.Errorf("%s is elsewhere", v.Name)}
			}
		}
		return st.Health == "healthy", nil
	})
	if err != nil {
		return nil, err
	}
	return holder, pause(ctx, settle) // after a start that is young
}

// seenOfMany reads what the watcher saw between two instants of VIPs that went to a host.
func seenOfMany(w *Watcher, vips []netip.Addr, to string, from, until Instant) (r ManyMoved) {
	for _, v := range vips {
		r.Two = max(r.Two, TwoHeld(w.AsksFor(v, from, until)))
		all := w.Announcements(v, from, until)
		i := slices.IndexFunc(all, func(a Announcement) bool { return a.By == to })
		if i < 0 || !slices.Equal(SeenBy(w.AsksFor(v, until.Add(-settle/2), until)), []string{to}) {
			r.Stray = append(r.Stray, v)
			continue
		}
		r.Took = append(r.Took, all[i].At.Sub(from))
	}
	slices.Sort(r.Took)
	return r
}

// part is when so many of a hundred VIPs that moved had done so.
func (r ManyMoved) part(percent int) time.Duration {
	if len(r.Took) == 0 {
		return 0
	}
	return r.Took[(len(r.Took)-1)*percent/100]
}

// String is one line about the move.
func (r ManyMoved) String() string {
	line := fmt.Sprintf("%-10s %d VIPs: first %s, half %s, last %s, two at once %s", r.How, len(r.Took)+len(r.Stray),
		show(r.part(0)), show(r.part(50)), show(r.part(100)), show(r.Two))
	if len(r.Stray) > 0 {
		line += fmt.Sprintf(", NOT MOVED: %v", r.Stray)
	}
	return line
}

// report prints the table, and returns an error if a promise was not kept.
func (m Many) report(moves []ManyMoved) error {
	t := Table{Head: []string{"event", "VIPs", "runs", "first", "half", "last", "last, max", "promise", "two at once", "not moved"}}
	var broken []error
	for _, how := range []string{"kill -9", "hand-over"} {
		var first, half, last []time.Duration
		two, stray := time.Duration(0), 0
		for _, r := range moves {
			if r.How != how {
				continue
			}
			two, stray = max(two, r.Two), stray+len(r.Stray)
			if len(r.Took) == 0 {
				continue // none moved, and that is counted
			}
			first, half, last = append(first, r.part(0)), append(half, r.part(50)), append(last, r.part(100))
		}
		if stray > 0 {
			broken = append(broken, fmt.Errorf("%s: %d VIPs did not go to the other node", how, stray))
		}
		if len(last) == 0 {
			continue
		}
		t.Add(how, fmt.Sprint(m.VIPs), fmt.Sprint(len(last)), show(Median(first)), show(Median(half)), show(Median(last)), show(slices.Max(last)),
			"< "+show(manyPromise), show(two), fmt.Sprint(stray))
		if Median(last) > manyPromise {
			broken = append(broken, fmt.Errorf("%s: the last of %d VIPs took %s: %w less than %s", how, m.VIPs, show(Median(last)), ErrPromise, show(manyPromise)))
		}
	}
	return errors.Join(append(broken, t.WriteText(m.Out))...)
}
