package upstream

import (
	"time"

	"proxyd/internal/config"
)

// budget keeps retries at a share of a pool's requests, so that they cannot multiply
// the load on servers that fail because of it. It counts over the last ten seconds, in
// slots of one. Its owner has the lock.
type budget struct {
	slots [10]struct{ requests, retries int }
	epoch time.Time // when slot 0 first began; zero before the first use
	at    int64     // the slot in use, counted from epoch
}

// fewRetries are allowed each second whatever the share says, so that a quiet pool can
// retry too.
const fewRetries = 3

// request counts a request's first attempt.
func (b *budget) request(now time.Time) { b.slot(now).requests++ }

// allows reports whether there is room for one more retry.
func (b *budget) allows(now time.Time, share config.Share) bool {
	b.slot(now)
	requests, retries := 0, 0
	for i := range b.slots {
		requests += b.slots[i].requests
		retries += b.slots[i].retries
	}
	return float64(retries) < float64(share)*float64(requests)+fewRetries*float64(len(b.slots))
}

// retry counts a retry.
func (b *budget) retry(now time.Time) { b.slot(now).retries++ }

// slot returns the slot of now, emptying those that time has passed over.
func (b *budget) slot(now time.Time) *struct{ requests, retries int } {
	if b.epoch.IsZero() {
		b.epoch = now
	}
	n := int64(len(b.slots))
	// A request may come with a reading a little older than the last: it counts in the
	// slot in use.
	if at := int64(now.Sub(b.epoch) / time.Second); at > b.at {
		for i := max(b.at+1, at-n+1); i <= at; i++ {
			b.slots[i%n] = struct{ requests, retries int }{}
		}
		b.at = at
	}
	return &b.slots[b.at%n]
}
