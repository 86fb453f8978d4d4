package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane/upstream"
)

var (
	descUp        = desc("upstream_up", "1 if the server is given exchanges.", "pool", "server")
	descWeight    = desc("upstream_weight", "Weight of the server that counts now: 0 if it is not chosen, less than its own in a slow start.", "pool", "server")
	descQueue     = desc("upstream_queue_length", "Exchanges that wait for a place on a server.", "pool")
	descQueued    = desc("upstream_queue_seconds", "How long exchanges waited for a place, whether they got one or not.", "pool")
	descState     = desc("upstream_state", "1 for the state that the server is in.", "pool", "server", "state")
	descAttempts  = desc("upstream_requests_total", "Attempts by the class of their answer; error is none.", "pool", "server", "code_class")
	descResponse  = desc("upstream_response_seconds", "From the request's head sent to the answer's head read.", "pool", "server")
	descConnect   = desc("upstream_connect_seconds", "How long it took until a new connection stood.", "pool", "server")
	descActive    = desc("upstream_requests_inflight", "Exchanges in progress.", "pool", "server")
	descServConns = desc("upstream_connections_open", "Open connections to the server, idle ones included.", "pool", "server")
	descPanic     = desc("upstream_panic", "1 while no server of the pool is up, so that any is tried.", "pool")
	descPanicked  = desc("upstream_panic_requests_total", "Attempts on any server, since none was up.", "pool")
	descConnects  = desc("upstream_connects_total", "Connections that attempts used.", "pool", "reused", "result")
	descRetries   = desc("upstream_retries_total", "Second and later attempts.", "pool", "result")
	descChecks    = desc("upstream_checks_total", "Active checks.", "pool", "server", "result")
	descCheckTime = desc("upstream_check_seconds", "How long active checks took.", "pool", "server")
	descSealed    = desc("upstream_tls_handshakes_total", "TLS handshakes with the server.", "pool", "server", "resumed", "result")
	descEjections = desc("upstream_ejections_total", "Times that a server was left out.", "pool", "server", "reason")
)

func poolDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descUp, descWeight, descQueue, descQueued, descState, descAttempts, descResponse, descConnect, descActive, descServConns,
		descPanic, descPanicked, descConnects, descRetries, descChecks, descCheckTime, descEjections, descSealed}
}

// collectPool sends what is counted by pool and server.
func collectPool(m sink, name string, p *upstream.Pool) {
	now := time.Now()
	m.gauge(descQueue, float64(p.QueueLength()), name)
	if p.Config.Queue != nil {
		m.histogram(descQueued, &p.Queued, name)
	}
	for _, s := range p.Servers() {
		weight, _ := p.Weight(s)
		m.gauge(descWeight, float64(weight)*float64(p.Share(s, now))/100, name, s.Name)
		collectServer(m, name, s)
		if p.Config.Check != nil {
			m.histogram(descCheckTime, &s.CheckTime, name, s.Name)
		}
		if p.Secure() != nil {
			m.counter(descSealed, s.Shakes[upstream.ShakeFull].Load(), name, s.Name, "false", "ok")
			m.counter(descSealed, s.Shakes[upstream.ShakeResumed].Load(), name, s.Name, "true", "ok")
			m.counter(descSealed, s.Shakes[upstream.ShakeFailed].Load(), name, s.Name, "false", "failed")
		}
	}
	m.gauge(descPanic, bit(p.Panicking(now)), name)
	m.counter(descPanicked, p.Panics.Load(), name)
	m.counter(descConnects, p.Reused.Load(), name, "true", "ok")
	m.counter(descConnects, p.Connects[upstream.ConnectOK].Load(), name, "false", "ok")
	m.counter(descConnects, p.Connects[upstream.ConnectFailed].Load(), name, "false", "failed")
	m.counter(descConnects, p.Connects[upstream.ConnectTimedOut].Load(), name, "false", "timeout")
	m.counter(descRetries, p.Retries[upstream.RetryOK].Load(), name, "ok")
	m.counter(descRetries, p.Retries[upstream.RetryFailed].Load(), name, "failed")
	m.counter(descRetries, p.Retries[upstream.RetryOverBudget].Load(), name, "budget_exhausted")
}

func collectServer(m sink, pool string, s *upstream.Server) {
	state, _ := s.State()
	m.gauge(descUp, bit(state == "up"), pool, s.Name)
	for _, word := range []string{"up", "down", "ejected", "open", "half-open", "drain", "maint"} {
		m.gauge(descState, bit(state == word), pool, s.Name, word)
	}
	for class := range s.Requests {
		label := classes[class]
		if class == 0 {
			label = "error"
		}
		m.counter(descAttempts, s.Requests[class].Load(), pool, s.Name, label)
	}
	m.histogram(descResponse, &s.Response, pool, s.Name)
	m.histogram(descConnect, &s.Connect, pool, s.Name)
	m.gauge(descActive, float64(s.Active.Load()), pool, s.Name)
	m.gauge(descServConns, float64(s.Conns.Load()), pool, s.Name)
	m.counter(descChecks, s.Checks[upstream.CheckPassed].Load(), pool, s.Name, "ok")
	m.counter(descChecks, s.Checks[upstream.CheckFailed].Load(), pool, s.Name, "failed")
	m.counter(descEjections, s.Ejections[upstream.LeftOut].Load(), pool, s.Name, "passive")
	m.counter(descEjections, s.Ejections[upstream.Ejected].Load(), pool, s.Name, "outlier")
	m.counter(descEjections, s.Ejections[upstream.Opened].Load(), pool, s.Name, "breaker")
}
