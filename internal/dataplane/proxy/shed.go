package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/overload"
)

var (
	descShedding = desc("overload_shedding", "1 while the node does not keep up, and takes on no more than it can.")
	descHeld     = desc("overload_refusals_waiting", "Refused exchanges whose answer waits.")
)

func shedDescs() []*prometheus.Desc { return []*prometheus.Desc{descShedding, descHeld} }

func (p *Plane) collectShed(m sink) {
	l := p.Load()
	m.gauge(descShedding, bit(l.Shedding))
	m.gauge(descHeld, float64(l.Waiting))
}

// Load is how this node copes with what it is asked for.
type Load struct {
	Shedding bool   // it refuses what it cannot do in time
	Waiting  int64  // refusals whose answer waits
	Refused  uint64 // exchanges, since the start
}

// Load returns how this node copes now.
func (p *Plane) Load() Load {
	return Load{p.gate.Shut(p.opt.Now()), p.gate.Held(), p.gate.Refused()}
}

// enter lets an exchange that wants a server in, or refuses it while the node does not
// keep up. What is answered here, health of this node among it, is not asked.
//
// The answer to a refusal waits a while: whoever is refused at once asks again at once,
// and refusing costs a good part of what serving does.
func (p *Plane) enter(x *dataplane.Exchange) dataplane.Verdict {
	switch {
	case x.Mark.Entered:
		return dataplane.Next
	case p.gate.Enter(p.headTime(x), x.Lag, x.Timed):
		x.Mark.Entered = true
		return dataplane.Next
	}
	x.Mark.Shed = true
	wait, ok := p.gate.Hold()
	if !ok {
		return p.refuse(x, "shed")
	}
	resume := x.Resume
	x.Mark.Place = p.refused.Wait(wait, func() {
		p.gate.Release()
		resume()
	})
	return dataplane.Wait
}

// unhold ends the wait of a refusal whose client is gone.
func (p *Plane) unhold(x *dataplane.Exchange) {
	if place, ok := x.Mark.Place.(*overload.Place); ok && place.Leave() {
		p.gate.Release()
	}
	x.Mark.Place = nil
}

// leave notes that the exchange's server has answered, or that there is none any more.
// What is left costs the time of others: a long download, a tunnel.
func (p *Plane) leave(x *dataplane.Exchange) {
	if x.Mark.Entered {
		x.Mark.Entered = false
		p.gate.Leave()
	}
}
