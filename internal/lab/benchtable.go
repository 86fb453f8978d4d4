package lab

import (
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
			t.Add(work, name, fmt.Sprintf("%.1f", Median(cpu)), fmt.Sprintf("%.2f", Median(ratio)), fmt.Sprintf("%.0f", Median(perSec)),
				show(Median(p50)), show(Median(p99)), fmt.Sprint(errors))
		}
	}
	return t
}

// MemoryTable says what each contestant has resident, and what an idle connection costs.
func (r *BenchResult) MemoryTable() Table {
	t := Table{Head: []string{"proxy", "version", "resident MB", "KB an idle connection"}}
	for _, name := range r.Names {
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
