package upstream

import (
	"sync/atomic"
	"time"

	"proxyd/internal/config"
)

// budget keeps retries at a share of a pool's requests, so that they cannot multiply
// the load on servers that fail because of it. It counts over the last ten seconds, in
// slots of one, and takes no lock: what is counted at the moment in which a slot is used
// again may be lost.
type budget struct{ slots [16]second }

// A second is what was counted in one.
type second struct{ unix, requests, retries atomic.Int64 }

const (
	budgetSeconds = 10

	// fewRetries are allowed each second whatever the share says, so that a quiet pool can
	// retry too.
	fewRetries = 3
)

// request counts a request's first attempt.
func (b *budget) request(now time.Time) { b.slot(now).requests.Add(1) }

// allows reports whether there is room for one more retry.
func (b *budget) allows(now time.Time, share config.Share) bool {
	var requests, retries int64
	for i := range b.slots {
		if s := &b.slots[i]; now.Unix()-s.unix.Load() < budgetSeconds {
			requests += s.requests.Load()
			retries += s.retries.Load()
		}
	}
	return float64(retries) < float64(share)*float64(requests)+fewRetries*budgetSeconds
}

// retry counts a retry.
func (b *budget) retry(now time.Time) { b.slot(now).retries.Add(1) }

// slot returns the slot of now, emptied if it was another second's.
func (b *budget) slot(now time.Time) *second {
	unix := now.Unix()
	s := &b.slots[unix%int64(len(b.slots))]
	if was := s.unix.Load(); was < unix && s.unix.CompareAndSwap(was, unix) {
		s.requests.Store(0)
		s.retries.Store(0)
	}
	return s
}
