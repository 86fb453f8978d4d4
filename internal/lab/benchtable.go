package lab

import (
	"cmp"
	"fmt"
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

// GoalTable says what was reached of what is aimed at: medians of proxyd, as a ratio to
// the best of the others.
func (r *BenchResult) GoalTable() Table {
	t := Table{Head: []string{"work", "what", "best of the others", "ratio", "goal", ""}}
	add := func(work, what, best string, ratio, goal float64) {
		verdict := "reached"
		if ratio > goal {
			verdict = "missed"
		}
		t.Add(work, what, best, fmt.Sprintf("%.2f", ratio), fmt.Sprintf("%.2f", goal), verdict)
	}
	cpu := func(t Turn) float64 { return t.CPU }
	for _, w := range r.works {
		own, others := cmp.Or(w.own, proxydName), w.to
		if len(others) == 0 {
			others = []string{"nginx", "HAProxy"}
		}
		if w.goal > 0 {
			if name, ratio := r.best(w.name, own, others, cpu); name != "" {
				add(w.name, "CPU a request", name, ratio, w.goal)
			}
			for _, other := range []string{"Caddy", traefikName} {
				if name, ratio := r.best(w.name, own, []string{other}, cpu); name != "" {
					add(w.name, "CPU a request", name, ratio, goalGo)
				}
			}
		}
		if w.goal99 > 0 {
			alone := r.median(w.name, direct, func(t Turn) float64 { return t.P99.Seconds() })
			added := func(t Turn) float64 { return t.P99.Seconds() - alone }
			if name, ratio := r.best(w.name, own, others, added); name != "" {
				add(w.name, "p99 added", name, ratio, w.goal99)
			}
		}
	}
	if mine, ok := r.Idle[proxydName]; ok && r.Idle["nginx"] > 0 {
		add("an idle connection", "memory", "nginx", mine/r.Idle["nginx"], goalIdle)
	}
	return t
}

const (
	goalGo   = 0.25 // to Caddy and Traefik
	goalIdle = 1.5
)

// best returns which of others has the lowest median, and the ratio of own's to it; no
// name if one side was not measured.
func (r *BenchResult) best(work, own string, others []string, of func(Turn) float64) (name string, ratio float64) {
	if len(r.Turns[[2]string{work, own}]) == 0 {
		return "", 0
	}
	lowest := 0.0
	for _, o := range others {
		if len(r.Turns[[2]string{work, o}]) == 0 {
			continue
		}
		if m := r.median(work, o, of); name == "" || m < lowest {
			name, lowest = o, m
		}
	}
	if lowest <= 0 {
		return "", 0
	}
	return name, r.median(work, own, of) / lowest
}

func (r *BenchResult) median(work, name string, of func(Turn) float64) float64 {
	var all []float64
	for _, t := range r.Turns[[2]string{work, name}] {
		all = append(all, of(t))
	}
	if len(all) == 0 {
		return 0
	}
	return Median(all)
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
