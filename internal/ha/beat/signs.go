package beat

import (
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/detect"
	"proxyd/internal/ha/election"
)

// CarrierPath is the name under which the carriers beside the paths are shown.
const CarrierPath = "gossip"

// Signs implements ha.Mesh.
func (m *Mesh) Signs(of election.ID) ha.Signs {
	p := m.peer(of)
	if p == nil {
		return ha.Signs{}
	}
	now := m.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.signs.Stats()
	out := ha.Signs{
		Limit: detect.Limit(m.Heartbeat), Longest: s.LongestGap, NearMisses: s.NearMisses, Silences: s.Silences,
		Foreign: p.foreign.n >= foreignAfter && p.foreign.version == 0, Unreadable: p.foreign.n >= foreignAfter && p.foreign.version != 0,
	}
	for i, w := range p.ways {
		name := CarrierPath
		if i < len(m.Paths) {
			name = m.Paths[i].Name
		} else if len(m.carrier) == 0 {
			break
		}
		s := w.seen.Stats()
		path := ha.Path{Name: name, Age: -1, Longest: s.LongestGap, Silent: w.seen.Silent(now)}
		if i < len(m.Paths) {
			path.Loss = s.Loss()
		}
		if heard, known := w.seen.Heard(); known {
			path.Age = max(now.Sub(heard), 0)
		}
		out.Paths = append(out.Paths, path)
	}
	return out
}

// Thread is what there is to know of the heartbeat's own thread.
type Thread struct {
	RealTime bool
	Why      string        // it does not run in real time
	Late     time.Duration // the longest that it came too late
	Stalls   uint64        // times that it came more than two beats late
}

// Thread returns how the heartbeat's own thread fares.
func (m *Mesh) Thread() Thread {
	t := Thread{Late: time.Duration(m.thread.late.Load()), Stalls: m.thread.stalls.Load()}
	if why := m.thread.priority.Load(); why != nil {
		t.Why = *why
	}
	t.RealTime = t.Why == ""
	return t
}

// turns reports whether the election's loop has said something lately: a process whose
// loop stands still does not live, as far as others must know.
func (m *Mesh) turns() bool {
	turned := clock.Instant(m.turned.Load())
	return turned == 0 || m.Now().Sub(turned) < detect.Limit(m.Heartbeat)
}
