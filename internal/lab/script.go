package lab

import (
	"context"
	"fmt"
	"io"
	"time"
)

// single is how many times its promise one event may take: single samples scatter, and
// machines of CI are shared. The drill judges medians.
const single = 5

// DemoLoad is the load of the demo.
func DemoLoad() LoadSpec {
	return LoadSpec{Rate: 200, Kept: 16, KeptRate: 400, Deadline: time.Second}
}

// startPromise is of the time from the start of both nodes to undisturbed service.
func startPromise() Promise {
	return Promise{Outage: 5 * time.Second, Failed: anyFailed, Two: AddressLifetime}
}

// scriptFaults is what the demo plays when nobody is there to press keys.
func scriptFaults() []Fault {
	var out []Fault
	for _, key := range []string{"handover", "kill", "cut", "freeze"} {
		f, err := FaultByKey(key)
		if err != nil {
			panic(err) // the list above is of this package
		}
		if key == "freeze" {
			f.Name, f.Lasts = "SIGSTOP 3 s", 3*time.Second
		}
		out = append(out, f)
	}
	return out
}

// Script plays the demo once without a terminal, writing a line as each event is over and
// a table at the end. kept says whether every event stayed within five times its promise.
func Script(ctx context.Context, p Plan, w io.Writer) (kept bool, err error) {
	rig, err := NewRig(p, DemoLoad())
	if err != nil {
		return false, err
	}
	defer rig.Close()
	fmt.Fprintf(w, "Two hosts with proxyd, three web servers and a client, on a network in this machine.\n"+
		"The client asks %v for 600 pages a second; a watcher asks who has that address.\n\n", rig.Stage.VIP)
	for _, n := range rig.Stage.Nodes {
		fmt.Fprintf(w, "  %s --socket %s status\n", hactlBeside(), n.Socket)
	}
	fmt.Fprintln(w)
	for _, refused := range Withheld() {
		fmt.Fprintln(w, "this kernel refuses", refused)
	}
	measures, err := rig.script(ctx, w)
	if len(measures) > 0 {
		fmt.Fprintln(w)
		table := EventTable(measures)
		if err := table.WriteText(w); err != nil {
			return false, err
		}
	}
	if err != nil {
		return false, err
	}
	kept = true
	for _, m := range measures {
		if !m.Within(single) {
			kept = false
			fmt.Fprintf(w, "\n%s: more than %d times what is promised\n", m.Event, single)
		}
	}
	return kept, nil
}

func (r *Rig) script(ctx context.Context, w io.Writer) ([]Measure, error) {
	began := Now()
	if err := r.Stage.Start(ctx, patience); err != nil {
		return nil, err
	}
	if err := r.Steady(ctx, patience); err != nil {
		return nil, err
	}
	measures := []Measure{r.Measure("start of both", startPromise(), began, Now())}
	fmt.Fprintln(w, measures[0])
	steady := Now()
	if err := pause(ctx, settle); err != nil {
		return measures, err
	}
	measures = append(measures, r.Measure("nothing happens", Promise{Outage: 100 * time.Millisecond, Failed: 0, Two: 0}, steady, Now()))
	fmt.Fprintln(w, measures[1])
	for _, f := range scriptFaults() {
		ms, err := r.Try(ctx, f)
		for _, m := range ms {
			fmt.Fprintln(w, m)
		}
		measures = append(measures, ms...)
		if err != nil {
			return measures, err
		}
	}
	return measures, nil
}

// EventTable lays single events out for reading.
func EventTable(measures []Measure) Table {
	t := Table{Head: []string{"event", "outage", "promise", "failed", "how", "kept conns", "two at once", "holder"}}
	for _, m := range measures {
		t.Add(m.Event, show(m.Outage), "< "+show(m.Promise.Outage), fmt.Sprint(m.FailedAll()), kinds(m.Failed),
			fmt.Sprint(m.KeptFailed), show(m.Two), moved(m))
	}
	return t
}

// kinds writes how many failed in which way.
func kinds(failed map[Outcome]int) string {
	out := ""
	for _, o := range []Outcome{Refused, Reset, TimedOut, Unreachable, ServerError, Garbled} {
		if n := failed[o]; n > 0 {
			if out != "" {
				out += ", "
			}
			out += fmt.Sprintf("%d %s", n, o)
		}
	}
	return out
}

func moved(m Measure) string {
	name := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	if m.Before == m.After {
		return name(m.After)
	}
	return name(m.Before) + " -> " + name(m.After)
}
