package main

import (
	"context"
	"strings"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/control"
	"proxyd/internal/doctor"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/history"
	"proxyd/internal/track"
)

// fitEvery is how often this node is asked whether it could serve.
const fitEvery = 500 * time.Millisecond

// firstLook is for how long a process that has just begun says nothing of its fitness while a
// track was not looked at yet: what the process before it knew holds meanwhile.
const firstLook = 2 * time.Second

// newTracks makes what looks after [[track]]. It tracks nothing yet.
func (n *node) newTracks() *track.Set {
	return track.New(track.Options{
		Log:   n.log,
		Pool:  func(name string) string { return n.plane.Lost(name) },
		Holds: n.holds,
		OnChange: func(s track.State) {
			text := "track " + s.Name + " is good"
			if !s.Up {
				text = "track " + s.Name + " has failed: " + s.Reason
			}
			n.record.note(history.Entry{Kind: history.Track, Reason: s.Name, Text: text})
		},
	})
}

// holds reports whether this node holds an address.
func (n *node) holds() bool {
	k, _, _ := n.part()
	if k == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), fitEvery)
	defer cancel()
	v, err := k.node.Status(ctx)
	for _, vv := range v.VIPs {
		if vv.Here {
			return true
		}
	}
	return err != nil // it is not known: nothing is to move by haste
}

// watchFitness tells the election how fit this node is, until ctx ends.
func (k *cluster) watchFitness(ctx context.Context, n *node) {
	patience := time.Now().Add(firstLook)
	for {
		k.mendFences()
		ill, why := fitness(k.unable(ctx, n), n.tracks.Burden())
		if ctx.Err() != nil {
			return
		}
		if n.tracks.Known() || time.Now().After(patience) {
			k.node.SetIll(ill, why)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(clock.Next(fitEvery)):
		case <-k.links:
		case <-n.tracks.Changed():
		}
	}
}

// mendFences puts back what silences the addresses where somebody else took it away: whoever
// loads a firewall anew mostly begins by flushing all there is. While it cannot be put back
// the status says so.
func (k *cluster) mendFences() {
	for name, d := range k.devices {
		had, err := d.MendFence()
		switch {
		case err != nil:
			k.log.Debug("the fence cannot be put back", "interface", name, "error", err)
		case had:
			k.log.Warn("the fence was taken away by somebody else; put back", "interface", name)
			k.record.note(history.Entry{Kind: history.Repair, Text: "the fence of " + name + " was taken away by somebody else"})
		}
	}
}

// fitness is how ill a node is that is unable to serve ("" if it is not) and bears what its
// tracks found, and why.
func fitness(unable string, b track.Burden) (election.Ill, string) {
	ill := election.Ill(min(b.Less, int(ha.Unwell)-1))
	if unable != "" || b.Veto {
		ill += ha.Unwell
	}
	reasons := b.Reasons
	if unable != "" {
		reasons = append([]string{unable}, reasons...)
	}
	return ill, strings.Join(reasons, "; ")
}

// unfit says why this node is unfit, as all nodes see it; "" if it is not, or if the loop that
// knows is busy.
func (k *cluster) unfit() string {
	ctx, cancel := context.WithTimeout(context.Background(), fitEvery)
	defer cancel()
	v, err := k.node.Status(ctx)
	if err != nil || v.Nodes[0].State != ha.Unfit {
		return ""
	}
	return v.Nodes[0].Reason
}

// unable says why this node could not serve: its address or a link is gone, it crashes in a loop, or its own
// listeners do not answer. "" if it could.
func (k *cluster) unable(ctx context.Context, n *node) string {
	if err := k.lost(); err != nil {
		return err.Error()
	}
	for name, d := range k.devices {
		if up, err := d.Up(); err != nil {
			return err.Error()
		} else if !up {
			return "interface " + name + " is down"
		}
	}
	if why := n.lives.rests(time.Now()); why != "" {
		return why
	}
	if k.now().config.Cluster.Witness {
		return "" // it serves nobody
	}
	// Twice the interval: on a busy machine an answer may be late without being absent.
	ask, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := n.plane.Probe(ask); err != nil {
		return err.Error()
	}
	return ""
}

// trackStatus lists the tracks of this node.
func (n *node) trackStatus() []control.TrackStatus {
	out := []control.TrackStatus{}
	for _, s := range n.tracks.States() {
		v := control.TrackStatus{Name: s.Name, Kind: s.Kind, State: "up", Weight: -s.Weight.Less, Veto: s.Weight.Veto, Since: s.Since, Reason: s.Reason}
		switch {
		case !s.Known:
			v.State = "unknown"
		case !s.Up:
			v.State = "failed"
		}
		out = append(out, v)
	}
	return out
}

// tracked judges what the tracks of this node say.
func tracked(all []track.State) []doctor.Finding {
	var out []doctor.Finding
	for _, s := range all {
		f := doctor.Finding{Check: "track", About: s.Name, Level: doctor.OK, What: "it is good"}
		switch {
		case !s.Known:
			f.What = "it was not looked at yet"
		case s.Up && s.Reason != "":
			f.What = "it is good; the latest look failed: " + s.Reason
		case !s.Up:
			f.Level, f.What, f.Cure = doctor.Warn, "it has failed: "+s.Reason, "mend what it looks at (docs/FITNESS.md)"
			f.Why = "another node is preferred to this one"
			if s.Weight.Veto {
				f.Level, f.Why = doctor.Fail, "this node holds only where no other is fit"
			}
		}
		out = append(out, f)
	}
	return out
}
