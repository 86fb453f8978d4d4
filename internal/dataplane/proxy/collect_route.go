package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane"
)

var (
	descRequests = desc("http_requests_total", "Requests that ended.", "listener", "route", "method", "code")
	descDuration = desc("http_request_duration_seconds", "From the first byte of a request to the end of its answer.", "route", "code_class")
	descOverhead = desc("http_overhead_seconds", "What this proxy adds: a request's time without waiting for servers and without long bodies.", "route")
	descInflight = desc("http_requests_inflight", "Requests in progress.", "route")
	descBytesIn  = desc("http_request_bytes_total", "Bytes received from clients.", "route")
	descBytesOut = desc("http_response_bytes_total", "Bytes sent to clients.", "route")
	descLocal    = desc("http_local_responses_total", "Answers made here.", "route", "code", "reason")
)

func routeDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descRequests, descDuration, descOverhead, descInflight, descBytesIn, descBytesOut, descLocal}
}

// collect sends what is counted by route; listeners are those that collectListeners
// returned.
func (c *routeCounters) collect(m sink, listeners []*listenerCounters) {
	m.gauge(descInflight, float64(c.inflight.Load()), c.label)
	m.counter(descBytesIn, c.in.Load(), c.label)
	m.counter(descBytesOut, c.out.Load(), c.label)
	m.histogram(descOverhead, &c.overhead, c.label)
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
		if i < len(listeners) && listeners[i] != nil {
			rc.collect(m, listeners[i].name, c.label)
		}
	}
}

// collect sends the requests of one route and listener. GET with 200 is there from the
// start, anything else from when it is first seen.
func (rc *requestCounters) collect(m sink, listener, route string) {
	if rc.byMethod[dataplane.GET].Load() == nil {
		m.counter(descRequests, 0, listener, route, "GET", "200")
	}
	for method := range rc.byMethod {
		counters := rc.byMethod[method].Load()
		if counters == nil {
			continue
		}
		for place := range counters {
			n := counters[place].Load()
			if n > 0 || codes[place] == 200 && method == int(dataplane.GET) {
				m.counter(descRequests, n, listener, route, methods[method], codeLabel(place))
			}
		}
	}
}
