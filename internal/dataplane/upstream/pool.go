// Package upstream knows which servers there are, which of them are well, and which is
// next. Pools are made anew with every snapshot; servers, with their health and their
// counters, are adopted from the old one.
package upstream

import (
	"errors"
	"fmt"
	"math/rand/v2"
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
	servers  []*Server
	slots    []slot // of servers, in the same order
	places   map[*Server]*slot
	tiers    [2]tier // servers, backups
	hash     hashKey
	sticky   *sticky                // nil: no cookie
	secure   atomic.Pointer[Secure] // nil: its servers are spoken to in clear
	ewma     bool                   // balance = "ewma": answers are timed
	attempts budget

	begins bool      // there was no pool before this one; until enter
	added  []*Server // that a pool before this one did not have; until enter
	lineup atomic.Pointer[lineup]
	mu     sync.Mutex // held by the one who lines up
}

// Counters are of a pool as a whole and outlive reloads with its name.
type Counters struct {
	Reused   atomic.Uint64    // attempts on a kept connection
	Connects [3]atomic.Uint64 // new connections, by result: ConnectOK, ConnectFailed, ConnectTimedOut
	Retries  [3]atomic.Uint64 // by result: RetryOK, RetryFailed, RetryOverBudget
	Panics   atomic.Uint64    // exchanges given to any server, since none was up

	outliers outliers

	Queued Histogram // how long exchanges waited for a place

	queue   queue
	changes atomic.Uint64 // grows when a server comes up, goes down or is to weigh something else
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

// Why there is no server.
var (
	ErrNone   = errors.New("no server") // that could be dialled, or none that was not tried
	ErrFull   = errors.New("every server has max_conns")
	ErrBudget = errors.New("the retry budget is used up")
)

// An Ask is what a pool goes by when it chooses a server for a request.
type Ask struct {
	Now   time.Time
	Hash  uint64              // what Pool.Hash says of the request
	Keep  *Server             // the server that has the client, or nil
	Tried []*dataplane.Server // servers that failed: none is asked again

	anyone bool // no server is up: any will do
}

// A Place is what a pool must know of the node it is in.
type Place struct {
	Zone string  // node.zone
	Key  []byte  // of sticky cookies, the same on every node
	TLS  *Secure // of the pool's servers; nil: they are spoken to in clear
}

// New makes a pool. Servers of old with the same names are adopted, unchanged until
// Start; old may be nil.
func New(c *config.Pool, old *Pool, at Place) (*Pool, error) {
	p := &Pool{Name: c.Name, Config: c, Counters: &Counters{}, learn: newLessons(c.Passive.On), again: newLessons(c.Retry.On), counts: c.Eject != nil || c.Breaker != nil, ewma: c.Balance == "ewma"}
	p.secure.Store(at.TLS)
	var err error
	if p.question, err = newQuestion(c); err != nil {
		return nil, fmt.Errorf("pool %q: %w", c.Name, err)
	}
	p.begins = old == nil
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
			if s, err = newServer(c.Name, conf.Addr, &p.changes); err != nil {
				return nil, fmt.Errorf("pool %q: %w", c.Name, err)
			}
		}
		if old != nil && known[conf.Addr] == nil {
			p.added = append(p.added, s)
		}
		p.servers = append(p.servers, s)
	}
	p.slots = make([]slot, len(p.servers))
	p.places = make(map[*Server]*slot, len(p.servers))
	for i, conf := range c.Server {
		s := &p.slots[i]
		if s.limit = int64(conf.MaxConns); s.limit == 0 {
			s.limit = int64(c.MaxConns)
		}
		s.Server, s.given, s.backup = p.servers[i], int32(max(conf.Weight, 1))*unit, conf.Backup
		p.places[s.Server] = s
	}
	if p.hash, err = newHashKey(c); err != nil {
		return nil, fmt.Errorf("pool %q: %w", c.Name, err)
	}
	for i := range p.slots {
		s := &p.slots[i]
		t := &p.tiers[0]
		if s.backup {
			t = &p.tiers[1]
		}
		g := &t.near
		if zoned(c) && at.Zone != "" && c.Server[i].Zone != at.Zone {
			g = &t.far
		}
		g.slots = append(g.slots, s)
	}
	for i := range p.tiers {
		for _, g := range []*group{&p.tiers[i].near, &p.tiers[i].far} {
			if len(g.slots) == 0 {
				continue
			}
			if g.rule, err = newRule(c.Balance, g.slots, rand.Uint64); err != nil {
				return nil, fmt.Errorf("pool %q: %w", c.Name, err)
			}
		}
	}
	p.sticky = newSticky(p, at.Key)
	p.sit(func(s *Server) bool { return known[s.Name] == nil })
	return p, nil
}

// zoned reports whether a pool prefers servers of the node's own zone. What hash and
// first choose is the same on every node.
func zoned(c *config.Pool) bool {
	if c.Balance == "hash" || c.Balance == "first" {
		return false
	}
	for _, s := range c.Server {
		if s.Zone != "" {
			return true
		}
	}
	return false
}

// sit has those of the servers that which says tell this pool of their exchanges, as far
// as its rule wants to know.
func (p *Pool) sit(which func(*Server) bool) {
	for i := range p.tiers {
		for _, g := range []*group{&p.tiers[i].near, &p.tiers[i].far} {
			rule, _ := g.rule.(*leastConn)
			for at, s := range g.slots {
				switch {
				case !which(s.Server):
				case rule == nil:
					s.seat.Store(nil)
				default:
					s.seat.Store(&seat{rule, at})
				}
			}
		}
	}
}

// enter takes the pool's servers into use. Those that the pool before did not have start
// slowly.
func (p *Pool) enter() {
	p.sit(func(*Server) bool { return true })
	for _, s := range p.servers {
		if p.begins {
			s.fresh.Store(false) // its name came to resolve before anyone could ask for it
		}
	}
	for _, s := range p.added {
		s.fresh.Store(true)
	}
	p.begins, p.added = false, nil
	p.changes.Add(1)
}

// HTTP2 reports whether the servers are spoken to by HTTP/2.
func (p *Pool) HTTP2() bool { return p.Config.Protocol == "h2" || p.Config.Protocol == "h2c" }

// Servers returns the pool's servers in the order of the configuration. The caller
// must not change the slice.
func (p *Pool) Servers() []*Server { return p.servers }

// Weight returns the configured weight of a server in this pool and whether it is a
// backup.
func (p *Pool) Weight(s *Server) (weight int, backup bool) {
	if at := p.places[s]; at != nil {
		return int(at.given / unit), at.backup
	}
	return 0, false
}

// Share returns how many hundredths of its weight count for a server now: none if it is
// not chosen, and fewer than 100 in a slow start.
func (p *Pool) Share(s *Server, now time.Time) int {
	p.line(now)
	if at := p.places[s]; at != nil {
		return int(at.share.Load())
	}
	return 0
}

// MaxConns returns how many exchanges the server may have at once; 0 is any number.
func (p *Pool) MaxConns(s *Server) int {
	if at := p.places[s]; at != nil {
		return int(at.limit)
	}
	return 0
}

// Pick returns the server for a request's first attempt: the one that has the client, or
// the one that the pool's rule chooses. The error is ErrNone, or ErrFull, after which Wait
// may be tried. It never waits. Every Server that Pick, PickOther or a queue gives is given
// back by one call of Answered or Failed and one of Release.
func (p *Pool) Pick(a Ask) (*Server, error) {
	p.attempts.request(a.Now)
	if p.Config.Queue != nil && p.queue.length.Load() > 0 {
		return nil, ErrFull // behind those who came before
	}
	return p.take(a)
}

// take is Pick for who has queued.
func (p *Pool) take(a Ask) (*Server, error) {
	l := p.line(a.Now)
	a.anyone = l.anyone
	if at := p.places[a.Keep]; at != nil {
		switch {
		case at.keep(a):
			at.tell()
			return at.Server, nil
		case at.full() && p.Config.Queue != nil:
			return nil, ErrFull // nobody else has the client
		}
	}
	if s := p.tiers[l.first].choose(a); s != nil {
		p.note(l)
		return s.Server, nil
	}
	for i := range p.slots {
		if s := &p.slots[i]; s.weight.Load() > 0 && s.full() {
			return nil, ErrFull
		}
	}
	return nil, ErrNone
}

// PickOther returns a server for one more attempt, none of those tried. It goes on to
// the backups when the others have been tried. The error is ErrNone or ErrBudget.
func (p *Pool) PickOther(a Ask) (*Server, error) {
	if !p.attempts.allows(a.Now, p.Config.Retry.Budget) {
		p.Retries[RetryOverBudget].Add(1)
		return nil, ErrBudget
	}
	l := p.line(a.Now)
	a.anyone = l.anyone
	for i := l.first; i < len(p.tiers); i++ {
		if s := p.tiers[i].choose(a); s != nil {
			p.attempts.retry(a.Now)
			p.note(l)
			return s.Server, nil
		}
	}
	return nil, ErrNone
}

// note counts an exchange that was given to any server since none was up.
func (p *Pool) note(l *lineup) {
	if l.anyone {
		p.Panics.Add(1)
	}
}

// Release gives back a server that Pick or PickOther returned.
func (p *Pool) Release(s *Server) {
	s.Active.Add(-1)
	s.tell()
	p.queue.vacated()
}
