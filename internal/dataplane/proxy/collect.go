package proxy

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics that the data plane has are kept as plain counters and turned into
// Prometheus' form when it asks. Each file collect_*.go has the names of one part, the
// list of them for Describe, and the way from the counters to the series. What is in no
// list makes a scrape fail in the tests.
var (
	descConfig       = desc("config_info", "The configuration in force.", "cluster", "version", "hash")
	descReloadOK     = desc("config_last_reload_successful", "1 if the last configuration was taken.")
	descReloadTime   = desc("config_last_reload_timestamp_seconds", "When a configuration was last taken or refused.")
	descReloads      = desc("config_reloads_total", "Configurations by what became of them.", "result")
	descPanics       = desc("panics_total", "Panics that were caught.")
	descAccessLines  = desc("access_log_lines_total", "Lines of the access log that were written.")
	descAccessDrops  = desc("access_log_dropped_total", "Lines of the access log that were not: queue, the output was too slow; output, it refused them.", "reason")
	descSpans        = desc("trace_spans_total", "Spans by what became of them: sent, failed (the collector did not take them), dropped (no room, or turned off).", "result")
	descAccessErrors = desc("access_log_errors_total", "Writes of the access log that failed.")
)

func processDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descConfig, descReloadOK, descReloadTime, descReloads, descPanics,
		descAccessLines, descAccessDrops, descAccessErrors, descSpans}
}

// Describe implements prometheus.Collector.
func (p *Plane) Describe(out chan<- *prometheus.Desc) {
	for _, descs := range [][]*prometheus.Desc{processDescs(), listenerDescs(), tlsDescs(), routeDescs(), poolDescs(), compressDescs(), bodyDescs(), shedDescs(), mirrorDescs()} {
		for _, d := range descs {
			out <- d
		}
	}
}

// Collect implements prometheus.Collector. Series follow the configuration: those of a
// route, pool or server that is gone are gone.
func (p *Plane) Collect(out chan<- prometheus.Metric) {
	m := sink{out}
	if s := p.current.Load(); s != nil {
		m.gauge(descConfig, 1, s.conf.Cluster.Name, strconv.FormatUint(s.generation, 10), s.conf.Hash)
		listeners := p.collectListeners(m, s)
		for _, c := range s.counters {
			c.collect(m, listeners)
		}
		collectMirrors(m, s)
		for name, pool := range s.pools {
			collectPool(m, name, pool)
		}
	}
	p.collectCerts(m)
	collectCompress(m, &p.coders)
	p.collectShed(m)
	m.gauge(descReloadOK, bit(p.reloads.ok.Load()))
	m.gauge(descReloadTime, float64(p.reloads.at.Load())/1e9)
	m.counter(descReloads, p.reloads.taken.Load(), "ok")
	m.counter(descReloads, p.reloads.refused.Load(), "invalid")
	m.counter(descReloads, p.reloads.undone.Load(), "rolled_back")
	m.counter(descPanics, p.panics.Load())
	m.counter(descAccessLines, p.access.Written.Load())
	m.counter(descAccessDrops, p.access.Dropped.Load(), "queue")
	m.counter(descAccessDrops, p.access.Lost.Load(), "output")
	m.counter(descAccessErrors, p.access.Failed.Load())
	m.counter(descSpans, p.spans.Sent.Load(), "sent")
	m.counter(descSpans, p.spans.Failed.Load(), "failed")
	m.counter(descSpans, p.spans.Dropped.Load(), "dropped")
	p.collectBodies(m)
}
