package proxy

import (
	"fmt"
	"slices"
	"strings"

	"proxyd/internal/cert"
)

// A PoolView is a pool as an operator sees it now.
type PoolView struct {
	Name    string
	Balance string
	HashKey string // of balance = "hash"
	Sticky  string // the cookie; "" if there is none
	Queue   int    // places; 0 if there is no queue
	Waiting int64  // exchanges in it
	Servers []ServerView
}

// A ServerView is a server as an operator sees it now.
type ServerView struct {
	Name     string
	Address  string // where it is dialled; "" while its name does not resolve
	State    string // up | down | ejected | open | half-open | drain | maint
	Reason   string // why it is not up, or why its last TLS handshake failed
	Weight   int    // in force
	Wanted   int    // what the configuration says of Weight
	Share    int    // hundredths of Weight that count now: 0 if it is not chosen, fewer than 100 in a slow start
	Zone     string
	MaxConns int // 0: no limit
	Backup   bool
	Active   int64
	Requests uint64
	Failures uint64
}

// A CertView is a certificate as an operator sees it now.
type CertView struct {
	*cert.Certificate
	Fault  string // why its files, which have changed, are not in use
	Doubts []string
}

// Certificates returns those in use, in the order of the file.
func (p *Plane) Certificates() []CertView {
	var views []CertView
	for _, c := range p.tls.certs.Set().All() {
		views = append(views, CertView{c, p.tls.certs.Fault(c), c.Doubts(p.opt.Now())})
	}
	return views
}

// Pools returns every pool, by name, with its servers in the order of the file.
func (p *Plane) Pools() []PoolView {
	s := p.current.Load()
	if s == nil {
		return nil
	}
	now := p.opt.Now()
	views := make([]PoolView, 0, len(s.pools))
	for name, pool := range s.pools {
		v := PoolView{Name: name, Balance: pool.Config.Balance, HashKey: pool.Config.HashKey, Waiting: pool.QueueLength()}
		if y := pool.Config.Sticky; y != nil {
			v.Sticky = y.Cookie
		}
		if q := pool.Config.Queue; q != nil {
			v.Queue = q.Size
		}
		for i, server := range pool.Servers() {
			sv := ServerView{Name: server.Name, Active: server.Active.Load(), Failures: server.Failures.Load()}
			if a := server.Addr(); a.IsValid() {
				sv.Address = a.String()
			}
			sv.State, sv.Reason = server.State()
			if fault := server.Fault(); fault != "" && sv.Reason == "" {
				sv.Reason = "TLS: " + fault
			}
			sv.Weight, sv.Backup = pool.Weight(server)
			sv.Share, sv.MaxConns = pool.Share(server, now), pool.MaxConns(server)
			sv.Zone = pool.Config.Server[i].Zone
			sv.Wanted = s.conf.Pool[name].Server[i].Weight
			for i := range server.Requests {
				sv.Requests += server.Requests[i].Load()
			}
			v.Servers = append(v.Servers, sv)
		}
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b PoolView) int { return strings.Compare(a.Name, b.Name) })
	return views
}

// Lost says why no server of a pool is well by the checks of this node; "" if one is, or
// there is no such pool. What operators want of servers, which is the same on all nodes,
// does not count.
func (p *Plane) Lost(pool string) string {
	s := p.current.Load()
	if s == nil || s.pools[pool] == nil {
		return ""
	}
	servers := s.pools[pool].Servers()
	why := ""
	for _, server := range servers {
		if why = server.Down(); why == "" {
			return ""
		}
	}
	if len(servers) == 0 {
		return ""
	}
	return fmt.Sprintf("no server of pool %s is well, of %d; %s: %s", pool, len(servers), servers[len(servers)-1].Name, why)
}
