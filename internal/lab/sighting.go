package lab

import (
	"slices"
	"time"
)

// An Ask is one question on the LAN for the holder of the VIP, with those who answered
// before the next one. Two names mean that two hosts had the address at that moment.
type Ask struct {
	At Instant
	By []string // names of hosts, sorted; a MAC that is no host's stands for itself
}

// An Announcement is one gratuitous frame for the VIP.
type Announcement struct {
	At Instant
	By string
}

// with returns the sorted set of names with one more.
func with(names []string, name string) []string {
	i, there := slices.BinarySearch(names, name)
	if there {
		return names
	}
	return slices.Insert(names, i, name)
}

// SeenBy returns every name that answered, sorted.
func SeenBy(asks []Ask) []string {
	var names []string
	for _, a := range asks {
		for _, n := range a.By {
			names = with(names, n)
		}
	}
	return names
}

// TwoHeld returns the longest time without a break in which more than one answered. A
// single such ask counts as the time between two asks.
func TwoHeld(asks []Ask) time.Duration {
	return longest(asks, func(a Ask) bool { return len(a.By) > 1 })
}

// NoneHeld returns the longest time without a break in which nobody answered.
func NoneHeld(asks []Ask) time.Duration {
	return longest(asks, func(a Ask) bool { return len(a.By) == 0 })
}

// Changes returns how often another host answered, alone, than the one that did so last.
func Changes(asks []Ask) int {
	n, last := 0, ""
	for _, a := range asks {
		now := alone(a.By)
		if now != "" && last != "" && now != last {
			n++
		}
		if now != "" {
			last = now
		}
	}
	return n
}

// longest measures runs of asks from the first one to the first that is not of the run.
func longest(asks []Ask, of func(Ask) bool) time.Duration {
	var most time.Duration
	for i := 0; i < len(asks); {
		if !of(asks[i]) {
			i++
			continue
		}
		first, last := asks[i].At, asks[i].At.Add(askEvery)
		for i++; i < len(asks) && of(asks[i]); i++ {
			last = asks[i].At.Add(askEvery)
		}
		if i < len(asks) {
			last = asks[i].At
		}
		most = max(most, last.Sub(first))
	}
	return most
}

// trimmed keeps the last n of a record, dropping a tenth at a time.
func trimmed[T any](record []T, n int) []T {
	if len(record) < n+n/10 {
		return record
	}
	return append(record[:0:0], record[len(record)-n:]...)
}
