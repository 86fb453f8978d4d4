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
	ewma     bool // balance = "ewma": answers are timed
	attempts budget

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
	ErrBudget = errors.New("the retry budget is used up")
)

// An Ask is what a pool goes by when it chooses a server for a request.
type Ask struct {
	Now   time.Time
	Hash  uint64              // what Pool.Hash says of the request
	Tried []*dataplane.Server // servers that failed: none is asked again

	anyone bool // no server is up: any will do
}

// A Place is what a pool must know of the node it is in.
type Place struct {
	Zone string // node.zone
}

// New makes a pool. Servers of old with the same names are adopted, unchanged until
// Start; old may be nil.
func New(c *config.Pool, old *Pool, _ Place) (*Pool, error) {
	p := &Pool{Name: c.Name, Config: c, Counters: &Counters{}, learn: newLessons(c.Passive.On), again: newLessons(c.Retry.On), counts: c.Eject != nil || c.Breaker != nil, ewma: c.Balance == "ewma"}
	var err error
	if p.question, err = newQuestion(c.Check); err != nil {
		return nil, fmt.Errorf("pool %q: %w", c.Name, err)
	}
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
		p.servers = append(p.servers, s)
	}
	p.slots = make([]slot, len(p.servers))
	p.places = make(map[*Server]*slot, len(p.servers))
	for i, conf := range c.Server {
		s := &p.slots[i]
		s.Server, s.given, s.backup = p.servers[i], int32(max(conf.Weight, 1))*unit, conf.Backup
		p.places[s.Server] = s
	}
	if p.hash, err = newHashKey(c); err != nil {
		return nil, fmt.Errorf("pool %q: %w", c.Name, err)
	}
	for i := range p.slots {
		t := &p.tiers[0]
		if p.slots[i].backup {
			t = &p.tiers[1]
		}
		t.slots = append(t.slots, &p.slots[i])
	}
	for i := range p.tiers {
		t := &p.tiers[i]
		if len(t.slots) == 0 {
			continue
		}
		if t.rule, err = newRule(c.Balance, t.slots, rand.Uint64); err != nil {
			return nil, fmt.Errorf("pool %q: %w", c.Name, err)
		}
	}
	p.sit(func(s *Server) bool { return known[s.Name] == nil })
	return p, nil
}

// sit has those of the servers that which says tell this pool of their exchanges, as far
// as its rule wants to know.
func (p *Pool) sit(which func(*Server) bool) {
	for i := range p.tiers {
		rule, _ := p.tiers[i].rule.(*leastConn)
		for at, s := range p.tiers[i].slots {
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

// Pick returns the server for a request's first attempt, or ErrNone. It never waits.
// Every Server that Pick or PickOther returns is given back by one call of Answered or
// Failed and one of Release.
func (p *Pool) Pick(a Ask) (*Server, error) {
	p.attempts.request(a.Now)
	l := p.line(a.Now)
	a.anyone = l.anyone
	if s := p.tiers[l.first].choose(a); s != nil {
		p.note(l)
		return s.Server, nil
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
}
