package accesslog

import (
	"math"
	"sync/atomic"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A share picks a part of a sequence, spread evenly: of 10 % every tenth, not one by
// chance.
type share struct {
	count *atomic.Uint64
	part  uint64 // in units of 1/whole
}

const whole = 1 << 32

func newShare(s config.Share) share {
	return share{count: new(atomic.Uint64), part: uint64(math.Ceil(float64(s) * whole))}
}

// next reports whether the next of the sequence is picked.
func (s share) next() bool {
	if s.part >= whole {
		return true
	}
	// Only the fraction counts, so that the product stays small enough for ever.
	n := (s.count.Add(1)-1)%whole + 1
	return (n*s.part)/whole != ((n-1)*s.part)/whole
}

// always reports whether the line of x is written whatever the share is.
func (s *style) always(x *dataplane.Exchange, e *Entry) bool {
	return s.sample >= 1 || e.Failed || e.Status >= 400 || e.Now.Sub(x.Times.Start) >= s.slow
}
