package upstream

import (
	"testing"
	"time"
)

func TestSlowStartIsLinearAndOnlyForWhatComesUp(t *testing.T) {
	c := confOf("round_robin", "a", "b")
	c.SlowStart = 100 * time.Second
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	p.enter()
	if got := picks(p, at(0), 4); got != "abab" {
		t.Fatalf("after a start: %s", got)
	}
	down(p, "b")
	s := pick(p, at(30), client)
	for short(s) != "b" {
		s = pick(p, at(30), client)
	}
	p.Answered(s, at(30), 200, 0, true, quiet)
	for _, want := range []struct{ second, share int }{{30, 1}, {31, 1}, {40, 10}, {80, 50}, {129, 99}, {131, 100}} {
		if got := p.Share(s, at(want.second)); got != want.share {
			t.Errorf("after %d s it has %d %%, want %d", want.second-30, got, want.share)
		}
	}
	// Half of its weight is a third of the turns.
	p.servers[1].since.Store(at(1000).UnixNano())
	p.changes.Add(1)
	counts := map[rune]int{}
	for _, letter := range picks(p, at(1050), 300) {
		counts[letter]++
	}
	if counts['a'] != 200 || counts['b'] != 100 {
		t.Errorf("with half of b: %v", counts)
	}
	// A reload is no start, but for a server that was not there.
	c = confOf("round_robin", "a", "b", "c")
	c.SlowStart = 100 * time.Second
	next, err := New(c, p, Place{})
	if err != nil {
		t.Fatal(err)
	}
	next.enter()
	for i, want := range []int{100, 100, 1} {
		if got := next.Share(next.servers[i], at(2000)); got != want {
			t.Errorf("after a reload %s has %d %%, want %d", short(next.servers[i]), got, want)
		}
	}
}

func zones(t *testing.T, balance string) *Pool {
	t.Helper()
	c := confOf(balance, "a", "b", "c", "d", "e", "f")
	for i := range c.Server {
		c.Server[i].Zone = []string{"here", "there"}[i/4]
	}
	p, err := New(c, nil, Place{Zone: "here"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheOwnZoneIsPreferredAsFarAsItCan(t *testing.T) {
	for _, c := range []struct {
		down string
		near int // of 1000
	}{
		{"", 1000},
		{"a", 1000},  // three quarters are up: enough
		{"ab", 700},  // half is up: 1.4 times that
		{"abc", 350}, // a quarter
		{"abcd", 0},
		{"abef", 1000}, // nobody helps out
	} {
		for _, balance := range []string{"round_robin", "least_conn", "ewma", "random"} {
			p := zones(t, balance)
			for _, s := range p.servers {
				s.latency.learn(at(0), time.Millisecond)
			}
			down(p, c.down)
			near := 0
			for _, letter := range picks(p, at(1), 1000) {
				if letter < 'e' {
					near++
				}
			}
			if near < c.near-1 || near > c.near+1 {
				t.Errorf("%s without %q: %d of 1000 stay in the zone, want %d", balance, c.down, near, c.near)
			}
		}
	}
}

func TestTheOwnZoneSpillsOverWhenItIsFull(t *testing.T) {
	c := confOf("round_robin", "a", "b")
	c.Server[0].Zone, c.Server[1].Zone, c.MaxConns = "here", "there", 2
	p, err := New(c, nil, Place{Zone: "here"})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for range 4 {
		got += short(pick(p, at(0), client))
	}
	if got != "aabb" {
		t.Errorf("four exchanges: %s, want aabb", got)
	}
}

func TestWhatIsTheSameOnEveryNodeKnowsNoZones(t *testing.T) {
	for _, balance := range []string{"hash", "first"} {
		here, there := zones(t, balance), zones(t, balance)
		there, err := New(there.Config, nil, Place{Zone: "there"})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs(200) {
			if s, o := pick(here, at(0), a), pick(there, at(0), a); s.Name != o.Name {
				t.Fatalf("%s: %s goes to %s or %s by the node", balance, a, s.Name, o.Name)
			} else {
				here.Release(s)
				there.Release(o)
			}
		}
	}
}
