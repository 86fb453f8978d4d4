package vip

import (
	"fmt"
	"maps"

	"proxyd/internal/clock"
)

// A Claim is what a keeper leaves to that of the next process.
type Claim struct {
	State State         `json:"state"`
	Since clock.Instant `json:"since"`
	Until clock.Instant `json:"until"`
}

// Halt stops the keeper where it is, with the address as it is, prolonged as far as the
// kernel lets it be, and returns what it has. settle(true) ends the keeper, which takes
// nothing away: another process keeps the address. settle(false) lets it go on.
func (k *Keeper) Halt() (_ Claim, settle func(gone bool), err error) {
	k.mu.Lock()
	if k.over {
		k.mu.Unlock()
		return Claim{}, nil, ErrClosed
	}
	k.prolong()
	return Claim{k.state, k.since, k.until}, func(gone bool) {
		if k.over = gone; gone {
			close(k.handed)
		}
		k.publish()
		k.mu.Unlock()
	}, nil
}

// prolong gives the address its whole lifetime anew, wherever it is.
func (k *Keeper) prolong() {
	now := k.port.now()
	switch k.state {
	case Held:
		if now < k.until {
			_ = k.renew(now) // kept in fault, and counted
		}
	case Parked:
		k.tried = now
		if k.fail(k.port.link.Park(k.prefix, life)) == nil {
			k.renewed = now
		}
	}
}

// Adopt keeps an address that another process kept until now and left as it is. Nobody is
// told: nothing has changed for them.
func (k *Keeper) Adopt(c Claim) error {
	return k.ask(func() error {
		now := k.port.now()
		if c.State > Parked {
			return fmt.Errorf("adopt %s: there is no state %d", k.Addr(), c.State)
		}
		if c.State == Idle || now >= c.Until {
			k.leftover = c.State == Held // the next tick takes it away
			return nil
		}
		k.state, k.since, k.until = c.State, c.Since, c.Until
		// The fence is open as far as the other process had it, and asks for that one's life
		// until it is left. The next Hold tells it of ours.
		k.gated = c.Until
		k.plan.restart(now)
		k.plan.made(now)
		k.prolong()
		return k.fault
	})
}

// Leave gives what was changed to another process, by path below /proc/sys: Restore of this
// one restores nothing any more.
func (s *Sysctls) Leave() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.changed()
	s.old = nil
	return old
}

// Changed returns what was changed, as it was, by path below /proc/sys.
func (s *Sysctls) Changed() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed()
}

func (s *Sysctls) changed() map[string]string {
	old := map[string]string{}
	for _, p := range s.old {
		old[p.path] = p.value
	}
	return old
}

// Inherit has Restore restore what another process changed, too.
func (s *Sysctls) Inherit(old map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[string]bool{}
	for _, p := range s.old {
		known[p.path] = true
	}
	for path, value := range maps.All(old) {
		if !known[path] {
			s.old = append(s.old, parameter{path, value})
		}
	}
}
