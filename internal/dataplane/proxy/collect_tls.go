package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	descShakes = desc("tls_handshakes_total", "TLS handshakes by how they went: ok; limit, too many were under way; timeout; client, it gave up; client_cert, it had none or a bad one; drain; cleartext, HTTP without TLS; error, no TLS or nothing in common.",
		"listener", "version", "resumed", "result")
	descShakeTime = desc("tls_handshake_seconds", "How long good TLS handshakes took, from the connection's start.", "listener")
	descCertEnd   = desc("tls_certificate_not_after_timestamp_seconds", "When a certificate in use ends.", "subject", "serial", "source")
	descCertFault = desc("tls_certificate_fault", "1 if the files of a certificate have changed and are not good, so that the one before serves on.", "subject", "source")
)

func tlsDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descShakes, descShakeTime, descCertEnd, descCertFault}
}

// collectShakes sends what is counted of the handshakes of one listener.
func collectShakes(m sink, l *listenerCounters) {
	c := &l.shaken
	for i, version := range tlsVersions {
		m.counter(descShakes, c.good[i][0].Load(), l.name, version, "false", "ok")
		m.counter(descShakes, c.good[i][1].Load(), l.name, version, "true", "ok")
	}
	for i, result := range shakeResults {
		m.counter(descShakes, c.refused[i].Load(), l.name, "", "false", result)
	}
	m.histogram(descShakeTime, &c.took, l.name)
}

// collectCerts sends what is known of the certificates in use. One that is in two files is
// one series.
func (p *Plane) collectCerts(m sink) {
	seen, told := map[[2]string]bool{}, map[string]bool{}
	faults := map[string]float64{}
	for _, c := range p.tls.certs.Set().All() {
		if p.tls.certs.Fault(c) != "" {
			faults[c.Subject] = 1
		}
	}
	for _, c := range p.tls.certs.Set().All() {
		if id := [2]string{c.Subject, c.Serial}; !seen[id] {
			seen[id] = true
			m.gauge(descCertEnd, float64(c.NotAfter.Unix()), c.Subject, c.Serial, c.Source())
		}
		if !told[c.Subject] {
			told[c.Subject] = true
			m.gauge(descCertFault, faults[c.Subject], c.Subject, c.Source())
		}
	}
}
