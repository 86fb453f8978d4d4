package upstream

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

var (
	quiet  = slog.New(slog.DiscardHandler)
	client = netip.MustParseAddr("198.51.100.9")
)

// poolOf makes a pool of servers written "name", "name*weight" or "name/backup".
func poolOf(t testing.TB, balance string, servers ...string) *Pool {
	t.Helper()
	p, err := New(confOf(balance, servers...), nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func confOf(balance string, servers ...string) *config.Pool {
	c := &config.Pool{Name: "app", Balance: balance, Passive: passive, Retry: config.Retry{Attempts: 2, Budget: 10}}
	c.Passive.On = []string{"connect", "timeout", "502"}
	for i, s := range servers {
		name, backup := strings.CutSuffix(s, "/backup")
		name, weight, _ := strings.Cut(name, "*")
		w := 1
		fmt.Sscan(weight, &w)
		c.Server = append(c.Server, config.Server{Addr: fmt.Sprintf("10.0.0.%d:%d", i+1, name[0]), Weight: w, Backup: backup})
	}
	return c
}

// short returns the letter that a server of poolOf was named.
func short(s *Server) string {
	if s == nil {
		return "-"
	}
	return string(rune(s.port))
}

// pick returns the server for a request of a client; nil if there is none.
func pick(p *Pool, now time.Time, client netip.Addr) *Server {
	s, _ := p.Pick(Ask{Now: now, Hash: p.Hash(nil, client)})
	return s
}

// other returns the server for one more attempt of client's request.
func other(p *Pool, now time.Time, tried []*dataplane.Server) (s *Server, over bool) {
	s, err := p.PickOther(Ask{Now: now, Hash: p.Hash(nil, client), Tried: tried})
	return s, err == ErrBudget
}

// picks returns the letters of n exchanges, each ended before the next begins.
func picks(p *Pool, now time.Time, n int) string {
	var b strings.Builder
	for range n {
		s := pick(p, now, client)
		b.WriteString(short(s))
		if s != nil {
			p.Release(s)
		}
	}
	return b.String()
}

func down(p *Pool, letters string) {
	for _, s := range p.servers {
		if strings.Contains(letters, short(s)) {
			for range 3 {
				p.Failed(s, at(0), dataplane.ErrConnect, true, quiet)
			}
		}
	}
}

func TestRoundRobinIsExactAndSmooth(t *testing.T) {
	for _, c := range []struct{ why, servers, want string }{
		{"equal", "a b c", "abcabcabc"},
		{"nginx's example", "a*5 b*1 c*1", "aabacaaaabacaa"},
		{"one", "a", "aaa"},
		{"a backup waits", "a b/backup", "aaa"},
	} {
		p := poolOf(t, "round_robin", strings.Fields(c.servers)...)
		if got := picks(p, at(0), len(c.want)); got != c.want {
			t.Errorf("%s: %s gives %s, want %s", c.why, c.servers, got, c.want)
		}
	}
}

func TestServersThatAreOutAreSkipped(t *testing.T) {
	for _, c := range []struct{ why, servers, down, want string }{
		{"one of three", "a b c", "b", "acacac"},
		{"backup serves when all others are out", "a b c/backup d/backup", "ab", "cdcd"},
		{"when all are out, all are tried", "a b c/backup", "abc", "abab"},
	} {
		p := poolOf(t, "round_robin", strings.Fields(c.servers)...)
		down(p, c.down)
		if got := picks(p, at(1), len(c.want)); got != c.want {
			t.Errorf("%s: %s without %s gives %s, want %s", c.why, c.servers, c.down, got, c.want)
		}
	}
}

func TestOneExchangeTriesAServerThatWasOut(t *testing.T) {
	p := poolOf(t, "round_robin", "a", "b")
	down(p, "b")
	now := at(30)
	var trial *Server
	for range 10 {
		if s := pick(p, now, client); short(s) == "b" {
			if trial != nil {
				t.Fatal("a second trial before the first has ended")
			}
			trial = s
		}
	}
	if trial == nil {
		t.Fatal("no trial after fail_timeout")
	}
	p.Answered(trial, now, 200, 0, true, quiet)
	if got := picks(p, now, 4); strings.Count(got, "b") != 2 {
		t.Errorf("picks after the trial = %s, want b to have its share", got)
	}
}

func TestLeastConnPicksTheLeastForItsWeight(t *testing.T) {
	p := poolOf(t, "least_conn", "a*3", "b*1")
	counts := map[string]int{}
	for range 400 { // nothing ends
		counts[short(pick(p, at(0), client))]++
	}
	if counts["a"] != 300 || counts["b"] != 100 {
		t.Errorf("400 open exchanges = %v, want 3 to 1", counts)
	}
	p = poolOf(t, "least_conn", "a", "b", "c")
	if got := picks(p, at(0), 6); got != "abcabc" {
		t.Errorf("idle servers take turns %s, want abcabc", got)
	}
	held := pick(p, at(0), client)
	if got := picks(p, at(0), 6); strings.Contains(got, short(held)) {
		t.Errorf("picks = %s, though %s is busy and others idle", got, short(held))
	}
}

func addrs(n int) []netip.Addr {
	var all []netip.Addr
	for i := range n {
		all = append(all, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	return all
}

func TestHashGivesEachWeightItsShare(t *testing.T) {
	p := poolOf(t, "hash", "a*3", "b", "c", "d")
	counts := map[string]int{}
	const n = 20000
	for _, a := range addrs(n) {
		s := pick(p, at(0), a)
		counts[short(s)]++
		p.Release(s)
	}
	for letter, share := range map[string]float64{"a": 0.5, "b": 1.0 / 6, "c": 1.0 / 6, "d": 1.0 / 6} {
		if got := float64(counts[letter]) / n; math.Abs(got-share) > 0.03 {
			t.Errorf("%s gets %.3f of the clients, want %.3f", letter, got, share)
		}
	}
}

func TestHashMovesOnlyClientsOfALostServer(t *testing.T) {
	p := poolOf(t, "hash", "a", "b", "c", "d")
	before := map[netip.Addr]string{}
	for _, a := range addrs(5000) {
		s := pick(p, at(0), a)
		before[a] = short(s)
		p.Release(s)
	}
	down(p, "b")
	to := map[string]int{}
	for a, was := range before {
		s := pick(p, at(1), a)
		p.Release(s)
		switch {
		case was == "b":
			to[short(s)]++
		case was != short(s):
			t.Fatalf("%s moved from %s to %s, though %s is up", a, was, short(s), was)
		}
	}
	for _, letter := range []string{"a", "c", "d"} {
		if to[letter] < 300 {
			t.Errorf("%s took over %d clients, want a third of about 1250", letter, to[letter])
		}
	}
	// A fifth server takes about a fifth, and hardly anyone moves otherwise.
	five, err := New(confOf("hash", "a", "b", "c", "d", "e"), nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for a, was := range before {
		if s := pick(five, at(0), a); short(s) != was && short(s) != "e" {
			moved++
		}
	}
	if moved > 5000/20 {
		t.Errorf("%d of 5000 clients moved between servers that stayed", moved)
	}
}

func TestHashDependsOnNamesAlone(t *testing.T) {
	// What a client gets must not change with a release or the order of the file.
	p := poolOf(t, "hash", "a", "b", "c")
	c := confOf("hash", "a", "b", "c")
	c.Server[0], c.Server[2] = c.Server[2], c.Server[0]
	q, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, a := range addrs(40) {
		s := pick(p, at(0), a)
		if o := pick(q, at(0), a); o.Name != s.Name {
			t.Fatalf("%s goes to %s or %s by the order of the file", a, s.Name, o.Name)
		}
		got += short(s)
	}
	const want = "acbabccbbcccbaacaacbaaccabbabbcccacbcaac"
	if got != want {
		t.Errorf("clients go to %s, want %s", got, want)
	}
}

func TestPickOtherNeverRepeatsAServer(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"} {
		p := poolOf(t, balance, "a", "b", "c/backup")
		for range 20 {
			first := pick(p, at(0), client)
			tried := []*dataplane.Server{&first.Server}
			second, over := other(p, at(0), tried)
			if over || second == nil || second == first {
				t.Fatalf("%s: second attempt %v, over %v", balance, second, over)
			}
			third, _ := other(p, at(0), append(tried, &second.Server))
			if third == nil || third == second || third == first {
				t.Fatalf("%s: third attempt %s after %s and %s", balance, short(third), short(first), short(second))
			}
			if none, _ := other(p, at(0), append(tried, &second.Server, &third.Server)); none != nil {
				t.Fatalf("%s: a fourth of three servers", balance)
			}
		}
	}
}

func TestPickOtherLeavesAloneWhatIsOut(t *testing.T) {
	p := poolOf(t, "round_robin", "a", "b")
	down(p, "b")
	first := pick(p, at(1), client)
	if s, _ := other(p, at(1), []*dataplane.Server{&first.Server}); s != nil {
		t.Errorf("retried on %s, which is out, though %s is up", short(s), short(first))
	}
}

func TestUnresolvedServersAreNotPicked(t *testing.T) {
	c := confOf("round_robin", "a")
	c.Server = append(c.Server, config.Server{Addr: "app.example:80", Weight: 1})
	p, err := New(c, nil, Place{})
	if err != nil {
		t.Fatal(err)
	}
	if got := picks(p, at(0), 3); got != "aaa" {
		t.Errorf("picks = %s", got)
	}
	c.Server = c.Server[1:]
	if p, err = New(c, nil, Place{}); err != nil {
		t.Fatal(err)
	}
	if s := pick(p, at(0), client); s != nil {
		t.Errorf("Pick = %s, which has no address", s.Name)
	}
}

func TestAReloadAdoptsServersWithHealthAndCounters(t *testing.T) {
	old := poolOf(t, "round_robin", "a", "b")
	down(old, "b")
	pick(old, at(0), client)
	conf := confOf("least_conn", "a", "b*7", "c")
	p, err := New(conf, old, Place{})
	if err != nil {
		t.Fatal(err)
	}
	if old.servers[0] != p.servers[0] || old.servers[1] != p.servers[1] || p.Counters != old.Counters {
		t.Fatal("servers or counters were made anew")
	}
	if state, _ := p.servers[1].State(); state != "ejected" {
		t.Errorf("b is %s, want ejected", state)
	}
	if w, _ := old.Weight(old.servers[1]); w != 1 {
		t.Errorf("the old pool's weight became %d", w)
	}
	if w, _ := p.Weight(p.servers[1]); w != 7 {
		t.Errorf("the new pool's weight is %d, want 7", w)
	}
	next, err := New(confOf("round_robin", "a"), p, Place{})
	if err != nil {
		t.Fatal(err)
	}
	if p.servers[1].Gone() {
		t.Fatal("making a pool changed the old one's servers")
	}
	p.Retire(next)
	if p.servers[0].Gone() || !p.servers[1].Gone() || !p.servers[2].Gone() {
		t.Error("want b and c gone, a kept")
	}
}

func TestWhatCountsAgainstAServer(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("%w: reset by peer", err) }
	for _, c := range []struct {
		why    string
		err    error
		status int
		on     string // the word of passive.on by which it counts; none: never
	}{
		{"refused", wrap(dataplane.ErrConnect), 0, "connect"},
		{"broke off while sent to", wrap(dataplane.ErrSend), 0, "connect"},
		{"broke off", wrap(dataplane.ErrRead), 0, "connect"},
		{"no HTTP", wrap(dataplane.ErrResponse), 0, "connect"},
		{"connect timed out", wrap(dataplane.ErrConnectTime), 0, "timeout"},
		{"send timed out", wrap(dataplane.ErrSendTime), 0, "timeout"},
		{"read timed out", wrap(dataplane.ErrReadTime), 0, "timeout"},
		{"answered 502", nil, 502, "502"},
		{"answered 404", nil, 404, "404"},
		{"answered 200", nil, 200, ""},
		{"client gone", wrap(dataplane.ErrClientGone), 0, ""},
		{"client slow", wrap(dataplane.ErrClientSlow), 0, ""},
		{"client's body", wrap(dataplane.ErrClientBody), 0, ""},
		{"client's body too large", wrap(dataplane.ErrTooLarge), 0, ""},
		{"total time", wrap(dataplane.ErrTotalTime), 0, ""},
		{"our own end", wrap(dataplane.ErrDrained), 0, ""},
	} {
		for _, word := range []string{"connect", "timeout", "502", "404", "503"} {
			conf := confOf("round_robin", "a")
			conf.Passive.On = []string{word}
			p, err := New(conf, nil, Place{})
			if err != nil {
				t.Fatal(err)
			}
			s := pick(p, at(0), client)
			if c.err != nil {
				p.Failed(s, at(0), c.err, true, quiet)
			} else {
				p.Answered(s, at(0), c.status, 0, true, quiet)
			}
			if got := s.Failures.Load() == 1; got != (word == c.on) {
				t.Errorf("%s, on = [%q]: counted %v", c.why, word, got)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]*config.Pool{
		"balance": {Name: "p", Balance: "fair", Server: []config.Server{{Addr: "a:1"}}},
		"key":     {Name: "p", Balance: "hash", HashKey: "path"},
		"twice":   {Name: "p", Server: []config.Server{{Addr: "a:1"}, {Addr: "a:1"}}},
		"no port": {Name: "p", Server: []config.Server{{Addr: "a"}}},
		"port 0":  {Name: "p", Server: []config.Server{{Addr: "a:0"}}},
		"no host": {Name: "p", Server: []config.Server{{Addr: ":80"}}},
	} {
		if _, err := New(c, nil, Place{}); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

func TestSeveralAddressesRotate(t *testing.T) {
	s, err := newServer("app", "app.example:80", new(atomic.Uint64))
	if err != nil {
		t.Fatal(err)
	}
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var seen []string
	if s.fit(at(0)) {
		t.Error("fit without an address")
	}
	note := func() { seen = append(seen, s.Addr().String()) }
	s.resolved([]netip.Addr{two, one})
	note()
	if !s.fit(at(0)) {
		t.Error("not fit though its name resolves")
	}
	s.resolved([]netip.Addr{two, one, two}) // the one in use stays
	note()
	s.rotate()
	note()
	s.resolved([]netip.Addr{two, one})
	note()
	s.rotate()
	note()
	s.resolved([]netip.Addr{two}) // the one in use is gone
	note()
	want := []string{"10.0.0.1:80", "10.0.0.1:80", "10.0.0.2:80", "10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"}
	if d := cmp.Diff(want, seen); d != "" {
		t.Error(d)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"} {
		p := poolOf(t, balance, "a", "b", "c")
		if n := testing.AllocsPerRun(100, func() { p.Release(pick(p, at(0), client)) }); n != 0 {
			t.Errorf("%s: Pick allocates %v times", balance, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, balance := range []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"} {
		for _, n := range []int{2, 100, 5000} {
			c := &config.Pool{Name: "app", Balance: balance, Passive: passive}
			for i := range n {
				c.Server = append(c.Server, config.Server{Addr: fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1), Weight: 1 + i%3})
			}
			p, err := New(c, nil, Place{})
			if err != nil {
				b.Fatal(err)
			}
			for _, s := range p.servers {
				s.latency.learn(start, time.Millisecond)
			}
			b.Run(fmt.Sprintf("%s/%d", balance, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					hash := rand.Uint64()
					for pb.Next() {
						hash = mix(hash + 1)
						s, _ := p.Pick(Ask{Now: start, Hash: hash})
						p.Release(s)
					}
				})
			})
		}
	}
}
