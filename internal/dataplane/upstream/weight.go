package upstream

import "time"

// unit is how finely weights are counted: a configured weight of 1 is this many.
const unit = 100

// weigh sets the weight in force of the slot's server. It is the one place that knows
// what a weight is made of: what the configuration gives, if the server is fit. next is
// when that changes by itself; zero is never.
func (s *slot) weigh(now time.Time) (next time.Time) {
	fit, next := s.standing(now)
	if !fit {
		s.set(0)
		return next
	}
	s.set(unit)
	return next
}

// set makes share hundredths of the configured weight the one in force.
func (s *slot) set(share int32) {
	s.share.Store(share)
	s.weight.Store(int32(int64(s.given) * int64(share) / unit))
}
