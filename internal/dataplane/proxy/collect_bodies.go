package proxy

import "github.com/prometheus/client_golang/prometheus"

var (
	descBodiesHeld  = desc("http_bodies_held_bytes", "Bytes of request bodies that are held in memory for buffer, request_framing and mirror.")
	descBodiesLimit = desc("http_bodies_held_limit_bytes", "Bytes of request bodies that may be held at once: limits.held.")
)

func bodyDescs() []*prometheus.Desc { return []*prometheus.Desc{descBodiesHeld, descBodiesLimit} }

// collectBodies sends what is counted of bodies in memory.
func (p *Plane) collectBodies(m sink) {
	m.gauge(descBodiesHeld, float64(p.room.Taken()))
	m.gauge(descBodiesLimit, float64(p.room.Limit()))
}
