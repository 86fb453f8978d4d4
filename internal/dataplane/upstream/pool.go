// Package upstream knows which servers there are, which of them are well, and which is
// next. Pools are made anew with every snapshot; servers, with their health and their
// counters, are adopted from the old one.
package upstream

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A Pool is servers that serve the same, and the rule by which they take turns.
type Pool struct {
	Name   string
	Config *config.Pool
	*Counters

	learn    lessons
	again    lessons   // what is tried once more: retry.on
	counts   bool      // every attempt is counted, for eject or breaker
	question *question // of the active checks; nil: there are none
	least    bool      // balance = "least_conn"
	byHash   bool      // balance = "hash"
	servers  []*Server

	mu       sync.Mutex // guards what follows
	primary  group
	backup   group
	attempts budget
}

// Counters are of a pool as a whole and outlive reloads with its name.
type Counters struct {
	Reused   atomic.Uint64    // attempts on a kept connection
	Connects [3]atomic.Uint64 // new connections, by result: ConnectOK, ConnectFailed, ConnectTimedOut
	Retries  [3]atomic.Uint64 // by result: RetryOK, RetryFailed, RetryOverBudget
	Panics   atomic.Uint64    // exchanges given to any server, since none was up

	outliers outliers
}

// Results of a connect, the index of Counters.Connects.
const (
	ConnectOK = iota
	ConnectFailed
	ConnectTimedOut
)

// Results of a retry, the index of Counters.Retries.
const (
	RetryOK = iota
	RetryFailed
	RetryOverBudget
)

// A slot is a server's place in one pool.
type slot struct {
	*Server
	weight  int
	current int // of the smooth weighted round robin
}

// A group is the servers of one tier.
type group struct {
	slots []slot
	table maglev // of balance = "hash"
}

// New makes a pool. Servers of old with the same names are adopted, unchanged until
// Start; old may be nil.
func New(c *config.Pool, old *Pool) (*Pool, error) {
	p := &Pool{Name: c.Name, Config: c, learn: newLessons(c.Passive.On), again: newLessons(c.Retry.On), counts: c.Eject != nil || c.Breaker != nil}
	switch c.Balance {
	case "", "round_robin":
	case "least_conn":
		p.least = true
	case "hash":
		if c.HashKey != "" && c.HashKey != "ip" {
			return nil, fmt.Errorf("pool %q: hash_key %q is not built yet", c.Name, c.HashKey)
		}
		p.byHash = true
	default:
		return nil, fmt.Errorf("pool %q: balance %q is not built yet", c.Name, c.Balance)
	}
	var err error
	if p.question, err = newQuestion(c.Check); err != nil {
		return nil, fmt.Errorf("pool %q: %w", c.Name, err)
	}
	p.Counters = &Counters{}
	known := map[string]*Server{}
	if old != nil {
		p.Counters = old.Counters
		for _, s := range old.servers {
			known[s.Name] = s
		}
	}
	seen := map[string]bool{}
	for _, conf := range c.Server {
		if seen[conf.Addr] {
			return nil, fmt.Errorf("pool %q: server %q is named twice", c.Name, conf.Addr)
		}
		seen[conf.Addr] = true
		s := known[conf.Addr]
		if s == nil {
			if s, err = newServer(c.Name, conf.Addr); err != nil {
				return nil, fmt.Errorf("pool %q: %w", c.Name, err)
			}
		}
		p.servers = append(p.servers, s)
		g := &p.primary
		if conf.Backup {
			g = &p.backup
		}
		g.slots = append(g.slots, slot{Server: s, weight: max(conf.Weight, 1)})
	}
	if p.byHash {
		for _, g := range []*group{&p.primary, &p.backup} {
			slices.SortFunc(g.slots, func(a, b slot) int { return cmp.Compare(a.Name, b.Name) })
			g.table = newMaglev(g.slots)
		}
	}
	return p, nil
}

// Servers returns the pool's servers in the order of the configuration. The caller
// must not change the slice.
func (p *Pool) Servers() []*Server { return p.servers }

// Weight returns the weight of a server in this pool and whether it is a backup.
func (p *Pool) Weight(s *Server) (weight int, backup bool) {
	for i := range p.primary.slots {
		if p.primary.slots[i].Server == s {
			return p.primary.slots[i].weight, false
		}
	}
	for i := range p.backup.slots {
		if p.backup.slots[i].Server == s {
			return p.backup.slots[i].weight, true
		}
	}
	return 0, false
}

// Pick returns the server for a request's first attempt, or nil if there is none that
// could be dialled. It never waits. Every Server that Pick or PickOther returns is
// given back by one call of Answered or Failed and one of Release.
func (p *Pool) Pick(now time.Time, client netip.Addr) *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempts.request(now)
	return p.pick(now, client, nil)
}

// PickOther returns a server for one more attempt, none of those tried. over says that
// the retry budget is used up; then, or when no other server is up, s is nil.
func (p *Pool) PickOther(now time.Time, client netip.Addr, tried []*dataplane.Server) (s *Server, over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.attempts.allows(now, p.Config.Retry.Budget) {
		p.Retries[RetryOverBudget].Add(1)
		return nil, true
	}
	if s = p.pick(now, client, tried); s != nil {
		p.attempts.retry(now)
	}
	return s, false
}

// pick goes through the tiers: servers that are up, backups that are up. When no server
// of the pool is up at all it takes any: it is better to try than to refuse all. Only an
// open breaker is never overruled.
func (p *Pool) pick(now time.Time, client netip.Addr, tried []*dataplane.Server) *Server {
	for _, g := range [...]*group{&p.primary, &p.backup} {
		if s := p.choose(g, now, client, tried, false); s != nil {
			s.take(now)
			return s.Server
		}
	}
	for _, s := range p.servers {
		if s.fit(now) {
			return nil // it has been tried
		}
	}
	for _, g := range [...]*group{&p.primary, &p.backup} {
		if s := p.choose(g, now, client, tried, true); s != nil {
			p.Panics.Add(1)
			s.take(now)
			return s.Server
		}
	}
	return nil
}

// choose applies the pool's rule to one tier; anyone lets servers in that are not up.
func (p *Pool) choose(g *group, now time.Time, client netip.Addr, tried []*dataplane.Server, anyone bool) *slot {
	if len(g.slots) == 0 {
		return nil
	}
	if p.byHash {
		return g.hashed(now, hashAddr(client), tried, anyone)
	}
	return g.turn(now, tried, anyone, p.least)
}

// turn is nginx's smooth weighted round robin. With least it is among the servers that
// have the fewest exchanges for their weight.
func (g *group) turn(now time.Time, tried []*dataplane.Server, anyone, least bool) *slot {
	var fewest *slot
	var active int64
	if least {
		for i := range g.slots {
			s := &g.slots[i]
			if !s.eligible(now, tried, anyone) {
				continue
			}
			// Compare a/w with b/v without dividing.
			n := s.Active.Load()
			if fewest == nil || n*int64(fewest.weight) < active*int64(s.weight) {
				fewest, active = s, n
			}
		}
		if fewest == nil {
			return nil
		}
	}
	var best *slot
	total := 0
	for i := range g.slots {
		s := &g.slots[i]
		if !s.eligible(now, tried, anyone) {
			continue
		}
		if least && s != fewest && s.Active.Load()*int64(fewest.weight) > active*int64(s.weight) {
			continue
		}
		s.current += s.weight
		total += s.weight
		if best == nil || s.current > best.current {
			best = s
		}
	}
	if best != nil {
		best.current -= total
	}
	return best
}

// hashed follows the client's hash to a server that will do. Only the clients of a
// server that will not go elsewhere, and they spread over all others.
func (g *group) hashed(now time.Time, hash uint64, tried []*dataplane.Server, anyone bool) *slot {
	const tries = 16
	last := 0
	for try := range tries {
		last = g.table.at(hash, try)
		if s := &g.slots[last]; s.eligible(now, tried, anyone) {
			return s
		}
	}
	for i := range g.slots {
		if s := &g.slots[(last+i)%len(g.slots)]; s.eligible(now, tried, anyone) {
			return s
		}
	}
	return nil
}

func (s *slot) eligible(now time.Time, tried []*dataplane.Server, anyone bool) bool {
	for _, t := range tried {
		if t == &s.Server.Server {
			return false
		}
	}
	if anyone {
		return !s.barred(now)
	}
	return s.fit(now)
}
