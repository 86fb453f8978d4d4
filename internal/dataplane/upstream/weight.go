package upstream

import "time"

// unit is how finely weights are counted: a configured weight of 1 is this many.
const unit = 100

// leastStep is the least time between two steps of a slow start.
const leastStep = 100 * time.Millisecond

// weigh sets the weight in force of the slot's server. It is the one place that knows
// what a weight is made of: what the configuration or an operator gives, if the server is
// fit, and of that as much as its slow start allows. next is when that changes by itself;
// zero is never.
func (s *slot) weigh(now time.Time, slowStart time.Duration) (next time.Time) {
	fit, next := s.standing(now)
	if !fit {
		s.set(0)
		return next
	}
	if s.fresh.Swap(false) {
		s.since.Store(now.UnixNano())
	}
	share, next := s.ramp(now, slowStart)
	s.set(share)
	return next
}

// ramp returns how many hundredths of its weight a server has at now: after it has come up
// they grow evenly over slowStart. next is when there is one more.
func (s *Server) ramp(now time.Time, slowStart time.Duration) (share int32, next time.Time) {
	since := s.since.Load()
	if slowStart <= 0 || since == 0 {
		return unit, time.Time{}
	}
	age := max(time.Duration(now.UnixNano()-since), 0)
	if age >= slowStart {
		return unit, time.Time{}
	}
	return max(int32(unit*age/slowStart), 1), now.Add(max(slowStart/unit, leastStep))
}

// set makes share hundredths of the given weight the one in force.
func (s *slot) set(share int32) {
	s.share.Store(share)
	s.weight.Store(int32(int64(s.given) * int64(share) / unit))
}
