package lab

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// A WrkResult is what one run of wrk reported.
type WrkResult struct {
	Requests int
	PerSec   float64
	P50, P99 time.Duration
	Errors   int // connections that failed and answers that were no 2xx or 3xx
}

// parseWrk reads what `wrk --latency` prints.
func parseWrk(text string) (WrkResult, error) {
	var r WrkResult
	var err error
	number := func(pattern string) (string, bool) {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		if m == nil {
			return "", false
		}
		return m[1], true
	}
	n, ok := number(`(?m)^\s*(\d+) requests in `)
	if !ok {
		return r, fmt.Errorf("wrk did not say how many requests it made: %q", text)
	}
	if r.Requests, err = strconv.Atoi(n); err != nil {
		return r, fmt.Errorf("wrk's requests: %w", err)
	}
	if n, ok = number(`(?m)^Requests/sec:\s*([\d.]+)`); !ok {
		return r, fmt.Errorf("wrk did not say how fast it was: %q", text)
	}
	if r.PerSec, err = strconv.ParseFloat(n, 64); err != nil {
		return r, fmt.Errorf("wrk's requests a second: %w", err)
	}
	for _, p := range []struct {
		pattern string
		to      *time.Duration
	}{{`(?m)^\s*50%\s+(\S+)`, &r.P50}, {`(?m)^\s*99%\s+(\S+)`, &r.P99}} {
		if n, ok = number(p.pattern); !ok {
			return r, fmt.Errorf("wrk did not say how long requests took: %q", text)
		}
		if *p.to, err = time.ParseDuration(n); err != nil {
			return r, fmt.Errorf("wrk's latency: %w", err)
		}
	}
	if n, ok = number(`Non-2xx or 3xx responses: (\d+)`); ok {
		k, _ := strconv.Atoi(n) // digits, by the pattern
		r.Errors += k
	}
	socket := regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	if m := socket.FindStringSubmatch(text); m != nil {
		for _, d := range m[1:] {
			k, _ := strconv.Atoi(d)
			r.Errors += k
		}
	}
	return r, nil
}
