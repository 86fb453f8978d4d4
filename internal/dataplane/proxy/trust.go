package proxy

import (
	"context"
	"time"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane/upstream"
)

// trustOf reads the files by which servers and clients are believed, and those that servers
// are shown. A witness serves nobody, and need not have them.
func trustOf(c *config.Config, disk cert.Disk) (*cert.Trust, error) {
	var roots []string
	var pairs []cert.Pair
	for _, pool := range c.Pool {
		if t := pool.TLS; t != nil && !t.Off && !c.Cluster.Witness {
			roots = append(roots, t.CA)
			pairs = append(pairs, pairOf(t))
		}
	}
	for _, l := range c.Listener {
		if !c.Cluster.Witness {
			roots = append(roots, l.ClientCA)
		}
	}
	return disk.LoadTrust(roots, pairs)
}

func pairOf(t *config.PoolTLS) cert.Pair { return cert.Pair{Cert: t.Cert, Key: t.Key} }

// secureOf is how the servers of a pool are spoken to; nil is in clear. before is the pool
// of that name that there was, if any.
func secureOf(c *config.Pool, trust *cert.Trust, before *upstream.Pool) *upstream.Secure {
	if c.TLS == nil || c.TLS.Off {
		return nil
	}
	var was *upstream.Secure
	if before != nil {
		was = before.Secure()
	}
	return upstream.NewSecure(c.TLS, trust.Roots(c.TLS.CA), trust.Pair(pairOf(c.TLS)), c.Protocol == "h2", was)
}

// believe takes files into use that were read, and has them looked after. p.mu is held.
func (p *Plane) believe(t *cert.Trust) {
	p.trust = t
	if p.doubt == nil && !t.Empty() {
		var life context.Context
		life, p.doubt = context.WithCancel(context.Background())
		go p.watchTrust(life) // ends with Shutdown
	}
}

// trustEvery is how soon a changed file is in use.
const trustEvery = time.Second

// watchTrust looks after the files of p.trust until ctx ends.
func (p *Plane) watchTrust(ctx context.Context) {
	tick := time.NewTicker(trustEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.lookAtTrust()
		case <-ctx.Done():
			return
		}
	}
}

// lookAtTrust takes files that have changed into use. Connections that were made by what
// was in them before are not used for another exchange.
func (p *Plane) lookAtTrust() {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.opt.Disk.Look(p.trust, p.opt.Logger)
	if next == p.trust {
		return
	}
	p.trust = next
	s := p.current.Load()
	p.tls.admit(s.conf, next)
	for _, pool := range s.pools {
		p.watch.Reseal(pool, secureOf(pool.Config, next, pool))
	}
}
