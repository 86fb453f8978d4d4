package proxy

import "github.com/prometheus/client_golang/prometheus"

var descMirrored = desc("http_mirrored_total", "Requests that were to be copied to the pool of mirror: ok, a whole answer came; failed, none did; dropped_busy, too many were under way; dropped_body, the body was too long or not known beforehand.", "route", "result")

func mirrorDescs() []*prometheus.Desc { return []*prometheus.Desc{descMirrored} }

// collectMirrors sends what became of the copies, of each route that has a mirror.
func collectMirrors(m sink, s *snapshot) {
	told := map[*routeCounters]bool{}
	for _, r := range s.routes {
		if r.mirror == nil || told[r.counters] {
			continue
		}
		told[r.counters] = true
		for i, word := range mirrorResults {
			m.counter(descMirrored, r.counters.mirror.results[i].Load(), r.counters.label, word)
		}
	}
}
