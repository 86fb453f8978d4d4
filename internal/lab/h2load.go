package lab

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"time"
)

// inH2 is where a contestant speaks HTTP/2 in clear, with who knows that beforehand: the one
// way in which all of them can.
func inH2(listen netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(listen.Addr(), listen.Port()+100)
}

// h2Turn runs h2load against one contestant and reads what that cost it.
func (b *Bench) h2Turn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	argv := []string{"-t2", "-c" + strconv.Itoa(w.conns), "-m" + strconv.Itoa(w.streams), "-D" + strconv.Itoa(max(int(b.Turn.Seconds()), 1)),
		"-H", ":authority: " + benchHost, "http://" + inH2(c.listen).String() + w.path}
	return b.load(ctx, space, c, "h2load", argv, parseH2load)
}

var (
	h2loadRequests = regexp.MustCompile(`(?m)^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded`)
	h2loadSpeed    = regexp.MustCompile(`(?m)^finished in [^,]+, ([\d.]+) req/s`)
	h2loadTimes    = regexp.MustCompile(`(?m)^time for request:\s+(\S+)\s+(\S+)\s+(\S+)`)
)

// parseH2load reads what h2load prints. It knows no percentiles: for the median there is the
// mean, for the 99th the longest.
func parseH2load(text string) (WrkResult, error) {
	var r WrkResult
	requests, speed, times := h2loadRequests.FindStringSubmatch(text), h2loadSpeed.FindStringSubmatch(text), h2loadTimes.FindStringSubmatch(text)
	if requests == nil || speed == nil || times == nil {
		return r, fmt.Errorf("h2load did not say what it did: %q", text)
	}
	done, _ := strconv.Atoi(requests[1]) // digits, by the pattern
	r.Requests, _ = strconv.Atoi(requests[2])
	r.Errors = done - r.Requests
	var err error
	if r.PerSec, err = strconv.ParseFloat(speed[1], 64); err != nil {
		return r, fmt.Errorf("h2load's requests a second: %w", err)
	}
	if r.P99, err = time.ParseDuration(times[2]); err == nil {
		r.P50, err = time.ParseDuration(times[3])
	}
	if err != nil {
		return r, fmt.Errorf("h2load's times: %w", err)
	}
	return r, nil
}
