// Package doctor judges from the files of a host, and from what a node measured, whether
// a cluster is fit to fail over. It changes nothing and asks nobody.
package doctor

import (
	"cmp"
	"slices"
)

// A Finding is the outcome of one check. Keys are stable.
type Finding struct {
	Check string `json:"check"` // a word for each kind of check
	About string `json:"about,omitempty"`
	Level Level  `json:"level"`
	What  string `json:"what"` // is the case
	Why   string `json:"why,omitempty"`
	Cure  string `json:"cure,omitempty"`
}

// Level is how bad a Finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it works, and will not in some case
	Fail Level = "fail" // it does not work
)

// Worst returns the worst level of all.
func Worst(all []Finding) Level {
	worst := OK
	for _, f := range all {
		if rank(f.Level) > rank(worst) {
			worst = f.Level
		}
	}
	return worst
}

// Sort puts the worst first, and else keeps the order.
func Sort(all []Finding) {
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(rank(b.Level), rank(a.Level)) })
}

func rank(l Level) int { return slices.Index([]Level{OK, Warn, Fail}, l) }

// find makes a finding that is ok, or bad.
func find(check, about string, ok bool, bad Level, good, what, why, cure string) Finding {
	if ok {
		return Finding{Check: check, About: about, Level: OK, What: good}
	}
	return Finding{Check: check, About: about, Level: bad, What: what, Why: why, Cure: cure}
}
