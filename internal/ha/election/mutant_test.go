package election

import (
	"slices"
	"testing"
	"time"
)

// mutants are the rules of the protocol, each taken out in turn.
func mutants() []mutant {
	return []mutant{
		{name: "no quiet start", config: func(w *world, c *Config) { c.Quiet = false }},
		{name: "no guard", config: func(w *world, c *Config) { c.Guard = 1 }},
		{name: "clocks that drift more than the guard allows", rates: 0.12},
		{name: "a promise shorter than the lease", config: func(w *world, c *Config) { c.Guard = -c.Lease / 4 }},
		{name: "two promises at a time", acts: func(n *node, ev Event, acts []Action) []Action {
			r, ok := ev.(Received)
			if !ok || r.Msg.Kind != Ask {
				return acts
			}
			for i, a := range acts {
				if s, ok := a.(Send); ok && s.Msg.Kind == Refuse && s.To == r.From {
					s.Msg = Msg{Kind: Grant, Term: r.Msg.Term, Sent: r.Msg.Sent, Info: s.Msg.Info}
					acts[i] = s
				}
			}
			return acts
		}},
		{name: "the holder counts from the answer", deliver: func(n *node, _ ID, msg *Msg) {
			if msg.Kind == Grant && n.m.role >= Candidate {
				msg.Sent = n.local(n.w.now)
				n.m.asked = msg.Sent // or the machine would know it for a lie
			}
		}},
		{name: "the promise is waived before the address is dropped", acts: func(n *node, ev Event, acts []Action) []Action {
			slices.SortStableFunc(acts, func(a, b Action) int {
				late := func(a Action) int {
					switch a.(type) {
					case Drop, Yield:
						return 1
					}
					return 0
				}
				return late(a) - late(b)
			})
			return acts
		}},
		{name: "a thawed holder goes on without winning again", acts: func(n *node, ev Event, acts []Action) []Action {
			for i, a := range acts {
				if d, ok := a.(Drop); ok && d.Reason == Isolated && !n.deaf {
					acts[i] = Hold{Term: n.m.term, Until: n.m.now.Add(lease), Reason: n.m.held}
				}
			}
			return acts
		}},
		{name: "gone is believed while the process lives", gone: true},
		{name: "a late gone is believed of the next life", goneNow: true},
		{name: "a permit in spite of a live peer", permit: true},
		{name: "voters are those that can be reached", config: func(w *world, c *Config) {
			if i := slices.Index(c.Voters, c.Self); i > 0 {
				c.Voters = c.Voters[i-1 : i+1]
			}
		}},
		{name: "the loser of a conflict keeps the address", acts: func(n *node, ev Event, acts []Action) []Action {
			return slices.DeleteFunc(acts, func(a Action) bool {
				d, ok := a.(Drop)
				return ok && d.Reason == Conflict
			})
		}},
		{name: "a deaf holder keeps the address", acts: func(n *node, ev Event, acts []Action) []Action {
			return slices.DeleteFunc(acts, func(a Action) bool {
				d, ok := a.(Drop)
				return ok && d.Reason == Isolated && n.deaf
			})
		}},
		{name: "two have the same term", from: 4200, deliver: func(n *node, from ID, msg *Msg) {
			if msg.Kind == Ask && msg.Term == n.m.granted {
				n.m.grantee = from
			}
		}},
		{name: "an upgrade forgets what was promised", forgets: true},
		{name: "a change of the voters forgets what was promised", forgetsList: true},
		{name: "a permit without a sign of life of the arbiter", blind: true},
		{name: "a witness holds", config: func(w *world, c *Config) { c.Witness = false }},
		{name: "who holds alone never asks again", acts: func(n *node, ev Event, acts []Action) []Action {
			n.m.pair.ends = n.m.now.Add(time.Hour)
			return slices.DeleteFunc(acts, func(a Action) bool {
				p, ok := a.(WantPermit)
				return ok && p.Keep
			})
		}},
		{name: "terms are forgotten", config: func(w *world, c *Config) { c.Term = 0 }},
	}
}

// TestWorldsHaveTeeth: with a rule taken out, the worlds must find it.
func TestWorldsHaveTeeth(t *testing.T) {
	for _, mu := range mutants() {
		t.Run(mu.name, func(t *testing.T) {
			for seed := mu.from; seed < mu.from+20000; seed++ {
				if w := play(seed, mu, nil); w.fail != "" {
					t.Logf("found in world %d: %s", seed, w.fail)
					return
				}
			}
			t.Fatal("not found in 20000 worlds")
		})
	}
}
