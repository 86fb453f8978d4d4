package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Story tells why a VIP changed hands, in sentences and as a timeline. Keys are stable.
type Story struct {
	VIP    string    `json:"vip"`
	Term   uint64    `json:"term"`
	Time   time.Time `json:"time"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Text   string    `json:"text,omitempty"` // what the operator gave as the reason
	Teller string    `json:"teller"`         // whose evidence the timeline is: the new holder, if it is known
	// TookMS is from the old holder's last sign of life to the first announcement; 0 if
	// that is not known.
	TookMS float64 `json:"took_ms,omitempty"`

	Sentences []string  `json:"sentences"`
	Timeline  []Step    `json:"timeline"` // its milliseconds count from the first step
	Others    []Witness `json:"others"`   // what each other node saw
}

// A Witness is what one node saw around a change.
type Witness struct {
	Node string   `json:"node"`
	Saw  []string `json:"saw"`
}

// Why tells the story of the latest change of vip, or of the one that made term; "" is the
// VIP that changed last. It reports whether there is one.
func Why(entries []Entry, vip string, term uint64) (Story, bool) {
	var main *Entry
	for i := range entries {
		e := &entries[i]
		if e.Kind != Changed || vip != "" && e.VIP != vip || term != 0 && e.Term != term {
			continue
		}
		switch {
		case main == nil, vip == "" && e.VIP != main.VIP && e.Time.After(main.Time):
			main = e
		case e.VIP != main.VIP, e.Term < main.Term:
		case e.Term > main.Term, e.Node == e.To && main.Node != main.To:
			main = e
		}
	}
	if main == nil {
		return Story{}, false
	}
	s := Story{VIP: main.VIP, Term: main.Term, Time: main.Time, From: main.From, To: main.To, Reason: main.Reason, Text: main.Text,
		Teller: main.Node, TookMS: main.TookMS, Sentences: []string{}, Timeline: []Step{}, Others: []Witness{}}
	s.timeline(main, entries)
	s.tell(entries)
	s.ask(main, entries)
	return s, true
}

// timeline puts the evidence in order and counts from the old holder's last sign of life,
// or from the first step where there is none.
func (s *Story) timeline(main *Entry, entries []Entry) {
	steps := slices.Clone(main.Steps)
	for _, e := range entries {
		if e.Kind == Answered && e.Node == main.Node && e.VIP == main.VIP && e.Term == main.Term {
			steps = append(steps, Step{MS: e.TookMS, What: string(Answered), Node: e.Node, Text: e.Text})
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.MS, b.MS) })
	first := slices.IndexFunc(steps, func(p Step) bool { return p.What == LastHeard })
	if first < 0 {
		first = slices.IndexFunc(steps, func(p Step) bool { return p.What == string(Asked) })
	}
	if len(steps) == 0 {
		return
	}
	zero := steps[max(first, 0)].MS
	steps = slices.DeleteFunc(steps, func(p Step) bool {
		// Of what was before only signs of what was to come belong to the story.
		return p.MS < zero && !slices.Contains([]string{string(NearMiss), string(Fitness), string(Stall), string(Lost), string(Fault)}, p.What)
	})
	for i := range steps {
		steps[i].MS -= zero
	}
	s.Timeline = steps
}

// What a Step may be beside the kinds of entries.
const (
	LastHeard = "last_heard"
	Asking    = "ask"
	Lapsed    = "lapsed"
	Claim     = "claim"
	Granted   = "granted"
	Refused   = "refused"
	Take      = "take"
	Announced = "announced"
	Yield     = "yield"
)

// Sentence says one step in words.
func (p Step) Sentence() string {
	node := cmp.Or(p.Node, "another node")
	words := map[string]string{
		LastHeard:        "last sign of life of " + node,
		Asking:           "the network is asked whether this node may hold without " + node,
		string(Permit):   "the network's answer",
		Lapsed:           "what was promised to " + node + " is over",
		Claim:            "asks for the lease",
		Granted:          node + " promises it",
		Refused:          node + " does not promise it",
		Take:             "has the lease",
		Announced:        "the address is here and announced",
		string(Answered): "this node's own listeners answer",
		Yield:            "the address is handed to " + node + ": silent here, still accepting",
		string(Released): "the address is let go",
		string(Heard):    node + " is heard",
		string(Lost):     node + " is lost",
		string(NearMiss): node + " was silent for long",
		string(Stall):    "this node itself was asleep",
		string(Fault):    "this node could not hold the address",
		string(Fitness):  "fitness of this node",
		string(Asked):    "a hand-over is asked for on " + node,
		string(Config):   "another configuration is in force",
	}
	out := cmp.Or(words[p.What], p.What)
	if p.Text != "" {
		out += ": " + p.Text
	}
	return out
}

// step returns the last step of a kind that is about node, "" for anyone.
func (s *Story) step(what, node string) *Step {
	for i := len(s.Timeline) - 1; i >= 0; i-- {
		if p := &s.Timeline[i]; p.What == what && (node == "" || p.Node == node) {
			return p
		}
	}
	return nil
}

// tell makes the sentences.
func (s *Story) tell(entries []Entry) {
	say := func(format string, a ...any) { s.Sentences = append(s.Sentences, fmt.Sprintf(format, a...)) }
	from := cmp.Or(s.From, "nobody")
	say("%s took %s from %s at %s under term %d.", s.To, s.VIP, from, s.Time.UTC().Format("2006-01-02 15:04:05.000Z"), s.Term)
	lost := s.step(string(Lost), s.From)
	switch s.Reason {
	case "node_dead":
		switch {
		case lost != nil && strings.Contains(lost.Text, "refused"):
			say("The process of %s was gone: %s, %.1f ms after its last sign of life. Nothing had to be waited for.", from, lost.Text, lost.MS)
		case lost != nil:
			say("Nothing was heard of %s any more (%s).", from, lost.Text)
		default:
			say("The lease of %s ended without being renewed.", from)
		}
		if p := s.step(Lapsed, s.From); p != nil {
			say("Its right to the address was over %.0f ms after its last sign of life (%s).", p.MS, p.Text)
		}
	case "planned":
		if s.Text != "" {
			say("It was planned: %q.", s.Text)
		} else {
			say("It was planned; no reason was given.")
		}
		if p := s.step(string(Asked), ""); p != nil {
			say("It was asked for on %s (%s).", cmp.Or(p.Node, "a node"), p.Text)
		}
	case "check_failed":
		why := "it says no more"
		for _, e := range entries {
			if e.Kind == Fitness && e.Node == s.From && !e.Time.After(s.Time.Add(time.Second)) {
				why = e.Text
			}
		}
		say("%s handed it over because it could not serve (%s).", from, why)
	case "preempt":
		say("%s comes before %s in vip.%s.prefer and had been well for long enough (preempt).", s.To, from, s.VIP)
	case "conflict":
		say("Both had held it during a cut; on first contact %s stayed and %s let go.", s.To, from)
	case "isolated":
		say("%s had let it go, because it was cut off from its voters or heard nothing on the address's network.", from)
	case "start":
		say("Nobody was known to hold it.")
	case "spread":
		say("The addresses spread over the nodes again.")
	}
	if p := s.step(string(Permit), ""); p != nil {
		say("Before that the network was asked whether %s may hold alone; %s.", s.To, p.Text)
	}
	var promised []string
	for _, p := range s.Timeline {
		if p.What == Granted && !slices.Contains(promised, p.Node) {
			promised = append(promised, p.Node)
		}
	}
	if len(promised) > 0 {
		say("It was promised by %s.", strings.Join(promised, ", "))
	}
	if p := s.step(string(Stall), ""); p != nil {
		say("%s itself had been asleep: %s.", s.Teller, p.Text)
	}
	if s.TookMS > 0 {
		say("From the last sign of life of %s to the first announcement by %s it took %.1f ms.", from, s.To, s.TookMS)
	}
	if s.Teller != s.To {
		say("The evidence is that of %s: nothing was learned from %s itself.", s.Teller, s.To)
	}
}

// before and after are how far from a change what the others saw belongs to it.
const (
	before = 5 * time.Second
	after  = 15 * time.Second
)

// ask lists what the other nodes saw.
func (s *Story) ask(main *Entry, entries []Entry) {
	saw := map[string][]string{}
	for _, e := range entries {
		if e.Node == main.Node || e.VIP != "" && e.VIP != s.VIP {
			continue
		}
		same := e.VIP == s.VIP && e.Term == s.Term
		if d := e.Time.Sub(s.Time); !same && (d < -before || d > after) {
			continue
		}
		saw[e.Node] = append(saw[e.Node], e.Time.UTC().Format("15:04:05.000")+"  "+e.Sentence())
	}
	for node, list := range saw {
		s.Others = append(s.Others, Witness{node, list[max(len(list)-12, 0):]})
	}
	slices.SortFunc(s.Others, func(a, b Witness) int { return cmp.Compare(a.Node, b.Node) })
}

// Sentence says an entry in one line, without who tells it and when.
func (e *Entry) Sentence() string {
	var b strings.Builder
	about := cmp.Or(e.To, "another node")
	switch e.Kind {
	case Changed:
		if e.Node != e.To {
			b.WriteString("saw ")
		}
		fmt.Fprintf(&b, "%s: %s -> %s  %s", e.VIP, cmp.Or(e.From, "-"), cmp.Or(e.To, "-"), e.Reason)
		if e.TookMS > 0 {
			fmt.Fprintf(&b, " in %.1f ms", e.TookMS)
		}
	case Answered:
		fmt.Fprintf(&b, "%s: own listeners answered %.1f ms after the announcement", e.VIP, e.TookMS)
	case Released:
		fmt.Fprintf(&b, "%s: let go", e.VIP)
	case Heard:
		fmt.Fprintf(&b, "hears %s", about)
		if e.TookMS > 0 {
			fmt.Fprintf(&b, " after %.0f ms of silence", e.TookMS)
		}
	case Lost:
		fmt.Fprintf(&b, "lost %s, %.1f ms after its last sign of life", about, e.TookMS)
	case NearMiss:
		fmt.Fprintf(&b, "near miss: %s was silent", about)
	case Permit:
		fmt.Fprintf(&b, "%s: may this node hold without %s", e.VIP, about)
	case Fitness:
		b.WriteString("this node is now " + e.Text)
		return b.String()
	case Track:
		return e.Text
	case Asked:
		fmt.Fprintf(&b, "%s: hand-over asked for on %s", e.VIP, about)
	case Stall:
		fmt.Fprintf(&b, "this node was asleep for %.0f ms", e.TookMS)
	case Fault:
		fmt.Fprintf(&b, "%s: cannot be held here", e.VIP)
	case Conflict:
		fmt.Fprintf(&b, "%s: another host claims it", e.VIP)
	case Repair:
		if e.VIP == "" {
			return e.Text + "; put back"
		}
		fmt.Fprintf(&b, "%s: somebody else removed it; put back", e.VIP)
	case Config:
		b.WriteString("configuration")
	case Keys:
		b.WriteString("keys")
	case Overload:
		return e.Text
	case Certificate:
		b.WriteString("certificate")
	case Started:
		b.WriteString("proxyd started")
	case Upgraded:
		b.WriteString("upgrade")
	case Stopped:
		b.WriteString("proxyd stops")
	default:
		b.WriteString(string(e.Kind))
	}
	if e.Kind != Changed && e.Reason != "" {
		b.WriteString(" (" + e.Reason + ")")
	}
	if e.Text != "" {
		if e.Kind == Changed {
			fmt.Fprintf(&b, " (%q)", e.Text)
		} else {
			b.WriteString(": " + e.Text)
		}
	}
	return b.String()
}
