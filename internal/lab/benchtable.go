package lab

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Table sets the contestants side by side: medians, and the median of the ratios to the
// measure of all proxies, nginx, within the same round.
func (r *BenchResult) Table() Table {
	t := Table{Head: []string{"work", "proxy", "CPU us/request", "of " + r.yardstick(), "requests/s", "p50", "p99", "errors"}}
	for _, work := range r.Works {
		base := r.Turns[[2]string{work, r.yardstick()}]
		for _, name := range r.Names {
			turns := r.Turns[[2]string{work, name}]
			if len(turns) == 0 {
				continue
			}
			var cpu, ratio, perSec []float64
			var p50, p99 []time.Duration
			errors := 0
			for i, turn := range turns {
				cpu, perSec = append(cpu, turn.CPU), append(perSec, turn.PerSec)
				p50, p99 = append(p50, turn.P50), append(p99, turn.P99)
				errors += turn.Errors
				if i < len(base) && base[i].CPU > 0 {
					ratio = append(ratio, turn.CPU/base[i].CPU)
				}
			}
			of := "-"
			if len(ratio) > 0 {
				of = fmt.Sprintf("%.2f", Median(ratio))
			}
			t.Add(work, name, fmt.Sprintf("%.1f", Median(cpu)), of, fmt.Sprintf("%.0f", Median(perSec)),
				show(Median(p50)), show(Median(p99)), fmt.Sprint(errors))
		}
	}
	return t
}

// Goals says what was reached of what is aimed at, and returns an error that names what was
// missed. Ratios are medians of those within a round, to the one of the others whose own
// median is the best.
func (r *BenchResult) Goals() (Table, error) {
	t := Table{Head: []string{"work", "what", "best of the others", "ratio", "rounds from to", "goal", ""}}
	var missed []error
	add := func(work, what, best string, ratios []float64, goal float64) {
		if len(ratios) == 0 {
			missed = append(missed, fmt.Errorf("%s: %s: %s has nothing in any round that could be compared", work, what, best))
			t.Add(work, what, best, "-", "-", fmt.Sprintf("%.2f", goal), "not measured")
			return
		}
		verdict, ratio := "reached", Median(ratios)
		if ratio > goal {
			verdict = "missed"
			missed = append(missed, fmt.Errorf("%s: %s is %.2f of that of %s: %w at most %.2f", work, what, ratio, best, ErrPromise, goal))
		}
		t.Add(work, what, best, fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f %.2f", slices.Min(ratios), slices.Max(ratios)), fmt.Sprintf("%.2f", goal), verdict)
	}
	for _, w := range r.works {
		own, others := cmp.Or(w.own, proxydName), w.to
		if len(others) == 0 {
			others = []string{"nginx", "HAProxy"}
		}
		cpu := func(name string, round int) float64 { return r.Turns[[2]string{w.name, name}][round].CPU }
		if w.goal > 0 {
			if name, ratios := r.best(w.name, own, others, r.rounds(w.name, own), cpu); name != "" {
				add(w.name, "CPU a request", name, ratios, w.goal)
			}
			for _, other := range []string{"Caddy", traefikName} {
				if name, ratios := r.best(w.name, own, []string{other}, r.rounds(w.name, own), cpu); name != "" {
					add(w.name, "CPU a request", name, ratios, goalGo)
				}
			}
		}
		if alone := r.Turns[[2]string{w.name, direct}]; w.goal99 > 0 && len(alone) > 0 {
			added := func(name string, round int) float64 {
				return (r.Turns[[2]string{w.name, name}][round].P99 - alone[round].P99).Seconds()
			}
			if name, ratios := r.best(w.name, own, others, min(len(alone), r.rounds(w.name, own)), added); name != "" {
				add(w.name, "p99 added", name, ratios, w.goal99)
			}
		}
	}
	if mine, ok := r.Idle[proxydName]; ok && r.Idle["nginx"] > 0 {
		add("an idle connection", "memory", "nginx", []float64{mine / r.Idle["nginx"]}, goalIdle)
	}
	return t, errors.Join(missed...)
}

const (
	goalGo   = 0.25 // to Caddy and Traefik
	goalIdle = 1.5
)

// rounds returns how many turns a contestant had: of a run that broke off not all have the same.
func (r *BenchResult) rounds(work, name string) int { return len(r.Turns[[2]string{work, name}]) }

// best returns which of others has the lowest median of what of says, and own's ratios to it,
// one for each of the first rounds that both had and in which there is something to divide by.
// There is no name if own or all others were not measured.
func (r *BenchResult) best(work, own string, others []string, rounds int, of func(name string, round int) float64) (name string, ratios []float64) {
	lowest := 0.0
	for _, o := range others {
		var all []float64
		for i := range min(rounds, r.rounds(work, o)) {
			all = append(all, of(o, i))
		}
		if len(all) == 0 {
			continue
		}
		if m := Median(all); name == "" || m < lowest {
			name, lowest = o, m
		}
	}
	if name == "" {
		return "", nil
	}
	for i := range min(rounds, r.rounds(work, name)) {
		if other := of(name, i); other > 0 {
			ratios = append(ratios, of(own, i)/other)
		}
	}
	return name, ratios
}

// MemoryTable says what each contestant has resident, and what an idle connection costs.
func (r *BenchResult) MemoryTable() Table {
	t := Table{Head: []string{"proxy", "version", "resident MB", "KB an idle connection"}}
	for _, name := range r.Names {
		if _, measured := r.Resident[name]; !measured {
			continue
		}
		idle := "-"
		if bytes, ok := r.Idle[name]; ok {
			idle = fmt.Sprintf("%.2f", bytes/1024)
		}
		t.Add(name, r.Versions[name], fmt.Sprintf("%.1f", float64(r.Resident[name])/1e6), idle)
	}
	return t
}

// yardstick is the contestant that the others are compared with: nginx if it takes part.
func (r *BenchResult) yardstick() string {
	for _, name := range r.Names {
		if name == "nginx" {
			return name
		}
	}
	if len(r.Names) == 0 {
		return ""
	}
	return r.Names[0]
}
