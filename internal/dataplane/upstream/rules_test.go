package upstream

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
)

// slotsOf makes slots of servers a, b, c ... that weigh what is given.
func slotsOf(t testing.TB, weights ...int) []*slot {
	t.Helper()
	c := &config.Pool{Name: "app", Passive: passive}
	for i, w := range weights {
		c.Server = append(c.Server, config.Server{Addr: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1), Weight: w})
	}
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	p.line(start)
	return p.tiers[0].near.slots
}

// seeded gives the same random bits in each run.
func seeded() func() uint64 { return rand.New(rand.NewPCG(1, 2)).Uint64 }

// ruleOf makes a rule for slots.
func ruleOf(t testing.TB, balance string, slots []*slot) rule {
	t.Helper()
	r, err := newRule(balance, slots, seeded())
	if err != nil {
		t.Fatal(err)
	}
	r.arrange()
	return r
}

// nginx is its smooth weighted round robin, written as nginx does it.
func nginx(weights []int, turns int) []int {
	current := make([]int, len(weights))
	var order []int
	for range turns {
		best, total := -1, 0
		for i, w := range weights {
			current[i] += w
			total += w
			if best < 0 || current[i] > current[best] {
				best = i
			}
		}
		current[best] -= total
		order = append(order, best)
	}
	return order
}

func TestRoundRobinIsThatOfNginx(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		weights := make([]int, 1+random.IntN(9))
		for i := range weights {
			weights[i] = 1 + random.IntN(1+random.IntN(12))
		}
		checkAgainstNginx(t, weights, 400)
	}
	// A sequence too long to be worked out as a whole.
	long := make([]int, 60)
	for i := range long {
		long[i] = 901 + i
	}
	checkAgainstNginx(t, long, 5000)
}

func checkAgainstNginx(t *testing.T, weights []int, turns int) {
	t.Helper()
	slots := slotsOf(t, weights...)
	r := ruleOf(t, "round_robin", slots)
	for turn, want := range nginx(weights, turns) {
		if got := r.choose(Ask{Now: start}); got != slots[want] {
			t.Fatalf("weights %v: turn %d is %s, want %s", weights, turn, got.Name, slots[want].Name)
		}
	}
}

func TestRoundRobinGoesOnAfterAChange(t *testing.T) {
	p := poolOf(t, "round_robin", "a", "b", "c", "d")
	if got := picks(p, at(0), 2); got != "ab" {
		t.Fatal(got)
	}
	down(p, "d")
	if got := picks(p, at(1), 4); got != "cabc" {
		t.Errorf("after d is lost the turns are %s, want cabc", got)
	}
}

func TestLeastConnIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		weights := make([]int, 1+random.IntN(20))
		for i := range weights {
			weights[i] = 1 + random.IntN(5)
		}
		slots := slotsOf(t, weights...)
		r := ruleOf(t, "least_conn", slots).(*leastConn)
		for i, s := range slots {
			s.seat.Store(&seat{r, i})
		}
		var open []*slot
		for range 500 {
			if len(open) > 0 && random.IntN(3) == 0 {
				i := random.IntN(len(open))
				open[i].Active.Add(-1)
				open[i].tell()
				open = append(open[:i], open[i+1:]...)
				continue
			}
			least := slots[0]
			for _, s := range slots {
				if least.busier(s) {
					least = s
				}
			}
			n := least.Active.Load()
			s := r.choose(Ask{Now: start})
			before := s.Active.Load() - 1
			if before*int64(least.weight.Load()) > n*int64(s.weight.Load()) {
				t.Fatalf("weights %v: chose %s with %d, though %s had %d", weights, s.Name, before, least.Name, n)
			}
			open = append(open, s)
		}
	}
}

func TestLeastConnGivesIdleServersTurnsByWeight(t *testing.T) {
	if got := picks(poolOf(t, "least_conn", "a*3", "b"), at(0), 8); got != "abaaabaa" {
		t.Errorf("turns are %s, want abaaabaa", got)
	}
}

func TestUrnHoldsExactShares(t *testing.T) {
	weights := []int{5, 1, 1, 3, 7}
	u := newUrn(slotsOf(t, weights...))
	got := make([]float64, len(weights))
	for _, b := range u.bins {
		share := float64(b.level) / (1 << 32)
		got[b.slot] += share / float64(len(u.bins))
		got[b.second] += (1 - share) / float64(len(u.bins))
	}
	for i, w := range weights {
		if want := float64(w) / 17; got[i] < want-1e-8 || got[i] > want+1e-8 {
			t.Errorf("slot %d has %.9f of the urn, want %.9f", i, got[i], want)
		}
	}
}

func TestRandomKeepsTheWeights(t *testing.T) {
	slots := slotsOf(t, 5, 3, 2)
	r := ruleOf(t, "random", slots)
	const n = 100_000
	counts := map[*slot]int{}
	for range n {
		s := r.choose(Ask{Now: start})
		s.Active.Add(-1)
		counts[s]++
	}
	// Four standard deviations of a binomial distribution are less than 0.0064 of n.
	for i, share := range []float64{0.5, 0.3, 0.2} {
		if got := float64(counts[slots[i]]) / n; got < share-0.0064 || got > share+0.0064 {
			t.Errorf("%s has %.4f of the requests, want %.4f", slots[i].Name, got, share)
		}
	}
}

func TestRandomSparesABusyServer(t *testing.T) {
	slots := slotsOf(t, 1, 1, 1)
	r := ruleOf(t, "random", slots)
	slots[0].Active.Store(100)
	// It is chosen only when both draws bring it: one time in nine.
	const n = 90_000
	busy := 0
	for range n {
		s := r.choose(Ask{Now: start})
		s.Active.Add(-1)
		if s == slots[0] {
			busy++
		}
	}
	if busy < 9600 || busy > 10400 {
		t.Errorf("the busy one of three has %d of %d, want about 10000", busy, n)
	}
}

func TestPeakFollowsASlowAnswerAtOnceAndForgetsItSlowly(t *testing.T) {
	var p peak
	if _, known := p.at(at(0)); known {
		t.Fatal("knows something at first")
	}
	near := func(second int, want time.Duration) {
		t.Helper()
		if got, _ := p.at(at(second)); got < want*999/1000 || got > want*1001/1000 {
			t.Errorf("after %d s it is %v, want %v", second, got, want)
		}
	}
	p.learn(at(0), 100*time.Millisecond)
	near(0, 100*time.Millisecond)
	p.learn(at(1), time.Second)
	near(1, time.Second)
	near(11, 367879*time.Microsecond) // 1/e
	p.learn(at(11), 10*time.Millisecond)
	near(11, 374200*time.Microsecond) // 1/e of the second and the rest of the 10 ms
	p.learn(at(10), 500*time.Millisecond)
	near(11, 452418*time.Microsecond) // an older reading is a second old by now
}

func TestEwmaPrefersTheFasterForItsLoad(t *testing.T) {
	slots := slotsOf(t, 1, 1, 2)
	r := ruleOf(t, "ewma", slots[:2])
	a, b, c := slots[0], slots[1], slots[2]
	choose := func(want string) {
		t.Helper()
		var got strings.Builder
		for range len(want) {
			s := r.choose(Ask{Now: start})
			got.WriteByte("ab"[indexOf(slots, s)])
		}
		if got.String() != want {
			t.Errorf("chosen: %s, want %s", got.String(), want)
		}
	}
	a.latency.learn(start, 10*time.Millisecond)
	b.latency.learn(start, 35*time.Millisecond)
	choose("aaaba") // costs are 10, 20, 30, then 40 against 35, then 40 against 70
	if a, b := a.cost(start), b.cost(start); a < 0.0499 || a > 0.0501 || b < 0.0699 || b > 0.0701 {
		t.Errorf("costs are %v and %v s, want 0.05 and 0.07", a, b)
	}
	// One that nothing is known of is asked, but by one exchange at a time.
	r = ruleOf(t, "ewma", []*slot{a, c})
	if s := r.choose(Ask{Now: start}); s != c {
		t.Errorf("chose %s though nothing is known of %s", s.Name, c.Name)
	}
	if s := r.choose(Ask{Now: start}); s != a {
		t.Errorf("a second exchange to %s before it has answered", s.Name)
	}
	c.latency.learn(start, 50*time.Millisecond)
	if got := c.cost(start); got < 0.0499 || got > 0.0501 { // twice the weight, two exchanges
		t.Errorf("cost of weight 2 is %v s, want 0.05", got)
	}
}

func indexOf(slots []*slot, s *slot) int {
	for i := range slots {
		if slots[i] == s {
			return i
		}
	}
	return -1
}

func TestEwmaKeepsAwayFromTheSlowOfMany(t *testing.T) {
	slots := slotsOf(t, 1, 1, 1, 1, 1)
	r := ruleOf(t, "ewma", slots)
	for i, s := range slots {
		s.latency.learn(start, time.Duration(10+i)*time.Millisecond)
	}
	const n = 10_000
	counts := make([]int, len(slots))
	for range n {
		s := r.choose(Ask{Now: start})
		s.Active.Add(-1)
		counts[indexOf(slots, s)]++
	}
	// Two of five: the fastest is in 8 of 20 pairs, the next wins 6, and so on; the
	// slowest wins none.
	for i, want := range []int{4000, 3000, 2000, 1000, 0} {
		if counts[i] < want-200 || counts[i] > want+200 {
			t.Errorf("server %d of 5 by speed has %d of %d, want about %d", i+1, counts[i], n, want)
		}
	}
}

func TestFirstUsesTheNextOnlyWhenTheFirstIsOut(t *testing.T) {
	p := poolOf(t, "first", "a", "b", "c")
	if got := picks(p, at(0), 4); got != "aaaa" {
		t.Errorf("picks = %s", got)
	}
	down(p, "a")
	if got := picks(p, at(1), 4); got != "bbbb" {
		t.Errorf("without a: %s", got)
	}
	s := pick(p, at(31), client) // the trial
	if short(s) != "a" {
		t.Fatalf("trial on %s", short(s))
	}
	p.Answered(s, at(31), 200, 0, true, quiet)
	p.Release(s)
	if got := picks(p, at(32), 4); got != "aaaa" {
		t.Errorf("after a is back: %s", got)
	}
}

func TestMaglevSharesAreWithinTheirBounds(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		n := 1 + random.IntN(60)
		names, weights, total := make([]string, n), make([]int, n), 0
		for i := range n {
			names[i], weights[i] = fmt.Sprintf("10.0.0.%d:80", i), 1+random.IntN(5)
			total += weights[i]
		}
		table := newMaglev(names, weights)
		counts := make([]int, n)
		for _, i := range table {
			counts[i]++
		}
		// All fill one place for each part of their weight a round; the last round may end
		// before a slot's turn or within it.
		for i, got := range counts {
			if least, most := len(table)/total*weights[i], (len(table)/total+1)*weights[i]; got < least || got > most {
				t.Errorf("%d of %d places for weight %d of %d, want %d to %d", got, len(table), weights[i], total, least, most)
			}
		}
	}
}

func TestHashHasALoadBound(t *testing.T) {
	slots := slotsOf(t, 1, 1, 1, 2)
	r := ruleOf(t, "hash", slots)
	all := int64(0)
	for range 1000 { // all of one client
		s := r.choose(Ask{Now: start, Hash: 12345})
		all++
		share := float64(s.weight.Load()) / (5 * unit)
		if n := s.Active.Load(); n > lightLoad && float64(n) > hashBound*float64(all)*share+1 {
			t.Fatalf("%s has %d of %d, more than %d times its share", s.Name, n, all, hashBound)
		}
	}
	slots = slotsOf(t, 1, 1, 1, 2)
	r = ruleOf(t, "hash", slots)
	first := r.choose(Ask{Now: start, Hash: 12345})
	for range lightLoad - 1 {
		if s := r.choose(Ask{Now: start, Hash: 12345}); s != first {
			t.Fatal("moved a client though its server has little to do")
		}
	}
}
