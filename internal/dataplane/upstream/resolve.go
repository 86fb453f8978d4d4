package upstream

import (
	"context"
	"sync"
	"time"
)

const (
	resolveEvery = 10 * time.Second
	resolveTime  = 5 * time.Second // for one look-up
)

// Resolve looks up the names of servers that have no address yet, all at once, and
// returns when that is done or ctx has ended. A name that does not resolve is no
// error: its server is not picked until it does.
func (p *Pool) Resolve(ctx context.Context, e Env) {
	e = e.Filled()
	var all sync.WaitGroup
	for _, s := range p.servers {
		if s.host != "" && !s.Addr().IsValid() {
			all.Go(func() {
				if addrs, err := e.Resolve(ctx, s.host); err == nil {
					s.resolved(addrs)
				}
			})
		}
	}
	all.Wait()
}

// lookUp looks the server's name up once. The last good answer stays in use; failures
// are logged when they begin and when they end. Of several addresses one is used until it
// cannot be reached or is no longer among them. failing says whether the last look-up
// failed; the result whether this one did.
func (s *Server) lookUp(ctx context.Context, e Env, failing bool) (fails bool) {
	limited, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	addrs, err := e.Resolve(limited, s.host)
	switch {
	case ctx.Err() != nil:
		return failing
	case err != nil || len(addrs) == 0:
		if !failing {
			e.Log.Warn("name of a server does not resolve", "pool", s.Pool, "server", s.Name, "err", err)
		}
		return true
	}
	if s.resolved(addrs) || failing {
		e.Log.Info("name of a server resolves", "pool", s.Pool, "server", s.Name, "address", s.Addr())
	}
	return false
}
