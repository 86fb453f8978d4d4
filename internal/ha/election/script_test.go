package election

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/clock"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// script is a small cluster on exact clocks, a network of one millisecond, and a pen.
type script struct {
	t     *testing.T
	now   time.Duration
	nodes []*actor
	cut   map[[2]int]bool
	post  []letter
	out   strings.Builder
}

type actor struct {
	id      ID
	m       *Machine
	conf    Config
	dead    bool
	until   clock.Instant
	accepts bool // holds, or has yielded and not dropped
}

type letter struct {
	at   time.Duration
	to   int
	from ID
	msg  Msg
}

// start makes a cluster of n voters a, b, c... and lets it elect a.
func start(t *testing.T, n int, change func(*Config)) *script {
	s := &script{t: t, cut: map[[2]int]bool{}}
	var ids []ID
	for i := range n {
		ids = append(ids, ID(rune('a'+i)))
	}
	for _, id := range ids {
		c := Config{Self: id, Voters: ids, Lease: lease, Guard: guard, Beat: beat, Quiet: true}
		if change != nil {
			change(&c)
		}
		s.nodes = append(s.nodes, &actor{id: id, conf: c, m: New(s.clock(), c)})
	}
	return s
}

func (s *script) clock() clock.Instant { return clock.Instant(time.Hour + s.now) }

func (s *script) write(format string, args ...any) {
	fmt.Fprintf(&s.out, "%5d  %s\n", s.now.Milliseconds(), fmt.Sprintf(format, args...))
}

// do writes down what is done from outside and gives ev to a node.
func (s *script) do(node int, ev Event, what string) {
	s.write("%s %s", s.nodes[node].id, what)
	s.step(node, ev)
}

func (s *script) step(i int, ev Event) {
	n := s.nodes[i]
	if n.dead {
		return
	}
	for _, a := range n.m.Step(s.clock(), ev) {
		switch a := a.(type) {
		case Send:
			to := int(a.To[0] - 'a')
			renewal := a.Msg.Kind == Grant || a.Msg.Kind == Ask && a.Msg.Info.Holds
			if !renewal {
				s.write("  %s -> %s  %s", n.id, a.To, words(a.Msg))
			}
			if !s.cut[[2]int{i, to}] {
				s.post = append(s.post, letter{s.now + time.Millisecond, to, n.id, a.Msg})
			}
		case Hold:
			if n.until <= s.clock() {
				s.write("%s HOLDS, term %d, %s", n.id, a.Term, a.Reason)
			}
			n.until, n.accepts = a.Until, true
		case Drop:
			s.write("%s DROPS, %s", n.id, a.Reason)
			n.until, n.accepts = 0, false
		case Yield:
			s.write("%s YIELDS to %s, %s", n.id, a.To, a.Reason)
			n.until = 0
		case Announce:
			s.write("%s ANNOUNCES again", n.id)
		case WantPermit:
			s.write("%s wants permit %d about %s, keep %v", n.id, a.Round, a.Peer, a.Keep)
		}
	}
}

func words(m Msg) string {
	w := fmt.Sprintf("%s term %d", [...]string{"ask", "grant", "refuse", "waive"}[m.Kind], m.Term)
	if m.To != "" {
		w += ", to " + string(m.To)
	}
	if m.Info.Quiet {
		w += ", quiet"
	}
	return w
}

// run lets time pass. Each millisecond it asks the network and the timers.
func (s *script) run(d time.Duration, each ...func()) {
	for end := s.now + d; s.now < end; {
		s.now += time.Millisecond
		due := s.post
		s.post = nil
		for _, l := range due {
			if l.at > s.now {
				s.post = append(s.post, l)
				continue
			}
			s.step(l.to, Received{l.from, l.msg})
		}
		for i, n := range s.nodes {
			if s.clock() >= n.m.Deadline() {
				s.step(i, Tick{})
			}
		}
		for _, f := range each {
			f()
		}
	}
}

// kill ends a process; told says whether the others learn of it.
func (s *script) kill(i int, told bool) {
	n := s.nodes[i]
	s.write("%s DIES", n.id)
	n.dead, n.until, n.accepts = true, 0, false
	if told {
		s.run(time.Millisecond)
		for j := range s.nodes {
			if j != i {
				s.step(j, Gone{Peer: n.id, At: s.clock()})
			}
		}
	}
}

func (s *script) restart(i int) {
	n := s.nodes[i]
	s.write("%s starts again", n.id)
	n.conf.Term = n.m.View().Term
	n.m, n.dead = New(s.clock(), n.conf), false
}

// split cuts node i off from all others, both ways; join mends everything.
func (s *script) split(i int) {
	s.write("%s is cut off", s.nodes[i].id)
	for j := range s.nodes {
		s.cut[[2]int{i, j}], s.cut[[2]int{j, i}] = true, true
	}
}

func (s *script) join() {
	s.write("the cut heals")
	clear(s.cut)
}

func (s *script) holders() string {
	h := ""
	for _, n := range s.nodes {
		if s.clock() < n.until {
			h += string(n.id)
		}
	}
	return h
}

// until lets time pass until who is the list of holders, and returns how long it took.
func (s *script) until(who string, limit time.Duration) time.Duration {
	s.t.Helper()
	began := s.now
	for s.holders() != who {
		if s.run(time.Millisecond); s.now-began > limit {
			s.t.Fatalf("held by %q after %v, want %q\n%s", s.holders(), limit, who, s.out.String())
		}
	}
	return s.now - began
}

// permits answers each WantPermit of a node a beat later; it runs in each.
func (s *script) permits(i int, ok bool) func() {
	n, last := s.nodes[i], s.nodes[i].m.pair.round
	var at time.Duration
	return func() {
		if q := n.m.pair; q.waiting && q.round != last {
			last, at = q.round, s.now+beat
		}
		if at != 0 && s.now >= at {
			at = 0
			s.do(i, Permit{Round: last, Ok: ok}, fmt.Sprintf("gets permit %d: %v", last, ok))
		}
	}
}

func (s *script) golden() {
	s.t.Helper()
	path := filepath.Join("testdata", strings.ToLower(strings.TrimPrefix(s.t.Name(), "TestTranscript"))+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(s.out.String()), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if d := cmp.Diff(string(want), s.out.String()); d != "" {
		s.t.Errorf("%s differs (-want +got); -update rewrites it\n%s", path, d)
	}
}

func TestTranscriptKilledHolder(t *testing.T) {
	s := start(t, 3, nil)
	s.run(700 * time.Millisecond)
	s.kill(0, true)
	s.run(300 * time.Millisecond)
	s.restart(0)
	s.run(time.Second)
	s.golden()
}

func TestTranscriptSilentHolder(t *testing.T) {
	s := start(t, 2, nil)
	s.run(700 * time.Millisecond)
	s.kill(0, false)
	s.run(time.Second, s.permits(1, true))
	s.golden()
}

func TestTranscriptHandOver(t *testing.T) {
	s := start(t, 2, nil)
	s.run(700 * time.Millisecond)
	s.do(0, HandOver{}, "is told to hand over")
	s.run(500 * time.Millisecond)
	s.golden()
}

func TestTranscriptHandOverNotTaken(t *testing.T) {
	s := start(t, 3, nil)
	s.run(700 * time.Millisecond)
	s.split(1)
	s.do(0, HandOver{To: "b"}, "is told to hand over to b")
	s.run(500 * time.Millisecond)
	s.golden()
}

func TestTranscriptPairCutAndHealed(t *testing.T) {
	s := start(t, 2, nil)
	s.run(700 * time.Millisecond)
	s.split(1)
	s.run(time.Second, s.permits(0, true), s.permits(1, true))
	s.join()
	s.run(500 * time.Millisecond)
	s.golden()
}

func TestTranscriptMinority(t *testing.T) {
	s := start(t, 3, nil)
	s.run(700 * time.Millisecond)
	s.split(0)
	s.run(600 * time.Millisecond)
	s.join()
	s.run(500 * time.Millisecond)
	s.golden()
}

// steps of claims that need no transcript

func TestKilledHolderIsReplacedWithinMilliseconds(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := start(t, n, nil)
		s.until("a", time.Second)
		s.run(500 * time.Millisecond)
		s.kill(0, true)
		if d := s.until("b", time.Second); d > 3*time.Millisecond {
			t.Errorf("%d voters: %v after the process was known to be gone, on a network of 1ms", n, d)
		}
	}
}

func TestSilentHolderIsReplacedAfterLeaseAndGuard(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := start(t, n, nil)
		s.until("a", time.Second)
		s.run(513 * time.Millisecond)
		s.kill(0, false)
		began := s.now
		p := s.permits(min(1, n-1), true)
		for s.holders() != "b" && s.now-began < time.Second {
			s.run(time.Millisecond, p)
		}
		if d := s.now - began; d > lease+guard+beat {
			t.Errorf("%d voters: %v after the death, want at most lease + guard + one beat", n, d)
		}
	}
}

func TestCalmClusterIsHeldWithoutABreak(t *testing.T) {
	for n := 1; n <= 5; n++ {
		s := start(t, n, nil)
		s.until("a", time.Second)
		s.run(5*time.Second, func() {
			if s.holders() != "a" {
				t.Fatalf("%d voters: held by %q at %v", n, s.holders(), s.now)
			}
		})
	}
}

func TestHandOverLeavesNoInstantWithoutOneWhoAccepts(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := start(t, n, nil)
		s.until("a", time.Second)
		s.run(300 * time.Millisecond)
		began := s.now
		s.do(0, HandOver{To: s.nodes[n-1].id}, "hands over")
		for s.holders() != string(s.nodes[n-1].id) && s.now-began < time.Second {
			s.run(time.Millisecond)
			accepts := slices.ContainsFunc(s.nodes, func(a *actor) bool { return a.accepts })
			if !accepts || len(s.holders()) > 1 {
				t.Fatalf("%d voters: accepts %v, answered for by %q", n, accepts, s.holders())
			}
		}
		if d := s.now - began; d > 3*time.Millisecond {
			t.Errorf("%d voters: %v, want one and a half round trips of 2ms", n, d)
		}
	}
}

func TestStandbyOfAPairDiesAndTheHolderGoesOn(t *testing.T) {
	for _, told := range []bool{true, false} {
		s := start(t, 2, nil)
		s.until("a", time.Second)
		s.run(300 * time.Millisecond)
		s.kill(1, told)
		s.run(2*time.Second, s.permits(0, true), func() {
			if s.holders() != "a" {
				t.Fatalf("told %v: held by %q\n%s", told, s.holders(), s.out.String())
			}
		})
	}
}

func TestHolderAloneThatIsCutOffItselfLetsGo(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(1, true)
	s.run(5*time.Second, s.permits(0, true))
	if s.holders() != "a" {
		t.Fatalf("held by %q\n%s", s.holders(), s.out.String())
	}
	cut := s.now
	for no := s.permits(0, false); s.holders() == "a" && s.now-cut < time.Second; {
		s.run(time.Millisecond, no)
	}
	if d := s.now - cut; d > lease+2*beat {
		t.Errorf("let go %v after nothing more was heard, want at most a lease and two beats", d)
	}
}

func TestHolderAloneWithoutAnAnswerLetsGo(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(1, true)
	s.run(soleLeases*lease + beat) // nobody answers its questions
	if s.holders() != "" {
		t.Errorf("held by %q\n%s", s.holders(), s.out.String())
	}
}

func TestOnlyWhatIsHeardAfterTheQuestionGivesARightToKeep(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(1, false)
	for s.now < 2*time.Second {
		s.now += time.Millisecond
		for _, act := range s.nodes[0].m.Step(s.clock(), Tick{}) {
			if w, ok := act.(WantPermit); ok {
				if w.Since != s.clock() {
					t.Errorf("Since = %v before the question, want none", s.clock().Sub(w.Since))
				}
				return
			}
		}
	}
	t.Fatal("no permit was wanted")
}

// After a cut one direction may work before the other does: until the kernel has asked
// anew who has the other's address.
func TestTranscriptHealsInOneDirectionFirst(t *testing.T) {
	s := start(t, 2, nil)
	s.run(700 * time.Millisecond)
	s.split(1)
	a, b := s.permits(0, true), s.permits(1, true)
	s.run(400*time.Millisecond, a, b)
	s.write("what a says reaches b again")
	s.cut[[2]int{0, 1}] = false
	s.run(60*time.Millisecond, a, b)
	s.join()
	s.run(300*time.Millisecond, a, b)
	s.golden()
}

func TestFastRestartOfAStandbyIsNoBreak(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(1, false)
	s.run(5 * time.Millisecond)
	s.restart(1)
	s.run(2*time.Second, func() {
		if s.holders() != "a" {
			t.Fatalf("held by %q\n%s", s.holders(), s.out.String())
		}
	})
}

func TestPairWithoutPermitNeverHoldsTwice(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.split(1)
	s.run(3*time.Second, s.permits(0, true), s.permits(1, false), func() {
		if s.holders() != "a" {
			t.Fatalf("held by %q\n%s", s.holders(), s.out.String())
		}
	})
}

func TestOneWayCutOfAPairEndsWithOneHolder(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.write("b hears nothing of a")
	s.cut[[2]int{0, 1}] = true
	s.run(time.Second, s.permits(0, true), s.permits(1, true))
	if s.holders() != "b" {
		t.Errorf("held by %q, want b alone: it cannot be told to go\n%s", s.holders(), s.out.String())
	}
}

func TestRebootAloneNeedsThePermitOrAMajority(t *testing.T) {
	for _, c := range []struct {
		voters int
		ok     bool
		want   string
	}{{1, false, "a"}, {2, true, "a"}, {2, false, ""}, {3, true, ""}} {
		s := start(t, c.voters, nil)
		for i := 1; i < c.voters; i++ {
			s.nodes[i].dead = true
		}
		s.run(2*time.Second, s.permits(0, c.ok))
		if got := s.holders(); got != c.want {
			t.Errorf("%d voters, permit %v: held by %q, want %q", c.voters, c.ok, got, c.want)
		}
	}
}

func TestUnfitHolderGivesWayToAFitOne(t *testing.T) {
	s := start(t, 3, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(1, Fitness{100}, "becomes unfit")
	s.run(2 * beat)
	s.do(0, Fitness{100}, "becomes unfit")
	s.until("c", 10*time.Millisecond)
	if v := s.nodes[2].m.View(); v.Reason != CheckFailed {
		t.Errorf("reason %q, want %q", v.Reason, CheckFailed)
	}
	s.do(2, Fitness{100}, "becomes unfit")
	s.run(time.Second)
	if s.holders() != "c" {
		t.Errorf("with nobody fit, %q holds, want c still", s.holders())
	}
	s.do(0, Fitness{Well}, "is fit again")
	s.until("a", 3*beat)
}

func TestUnfitNodeHoldsIfNobodyElseDoes(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.do(1, Fitness{100}, "becomes unfit")
	s.run(300 * time.Millisecond)
	s.kill(0, true)
	s.until("b", 10*time.Millisecond)
}

func TestPreemptMovesOnlyAfterTheTime(t *testing.T) {
	s := start(t, 2, func(c *Config) { c.Preempt = time.Second })
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(0, HandOver{}, "hands over")
	s.until("b", 10*time.Millisecond)
	if d := s.until("a", 3*time.Second); d < 900*time.Millisecond {
		t.Errorf("back after %v, want about a second of b's hold first, as an operator asked for it", d)
	}
	if v := s.nodes[0].m.View(); v.Reason != Preempt {
		t.Errorf("reason %q, want %q", v.Reason, Preempt)
	}
}

func TestStickyByDefault(t *testing.T) {
	s := start(t, 2, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(0, true)
	s.until("b", 10*time.Millisecond)
	alone := s.permits(1, true)
	s.run(time.Second, alone)
	s.restart(0)
	s.run(5*time.Second, alone, func() {
		if s.holders() != "b" {
			t.Fatalf("held by %q\n%s", s.holders(), s.out.String())
		}
	})
}

func TestDeafHolderLetsGo(t *testing.T) {
	s := start(t, 3, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(0, Deaf{true}, "is deaf")
	s.until("b", 10*time.Millisecond)
}

func TestWitnessNeverHolds(t *testing.T) {
	s := start(t, 3, func(c *Config) { c.Witness = c.Self == "c" })
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.kill(0, true)
	s.until("b", 10*time.Millisecond)
	s.kill(1, true)
	s.run(2 * time.Second)
	if s.holders() != "" {
		t.Errorf("held by %q, a witness", s.holders())
	}
}

// TestWhoStaysAfterACut: fit, then not deaf, then the longest hold, then the order.
func TestWhoStaysAfterACut(t *testing.T) {
	const long, short = time.Minute, time.Second
	for _, c := range []struct {
		name           string
		a, b           Info
		aStays, bStays bool
	}{
		{"the fit one", Info{Held: short}, Info{Held: long, Ill: 10}, true, false},
		{"the less ill one", Info{Held: short, Ill: 10}, Info{Held: long, Ill: 11}, true, false},
		{"the one that was not deaf", Info{Held: long, Deaf: true}, Info{Held: short}, false, true},
		{"the longest hold, of the better", Info{Held: long}, Info{Held: short}, true, false},
		{"the longest hold, of the worse", Info{Held: short}, Info{Held: long}, false, true},
		{"equal holds: the better candidate", Info{Held: long}, Info{Held: long}, true, false},
		{"nobody fit: the longest", Info{Held: short, Ill: 10}, Info{Held: long, Ill: 10}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			stays := func(self ID, mine, theirs Info) bool {
				m := New(clock.Instant(time.Hour), Config{Self: self, Voters: []ID{"a", "b"}, Lease: lease, Guard: guard, Beat: beat})
				m.ill, m.pair.deaf, m.since = mine.Ill, mine.Deaf, m.now.Add(-mine.Held)
				p := m.other()
				p.info = theirs
				return m.stays(p)
			}
			if a, b := stays("a", c.a, c.b), stays("b", c.b, c.a); a != c.aStays || b != c.bStays {
				t.Errorf("a stays %v, b stays %v; want %v, %v", a, b, c.aStays, c.bStays)
			}
		})
	}
}

// TestWhatWasChosenStays: Preempt undoes no hand-over that somebody wanted, until the node
// that was chosen fails.
func TestWhatWasChosenStays(t *testing.T) {
	s := start(t, 3, func(c *Config) { c.Preempt = 1 })
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(0, HandOver{To: "c", Chosen: true}, "hands over to c")
	s.until("c", 10*time.Millisecond)
	if !s.nodes[2].m.View().Chosen {
		t.Error("c does not say that it was chosen")
	}
	s.run(10*time.Second, func() {
		if s.holders() != "c" {
			t.Fatalf("held by %q\n%s", s.holders(), s.out.String())
		}
	})
	s.kill(2, true)
	s.until("a", 10*time.Millisecond)
	s.do(0, HandOver{To: "b"}, "hands over to b, whoever it is")
	s.until("b", 10*time.Millisecond)
	s.until("a", time.Second)
}

func TestTheLessIllOfTwoHolds(t *testing.T) {
	s := start(t, 3, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(1, Fitness{50}, "becomes ill")
	s.do(2, Fitness{40}, "becomes ill")
	s.run(2 * beat)
	s.do(0, Fitness{40}, "becomes ill")
	s.run(time.Second)
	if s.holders() != "a" {
		t.Errorf("held by %q though nobody is better than a", s.holders())
	}
	s.do(0, Fitness{45}, "becomes worse")
	s.until("c", 10*time.Millisecond)
	s.do(1, Fitness{Well}, "is well again")
	s.until("b", 3*beat)
}

func TestWitnessAtRunTime(t *testing.T) {
	s := start(t, 3, nil)
	s.until("a", time.Second)
	s.run(300 * time.Millisecond)
	s.do(0, Wish{Witness: true}, "becomes a witness")
	s.until("b", 3*beat)
	s.run(300 * time.Millisecond)
	s.do(0, Wish{Preempt: time.Second}, "becomes a candidate again")
	s.do(1, Wish{Preempt: time.Second}, "is to give back")
	s.until("a", 2*time.Second)
}

// deafen loses what is sent to node i; what it sends arrives.
func (s *script) deafen(i int) {
	s.write("%s is deaf", s.nodes[i].id)
	for j := range s.nodes {
		s.cut[[2]int{j, i}] = true
	}
}

func TestTranscriptDeafHolder(t *testing.T) {
	s := start(t, 2, nil)
	s.run(700 * time.Millisecond)
	s.deafen(0)
	s.run(700*time.Millisecond, s.permits(0, false), s.permits(1, true))
	s.join()
	s.run(500 * time.Millisecond)
	s.golden()
}

// A deaf holder goes on asking, and those who would promise in vain stand in the way of
// each other.
func TestDeafHolderIsReplaced(t *testing.T) {
	for n := 2; n <= 5; n++ {
		s := start(t, n, nil)
		s.until("a", time.Second)
		s.run(513 * time.Millisecond)
		s.deafen(0)
		began := s.now
		no, yes := s.permits(0, false), s.permits(1, true)
		for s.holders() != "b" && s.now-began < 3*time.Second {
			s.run(time.Millisecond, no, yes)
		}
		if d := s.now - began; d > lease+guard+3*beat {
			t.Errorf("%d voters: %v after the holder became deaf, want at most lease + guard + three beats\n%s", n, d, s.out.String())
		}
	}
}
