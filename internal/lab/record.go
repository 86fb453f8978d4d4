package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// What the client and the watcher saw can be kept as text, a line each, and judged later:
// on virtual machines they run on other hosts than whoever plays the drill.

// RunWatch watches an address from an interface of this host until ctx ends, and writes a
// line per ask to w: the letter a, the instant, and who answered.
func RunWatch(ctx context.Context, device string, vip netip.Addr, w io.Writer) error {
	watcher, err := watch(device, nil, vip)
	if err != nil {
		return err
	}
	defer watcher.Close()
	told := Now()
	for {
		err := pause(ctx, time.Second)
		// The latest ask may still be answered.
		until := Now().Add(-2 * askEvery)
		for _, a := range watcher.Asks(told, until) {
			if _, err := fmt.Fprintf(w, "a %d %s\n", a.At, strings.Join(a.By, " ")); err != nil {
				return fmt.Errorf("write down who answered: %w", err)
			}
		}
		told = until
		if err != nil {
			return nil
		}
	}
}

func parseAsk(line string) (Ask, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != "a" {
		return Ask{}, fmt.Errorf("line %q of the watcher: want the letter a, an instant and names", line)
	}
	at, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return Ask{}, fmt.Errorf("line %q of the watcher: %w", line, err)
	}
	return Ask{At: Instant(at), By: fields[2:]}, nil
}

// A Record is what was seen between two instants of one host's clock: by its client, by its
// watcher, or by both.
type Record struct {
	From, To Instant
	Load     io.Reader // lines of RunLoad; nil if there was no client
	Watch    io.Reader // lines of RunWatch; nil if there was no watcher
}

// Judge reads a record as a Rig measures an event. What nobody saw is not held against the
// promise.
func (r Record) Judge(event string, p Promise) (Measure, error) {
	m := Measure{Event: event, From: r.From, To: r.To, Promise: p}
	if r.Load != nil {
		var all, during []Attempt
		err := lines(r.Load, func(line string) error {
			a, err := parseAttempt(line)
			all = append(all, a)
			return err
		})
		if err != nil {
			return m, err
		}
		var before []Attempt
		for _, a := range all {
			switch {
			case a.End <= r.From:
				before = append(before, a)
			case a.End <= r.To:
				during = append(during, a)
			}
		}
		m.Outage, m.Stall = Outage(all, r.From, r.To, Usual(before)), Stall(during, Usual(before))
		m.Failed, m.Requests = Failures(during, false), len(during)
		for _, n := range Failures(during, true) {
			m.KeptFailed += n
		}
	}
	if r.Watch != nil {
		var asks []Ask
		err := lines(r.Watch, func(line string) error {
			a, err := parseAsk(line)
			if a.At >= r.From && a.At < r.To {
				asks = append(asks, a)
			}
			return err
		})
		if err != nil {
			return m, err
		}
		m.Seen, m.Two, m.None, m.Changes = SeenBy(asks), TwoHeld(asks), NoneHeld(asks), Changes(asks)
		m.After = alone(lastOf(asks))
	}
	return m, nil
}

func lines(r io.Reader, each func(string) error) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if err := each(s.Text()); err != nil {
			return err
		}
	}
	return s.Err()
}
