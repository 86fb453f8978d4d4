package lab

import (
	"slices"
	"time"
)

// An Outcome is how one request ended, as its client saw it.
type Outcome byte

const (
	OK          Outcome = 'o'
	Refused     Outcome = 'r' // the connection was refused
	Reset       Outcome = 'x' // the connection broke before the whole answer was there
	TimedOut    Outcome = 't' // no whole answer in time
	Unreachable Outcome = 'u' // no way to the host
	ServerError Outcome = '5' // a status of 500 and above
	Garbled     Outcome = 'g' // an answer that is none
)

// String returns the outcome in words.
func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Refused:
		return "refused"
	case Reset:
		return "reset"
	case TimedOut:
		return "timeout"
	case Unreachable:
		return "unreachable"
	case ServerError:
		return "5xx"
	}
	return "garbled"
}

// An Attempt is one request.
type Attempt struct {
	Start, End Instant
	Kept       bool // on a connection that had served before; else it opened its own
	Outcome    Outcome
}

// Outage returns the longest time without a success that overlaps the span from one instant
// to another, less what is usual between two successes. Only requests on connections of
// their own count: each is independent of those before it, so none waits for a lost packet
// of another. The attempts may be in any order and should begin well before the span.
func Outage(attempts []Attempt, from, to Instant, usual time.Duration) time.Duration {
	before := from // of a span that begins without a success
	var within []Instant
	first := true
	for _, t := range successes(attempts) {
		switch {
		case t <= from:
			before, first = t, false
		case t <= to:
			within = append(within, t)
		default:
			within = append(within, t)
			return worst(before, within, usual)
		}
	}
	if len(within) == 0 && first {
		return to.Sub(from)
	}
	// Nothing is known after the span: a silence at its end counts as far as it goes.
	return worst(before, append(within, to), usual)
}

func worst(before Instant, then []Instant, usual time.Duration) time.Duration {
	var most time.Duration
	for _, t := range then {
		most = max(most, t.Sub(before)-usual)
		before = t
	}
	return most
}

// Stall returns the longest time between two starts of requests on connections of their
// own, less the usual. The client starts them by the clock, so a stall is the machine's: an
// outage in the same place is no more certain than the stall is short.
func Stall(attempts []Attempt, usual time.Duration) time.Duration {
	var starts []Instant
	for _, a := range attempts {
		if !a.Kept {
			starts = append(starts, a.Start)
		}
	}
	if len(starts) == 0 {
		return 0
	}
	slices.Sort(starts)
	return worst(starts[0], starts[1:], usual)
}

// successes returns when requests on connections of their own were answered, sorted.
func successes(attempts []Attempt) []Instant {
	var at []Instant
	for _, a := range attempts {
		if a.Outcome == OK && !a.Kept {
			at = append(at, a.End)
		}
	}
	slices.Sort(at)
	return at
}

// Usual returns the median time between two successes, 0 for fewer than two.
func Usual(attempts []Attempt) time.Duration {
	at := successes(attempts)
	var gaps []time.Duration
	for i := 1; i < len(at); i++ {
		gaps = append(gaps, at[i].Sub(at[i-1]))
	}
	return Median(gaps)
}

// Failures counts the failed requests among new (or kept) connections by how they failed.
func Failures(attempts []Attempt, kept bool) map[Outcome]int {
	n := map[Outcome]int{}
	for _, a := range attempts {
		if a.Kept == kept && a.Outcome != OK {
			n[a.Outcome]++
		}
	}
	return n
}

// Latency returns the median and the 99th percentile of the successes.
func Latency(attempts []Attempt) (p50, p99 time.Duration) {
	var took []time.Duration
	for _, a := range attempts {
		if a.Outcome == OK {
			took = append(took, a.End.Sub(a.Start))
		}
	}
	return Quantile(took, 0.50), Quantile(took, 0.99)
}

// Median returns the middle value, 0 of none.
func Median[T ~int64 | ~float64](values []T) T { return Quantile(values, 0.5) }

// Quantile returns the value below which the part q of the values lies (nearest rank), 0
// of none. It leaves its argument as it is.
func Quantile[T ~int64 | ~float64](values []T, q float64) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(q*float64(len(sorted)) + 0.5)
	return sorted[min(max(rank, 1), len(sorted))-1]
}
