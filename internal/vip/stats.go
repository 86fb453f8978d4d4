package vip

import (
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
)

// Stats counts what happened to one address since its Keeper was made. Every field may
// be read at any time; only the Keeper writes them.
type Stats struct {
	Takeovers      atomic.Uint64 // times the address came to this host
	Announcements  atomic.Uint64 // rounds sent
	AnnounceErrors atomic.Uint64
	Conflicts      atomic.Uint64 // frames by which another MAC claimed the address while held
	Repairs        atomic.Uint64 // times somebody else removed the address while held
	Renewals       atomic.Uint64 // lifetimes prolonged
	RenewErrors    atomic.Uint64
	FenceErrors    atomic.Uint64 // renewals that the fence was not told of
	Lapses         atomic.Uint64 // leases that ended without a Hold or a Drop

	asked     atomic.Int64 // clock.Instant: when the last takeover's Hold was called
	announced atomic.Int64 // clock.Instant: when its first announcement was sent
	last      atomic.Int64 // clock.Instant: the last announcement
}

// Takeover returns when the last takeover was asked for and how long it took from there
// to the first announcement. took is 0 if there was none, or none was announced yet.
func (s *Stats) Takeover() (asked clock.Instant, took time.Duration) {
	a, b := s.asked.Load(), s.announced.Load()
	if b < a {
		return clock.Instant(a), 0
	}
	return clock.Instant(a), time.Duration(b - a)
}

// LastAnnounced returns when the address was last announced; 0 if never.
func (s *Stats) LastAnnounced() clock.Instant { return clock.Instant(s.last.Load()) }
