package upstream

import "time"

// A window counts a server's attempts over the last ten seconds, in slots of one. It is
// a value without clock or lock.
type window [10]struct {
	second             int64
	attempts, failures int32
}

// add counts what happened now.
func (w *window) add(now time.Time, attempts, failures int32) {
	second := now.Unix()
	slot := &w[uint64(second)%uint64(len(w))]
	if slot.second != second {
		slot.second, slot.attempts, slot.failures = second, 0, 0
	}
	slot.attempts += attempts
	slot.failures += failures
}

// sum returns what was counted in the ten seconds before now.
func (w *window) sum(now time.Time) (t tally) {
	second := now.Unix()
	for i := range w {
		if age := second - w[i].second; age >= 0 && age < int64(len(w)) {
			t.attempts += int(w[i].attempts)
			t.failures += int(w[i].failures)
		}
	}
	return t
}

// A tally is attempts, and those of them that failed.
type tally struct{ attempts, failures int }

// share returns which part of the attempts failed. An answer may break off long after
// its attempt was counted, so there may be failures alone.
func (t tally) share() float64 {
	if t.failures == 0 {
		return 0
	}
	return min(float64(t.failures)/float64(max(t.attempts, 1)), 1)
}
