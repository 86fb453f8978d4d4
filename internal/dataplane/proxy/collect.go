package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane/upstream"
)

// The metrics of METRICS.md that the data plane has. They are kept as plain counters
// and turned into Prometheus' form when it asks.
var (
	descRequests    = desc("http_requests_total", "Requests that ended.", "listener", "route", "method", "code")
	descDuration    = desc("http_request_duration_seconds", "From the first byte of a request to the end of its answer.", "route", "code_class")
	descInflight    = desc("http_requests_inflight", "Requests in progress.", "route")
	descBytesIn     = desc("http_request_bytes_total", "Bytes received from clients.", "route")
	descBytesOut    = desc("http_response_bytes_total", "Bytes sent to clients.", "route")
	descLocal       = desc("http_local_responses_total", "Answers made here.", "route", "code", "reason")
	descMalformed   = desc("http_malformed_total", "Bytes that never became a request.", "listener", "reason")
	descConns       = desc("connections_open", "Open client connections.", "listener", "protocol")
	descConnLimit   = desc("connections_limit", "Client connections this node accepts at once.", "listener", "protocol")
	descConnsTotal  = desc("connections_total", "Client connections accepted.", "listener", "protocol")
	descConnsClosed = desc("connections_closed_total", "Client connections closed.", "reason")

	descUp           = desc("upstream_up", "1 if the server is given exchanges.", "pool", "server")
	descWeight       = desc("upstream_weight", "Weight of the server in its pool.", "pool", "server")
	descState        = desc("upstream_state", "1 for the state that the server is in.", "pool", "server", "state")
	descAttempts     = desc("upstream_requests_total", "Attempts by the class of their answer; error is none.", "pool", "server", "code_class")
	descResponse     = desc("upstream_response_seconds", "From the request's head sent to the answer's head read.", "pool", "server")
	descActive       = desc("upstream_requests_inflight", "Exchanges in progress.", "pool", "server")
	descConnects     = desc("upstream_connects_total", "Connections that attempts used.", "pool", "reused", "result")
	descRetries      = desc("upstream_retries_total", "Second and later attempts.", "pool", "result")
	descChecks       = desc("upstream_checks_total", "Active checks.", "pool", "server", "result")
	descEjections    = desc("upstream_ejections_total", "Times that failed exchanges left the server out.", "pool", "server", "reason")
	descConfig       = desc("config_info", "The configuration in force.", "cluster", "version", "hash")
	descReloadOK     = desc("config_last_reload_successful", "1 if the last configuration was taken.")
	descReloadTime   = desc("config_last_reload_timestamp_seconds", "When a configuration was last taken or refused.")
	descReloads      = desc("config_reloads_total", "Configurations by what became of them.", "result")
	descPanics       = desc("panics_total", "Panics that were caught.")
	descAccessDrops  = desc("access_log_dropped_total", "Log lines dropped because the output was too slow.")
	descAccessErrors = desc("access_log_errors_total", "Writes of the access log that failed.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("proxyd_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector. It sends nothing: which series there are
// follows the configuration.
func (p *Plane) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (p *Plane) Collect(out chan<- prometheus.Metric) {
	m := sink{out}
	p.collectListeners(m)
	s := p.current.Load()
	if s != nil {
		m.gauge(descConfig, 1, s.conf.Cluster.Name, strconv.FormatUint(s.generation, 10), s.conf.Hash)
		listeners := p.listeners.list()
		for _, c := range s.counters {
			c.collect(m, listeners)
		}
		for name, pool := range s.pools {
			collectPool(m, name, pool)
		}
	}
	m.gauge(descReloadOK, bit(p.reloads.ok.Load()))
	m.gauge(descReloadTime, float64(p.reloads.at.Load())/1e9)
	m.counter(descReloads, p.reloads.taken.Load(), "ok")
	m.counter(descReloads, p.reloads.refused.Load(), "invalid")
	m.counter(descPanics, p.panics.Load())
	m.counter(descAccessDrops, p.access.dropped.Load())
	m.counter(descAccessErrors, p.access.failed.Load())
}

func (p *Plane) collectListeners(m sink) {
	var limit int
	if s := p.current.Load(); s != nil {
		limit = s.conf.Limits.Conns
	}
	var refused, closed uint64
	for _, l := range p.listeners.list() {
		open := l.open.Load()
		accepted := l.accepted.Load()
		m.gauge(descConns, float64(open), l.name, "http1")
		m.gauge(descConnLimit, float64(limit), l.name, "http1")
		m.counter(descConnsTotal, accepted, l.name, "http1")
		refused += l.refused.Load()
		closed += accepted - min(accepted, uint64(max(open, 0)))
		l.malformed.each(func(word string, n uint64) { m.counter(descMalformed, n, l.name, word) })
	}
	m.counter(descConnsClosed, refused, "limit")
	m.counter(descConnsClosed, closed, "done")
}

func (c *routeCounters) collect(m sink, listeners []*listenerCounters) {
	m.gauge(descInflight, float64(c.inflight.Load()), c.label)
	m.counter(descBytesIn, c.in.Load(), c.label)
	m.counter(descBytesOut, c.out.Load(), c.label)
	for class := range c.duration {
		// A route has a series for each class that it has seen, and for 2xx always.
		if class == 2 || !c.duration[class].Empty() {
			m.histogram(descDuration, &c.duration[class], c.label, classes[class])
		}
	}
	for i := range causes {
		n, status := c.local[i].Load(), int64(causes[i].status)
		if status == 0 {
			status = c.statuses[i].Load()
		}
		if n > 0 || causes[i].alarming {
			m.counter(descLocal, n, c.label, strconv.FormatInt(status, 10), causes[i].word)
		}
	}
	for i, rc := range *c.requests.Load() {
		if i >= len(listeners) {
			break
		}
		if rc.byMethod[1].Load() == nil { // GET is there from the start
			m.counter(descRequests, 0, listeners[i].name, c.label, "GET", "200")
		}
		for method := range rc.byMethod {
			counters := rc.byMethod[method].Load()
			if counters == nil {
				continue
			}
			for code := range counters {
				if n := counters[code].Load(); n > 0 || codes[code] == 200 {
					m.counter(descRequests, n, listeners[i].name, c.label, methods[method], codeLabel(code))
				}
			}
		}
	}
}

func codeLabel(index int) string {
	if index == 0 {
		return "other"
	}
	return strconv.Itoa(codes[index])
}

func collectPool(m sink, name string, p *upstream.Pool) {
	for _, s := range p.Servers() {
		state, _ := s.State()
		weight, _ := p.Weight(s)
		m.gauge(descUp, bit(state == "up"), name, s.Name)
		m.gauge(descWeight, float64(weight), name, s.Name)
		for _, word := range []string{"up", "down", "ejected"} {
			m.gauge(descState, bit(state == word), name, s.Name, word)
		}
		for class := range s.Requests {
			label := classes[class]
			if class == 0 {
				label = "error"
			}
			m.counter(descAttempts, s.Requests[class].Load(), name, s.Name, label)
		}
		m.histogram(descResponse, &s.Response, name, s.Name)
		m.gauge(descActive, float64(s.Active.Load()), name, s.Name)
		m.counter(descChecks, s.Checks[upstream.CheckPassed].Load(), name, s.Name, "ok")
		m.counter(descChecks, s.Checks[upstream.CheckFailed].Load(), name, s.Name, "failed")
		m.counter(descEjections, s.Ejected.Load(), name, s.Name, "passive")
	}
	m.counter(descConnects, p.Reused.Load(), name, "true", "ok")
	m.counter(descConnects, p.Connects[upstream.ConnectOK].Load(), name, "false", "ok")
	m.counter(descConnects, p.Connects[upstream.ConnectFailed].Load(), name, "false", "failed")
	m.counter(descConnects, p.Connects[upstream.ConnectTimedOut].Load(), name, "false", "timeout")
	m.counter(descRetries, p.Retries[upstream.RetryOK].Load(), name, "ok")
	m.counter(descRetries, p.Retries[upstream.RetryFailed].Load(), name, "failed")
	m.counter(descRetries, p.Retries[upstream.RetryOverBudget].Load(), name, "budget_exhausted")
}

// A sink makes Prometheus' metrics of numbers.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) histogram(d *prometheus.Desc, h *upstream.Histogram, labels ...string) {
	count, sum, buckets := h.Read()
	s.out <- prometheus.MustNewConstHistogram(d, count, sum, buckets, labels...)
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
