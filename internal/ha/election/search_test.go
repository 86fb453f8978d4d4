package election

import (
	"cmp"
	"flag"
	"fmt"
	"hash/maphash"
	"slices"
	"testing"
	"time"
	"unsafe"

	"proxyd/internal/clock"
)

var depthFlag = flag.Int("depth", 5, "how many events to play in every order")

// scene is a small cluster at one instant, on exact clocks. It is never changed: each event
// makes another one.
type scene struct {
	now    clock.Instant
	voices []voice
	post   []sent // under way, each of which may come at any time or never
	cut    bool   // the first voter and the others do not reach each other
	spent  spent
	term   uint64 // highest with which was held
	last   int    // who held then
	trail  *trail
}

// voice is a voter and what the world around it knows of it.
type voice struct {
	m      *Machine // nil if its process is gone
	conf   Config
	until  clock.Instant // holds until then
	died   clock.Instant // 0 if it never did
	told   [3]bool       // who was told that it is gone
	permit uint64        // the round of the permit that it waits for
}

type sent struct {
	from, to int
	msg      Msg
}

// spent counts what may happen only once or twice in a search.
type spent struct{ deaths, cuts, orders int }

// trail is how a scene came about.
type trail struct {
	before *trail
	what   func() string
}

func (t *trail) String() string {
	if t == nil {
		return ""
	}
	return t.before.String() + "\n  " + t.what()
}

// says puts voters into words, when they are asked for.
func says(what string, voters ...int) func() string {
	return func() string {
		var ids []any
		for _, v := range voters {
			ids = append(ids, 'a'+v)
		}
		return fmt.Sprintf(what, ids...)
	}
}

// stage is a scene of n voters right after their starts.
func stage(n int) scene {
	s := scene{now: clock.Instant(time.Hour), last: -1}
	var ids []ID
	for i := range n {
		ids = append(ids, ID(rune('a'+i)))
	}
	for _, id := range ids {
		c := Config{Self: id, Voters: ids, Lease: lease, Guard: guard, Beat: lease / 5}
		s.voices = append(s.voices, voice{conf: c, m: New(s.now, c)})
	}
	return s
}

// calm lets s become quiet, with everything delivered, until somebody holds.
func (s scene) calm(mu mutant) scene {
	for range 1000 {
		switch {
		case len(s.post) > 0:
			s, _ = s.deliver(0, mu)
		case slices.ContainsFunc(s.voices, func(v voice) bool { return v.until > s.now }):
			return s
		default:
			first := 0
			for i, v := range s.voices {
				if v.m.Deadline() < s.voices[first].m.Deadline() {
					first = i
				}
			}
			s, _ = s.tick(first, mu)
		}
	}
	panic("nobody holds in a calm cluster")
}

// after returns s with an event given to voter i, or what is wrong then.
func (s scene) after(i int, ev Event, mu mutant, what func() string) (scene, string) {
	s.voices, s.post = slices.Clone(s.voices), slices.Clone(s.post)
	at := s.now.Sub(clock.Instant(time.Hour))
	s.trail = &trail{s.trail, func() string { return fmt.Sprint(at, " ", what()) }}
	v := &s.voices[i]
	m := *v.m
	m.peers = slices.Clone(m.peers)
	v.m = &m
	n := &node{w: &world{now: time.Duration(s.now)}, m: v.m, rate: 1}
	if r, ok := ev.(Received); ok && mu.deliver != nil {
		mu.deliver(n, r.From, &r.Msg)
		ev = r
	}
	acts := m.Step(s.now, ev)
	if mu.acts != nil {
		acts = mu.acts(n, ev, acts)
	}
	fault := ""
	for _, a := range acts {
		switch a := a.(type) {
		case Send:
			if to := int(a.To[0] - 'a'); !s.parted(i, to) {
				s.post = append(s.post, sent{i, to, a.Msg})
			}
		case Hold:
			fault = cmp.Or(fault, s.holding(i, a))
			v.until, s.last, s.term = a.Until, i, max(s.term, a.Term)
		case Yield, Drop:
			v.until = 0
		case WantPermit:
			v.permit = a.Round
		}
	}
	slices.SortFunc(s.post, func(a, b sent) int {
		return cmp.Or(a.from-b.from, a.to-b.to, int(a.msg.Kind)-int(b.msg.Kind), cmp.Compare(a.msg.Term, b.msg.Term), cmp.Compare(a.msg.Sent, b.msg.Sent))
	})
	return s, fault
}

// holding says what is wrong with a Hold.
func (s *scene) holding(i int, a Hold) string {
	for j, o := range s.voices {
		if j != i && o.until > s.now && a.Until > s.now {
			return fmt.Sprintf("%s holds, term %d, while %s does", s.voices[i].conf.Self, a.Term, o.conf.Self)
		}
	}
	if i != s.last && a.Term <= s.term && len(s.voices) > 2 {
		return fmt.Sprintf("%s holds with term %d, not above %d", s.voices[i].conf.Self, a.Term, s.term)
	}
	return ""
}

func (s *scene) parted(i, j int) bool { return s.cut && (i == 0) != (j == 0) }

func (s scene) deliver(k int, mu mutant) (scene, string) {
	l := s.post[k]
	s.post = slices.Delete(slices.Clone(s.post), k, k+1)
	if s.voices[l.to].m == nil {
		return s, ""
	}
	from := s.voices[l.from].conf.Self
	return s.after(l.to, Received{from, l.msg}, mu, func() string { return fmt.Sprintf("%s -> %c  %s", from, 'a'+l.to, words(l.msg)) })
}

// tick lets time pass until voter i wants a Tick, and no other is given one.
func (s scene) tick(i int, mu mutant) (scene, string) {
	s.now = max(s.now, s.voices[i].m.Deadline())
	return s.after(i, Tick{}, mu, says("%c ticks", i))
}

// next calls f with each scene that may follow, and what is wrong with it.
func (s scene) next(mu mutant, f func(scene, string)) {
	for k := range s.post {
		if k == 0 || s.post[k] != s.post[k-1] {
			f(s.deliver(k, mu))
		}
	}
	for i, v := range s.voices {
		id := v.conf.Self
		if v.m == nil {
			f(s.born(i, mu), "")
		} else {
			f(s.tick(i, mu))
			if s.spent.deaths < 1 {
				f(s.dead(i), "")
			}
			if s.spent.orders < 1 && v.until > s.now {
				o := s
				o.spent.orders++
				f(o.after(i, HandOver{}, mu, says("%c is told to hand over", i)))
			}
			if v.permit != 0 {
				// The network shows whether a live holder is there. No is as no answer.
				if ok := mu.permit || s.voices[1-i].m == nil; ok {
					o := s
					o.voices = slices.Clone(s.voices)
					o.voices[i].permit = 0
					f(o.after(i, Permit{Round: v.permit, Ok: true}, mu, says("%c gets a permit", i)))
				}
			}
		}
		for j, o := range s.voices {
			if v.died != 0 && j != i && o.m != nil && !v.told[j] {
				at := v.died
				if mu.goneNow {
					at = 0
				}
				o := s
				o.voices = slices.Clone(s.voices)
				o.voices[i].told[j] = true
				f(o.after(j, Gone{id, at}, mu, says("%c is told that %c is gone", j, i)))
			}
		}
	}
	if s.spent.cuts < 2 {
		o := s
		o.spent.cuts++
		o.cut = !s.cut
		o.trail = &trail{s.trail, func() string { return fmt.Sprintf("a is cut off: %v", o.cut) }}
		f(o, "")
	}
}

// dead ends the process of a voter.
func (s scene) dead(i int) scene {
	s.voices = slices.Clone(s.voices)
	v := &s.voices[i]
	v.conf.Term, v.m, v.until, v.died, v.permit = v.m.View().Term, nil, 0, s.now, 0
	s.spent.deaths++
	s.trail = &trail{s.trail, says("%c dies", i)}
	return s
}

// born begins its next life.
func (s scene) born(i int, mu mutant) scene {
	s.voices = slices.Clone(s.voices)
	v := &s.voices[i]
	c := v.conf
	c.Quiet = true
	if mu.config != nil {
		mu.config(nil, &c)
	}
	v.m = New(s.now, c)
	s.trail = &trail{s.trail, says("%c starts", i)}
	return s
}

// key tells scenes apart by all that has a bearing on what follows.
func (s *scene) key(seed maphash.Seed) uint64 {
	h := new(maphash.Hash)
	h.SetSeed(seed)
	plain := *s
	plain.voices, plain.post, plain.trail = nil, nil, nil
	write(h, []scene{plain})
	write(h, s.post)
	for _, v := range s.voices {
		m := v.m
		v.m, v.conf = nil, Config{Term: v.conf.Term}
		write(h, []voice{v})
		if m != nil {
			write(h, m.peers)
			plain := *m
			plain.peers, plain.acts = nil, nil
			write(h, []Machine{plain})
		}
	}
	return h.Sum64()
}

// write writes the memory of a list: whatever is added to a machine is in the key. Texts are
// constants, so equal ones are at one place; of two that were not, a scene would be seen twice.
func write[T any](h *maphash.Hash, list []T) {
	if len(list) > 0 {
		_, _ = h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&list[0])), len(list)*int(unsafe.Sizeof(list[0]))))
	}
}

// search plays all that can happen to s in depth events. It returns what is wrong, if
// anything is, with how it came about, and how many scenes it saw.
func search(s scene, depth int, mu mutant) (fault string, scenes int) {
	seed := maphash.MakeSeed()
	seen := map[uint64]bool{s.key(seed): true}
	front := []scene{s}
	for range depth {
		var ahead []scene
		for _, s := range front {
			s.next(mu, func(o scene, wrong string) {
				if wrong != "" && fault == "" {
					fault = wrong + o.trail.String()
				}
				if k := o.key(seed); !seen[k] {
					seen[k] = true
					ahead = append(ahead, o)
				}
			})
			if fault != "" {
				return fault, len(seen)
			}
		}
		front = ahead
	}
	return "", len(seen)
}

// TestEveryOrderOfFewEvents: of two and three voters, one of which holds or all of which just
// began, whatever comes in whatever order, two never hold and terms rise.
func TestEveryOrderOfFewEvents(t *testing.T) {
	for n := 2; n <= 3; n++ {
		for name, root := range map[string]scene{"new": stage(n), "calm": stage(n).calm(mutant{})} {
			began := time.Now()
			fault, scenes := search(root, *depthFlag+2-n, mutant{})
			if fault != "" {
				t.Errorf("%d voters, %s: %s", n, name, fault)
			}
			t.Logf("%d voters, %s: %d scenes in %v", n, name, scenes, time.Since(began))
		}
	}
}

// TestSearchHasTeeth: with a rule taken out, the search must find it.
func TestSearchHasTeeth(t *testing.T) {
	for _, mu := range mutants() {
		if !slices.Contains([]string{"two promises at a time", "a permit in spite of a live peer"}, mu.name) {
			continue
		}
		t.Run(mu.name, func(t *testing.T) {
			for n := 2; n <= 3; n++ {
				if fault, scenes := search(stage(n).calm(mutant{}), 7, mu); fault != "" {
					t.Logf("found after %d scenes: %s", scenes, fault)
					return
				}
			}
			t.Error("not found")
		})
	}
}
