package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Row is what all trials of one event showed, beside its promise.
type Row struct {
	Event      string         `json:"event"`
	Runs       int            `json:"runs"`
	Outage     []float64      `json:"outage_ms"`
	Median     float64        `json:"outage_median_ms"`
	Max        float64        `json:"outage_max_ms"`
	Promise    float64        `json:"outage_promise_ms"`
	Stall      float64        `json:"client_stall_max_ms"` // longest time in which the client itself stood still
	Failed     map[string]int `json:"failed"`              // requests on connections of their own, by kind
	FailedMost int            `json:"failed_most"`
	FailedMid  int            `json:"failed_median"`
	MayFail    *int           `json:"failed_promise"` // null: no promise
	KeptFailed int            `json:"kept_failed"`
	Requests   int            `json:"requests"`
	Seen       []string       `json:"seen"`            // hosts that answered for the VIP
	TwoMax     float64        `json:"two_max_ms"`      // longest time two answered at once
	MayTwo     *float64       `json:"two_promise"`     // null: no promise
	Moved      int            `json:"moved"`           // times the VIP had another holder afterwards
	ChangesMax int            `json:"changes_max"`     // most changes of who answered, in one run
	MayChange  *int           `json:"changes_promise"` // null: no promise
	Kept       bool           `json:"promise_kept"`
	Broken     []string       `json:"promise_broken,omitempty"` // how it was not
}

// Rows sums measures up, one row per event in the order of their first appearance.
func Rows(measures []Measure) []Row {
	var order []string
	by := map[string][]Measure{}
	for _, m := range measures {
		if by[m.Event] == nil {
			order = append(order, m.Event)
		}
		by[m.Event] = append(by[m.Event], m)
	}
	var rows []Row
	for _, event := range order {
		rows = append(rows, row(event, by[event]))
	}
	return rows
}

func row(event string, ms []Measure) Row {
	r := Row{Event: event, Runs: len(ms), Failed: map[string]int{}}
	var outage, failed []time.Duration
	var two time.Duration
	for _, m := range ms {
		outage = append(outage, m.Outage)
		failed = append(failed, time.Duration(m.FailedAll()))
		r.Outage = append(r.Outage, millis(m.Outage))
		for kind, n := range m.Failed {
			r.Failed[kind.String()] += n
		}
		r.KeptFailed += m.KeptFailed
		r.Requests += m.Requests
		for _, n := range m.Seen {
			r.Seen = with(r.Seen, n)
		}
		two = max(two, m.Two)
		r.ChangesMax = max(r.ChangesMax, m.Changes)
		r.Stall = max(r.Stall, millis(m.Stall))
		if m.Before != m.After {
			r.Moved++
		}
	}
	p := ms[0].Promise
	r.Median, r.Max, r.Promise = millis(Median(outage)), millis(slices.Max(outage)), millis(p.Outage)
	r.FailedMid, r.FailedMost = int(Median(failed)), int(slices.Max(failed))
	r.TwoMax = millis(two)
	if Median(outage) > p.Outage {
		r.Broken = append(r.Broken, fmt.Sprintf("outage %s over %s", show(Median(outage)), show(p.Outage)))
	}
	if p.Failed != anyFailed {
		r.MayFail = &p.Failed
		if r.FailedMid > p.Failed {
			r.Broken = append(r.Broken, fmt.Sprintf("%d failed, not %d", r.FailedMid, p.Failed))
		}
	}
	if p.Two != anyTime {
		limit := millis(p.Two)
		r.MayTwo = &limit
		// What is seen every so often is known no better than that.
		if two > p.Two+askEvery {
			r.Broken = append(r.Broken, fmt.Sprintf("two holders for %s", show(two)))
		}
	}
	if r.MayChange = p.Changes; p.Changes != nil && r.ChangesMax > *p.Changes {
		r.Broken = append(r.Broken, fmt.Sprintf("the VIP moved %d times, not %d", r.ChangesMax, *p.Changes))
	}
	r.Kept = len(r.Broken) == 0
	return r
}

// AllKept reports whether every promise was kept, by the medians.
func AllKept(rows []Row) bool {
	return !slices.ContainsFunc(rows, func(r Row) bool { return !r.Kept })
}

// WriteJSON writes rows as one JSON document.
func WriteJSON(w io.Writer, rows []Row) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"rows": rows, "promises_kept": AllKept(rows)})
}

// DrillTable lays rows out for reading.
func DrillTable(rows []Row) Table {
	t := Table{Head: []string{"event", "runs", "outage", "max", "promise", "failed", "kept conns", "two at once", "who answered", "moved", ""}}
	for _, r := range rows {
		verdict := "ok"
		if !r.Kept {
			verdict = "BROKEN: " + strings.Join(r.Broken, "; ")
		}
		failed := fmt.Sprint(r.FailedMid)
		if r.FailedMost != r.FailedMid {
			failed += fmt.Sprintf(" (max %d)", r.FailedMost)
		}
		if r.MayFail != nil {
			failed += fmt.Sprintf(" of %d", *r.MayFail)
		}
		t.Add(r.Event, fmt.Sprint(r.Runs), showMS(r.Median), showMS(r.Max), "< "+showMS(r.Promise), failed,
			fmt.Sprint(r.KeptFailed), showMS(r.TwoMax), strings.Join(r.Seen, " "), fmt.Sprintf("%d of %d", r.Moved, r.Runs), verdict)
	}
	return t
}

func millis(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond)) / 1e6 }

func show(d time.Duration) string { return showMS(millis(d)) }

// showMS prints milliseconds with three figures at the most where that is enough.
func showMS(ms float64) string {
	switch {
	case ms >= 10000:
		return fmt.Sprintf("%.1f s", ms/1000)
	case ms >= 10 || ms == 0:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f ms", ms)
}
