package proxy

import (
	"fmt"
	"math"
	"net/netip"
	"testing"

	"proxyd/internal/config"
	"proxyd/internal/dataplane/filter"
)

func networks(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func addrPort(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// parted is the pool that each of many clients gets.
func parted(t *testing.T, name string, shares map[string]int, clients int) []string {
	t.Helper()
	conf := base()
	for pool := range shares {
		conf.Pool[pool] = &config.Pool{Name: pool, Server: []config.Server{{Addr: "192.0.2.1:80", Weight: 1}}}
	}
	conf.Route = []*config.Route{{Name: name, Split: shares}}
	s, err := compile(conf, nil, Steering{}, nil, 1, nil, filter.Env{})
	if err != nil {
		t.Fatal(err)
	}
	var pools []string
	for i := range clients {
		pools = append(pools, s.routes[0].split.choose(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})).Pool)
	}
	return pools
}

func TestASplitGivesEachPoolItsShare(t *testing.T) {
	const clients = 100_000
	for _, shares := range []map[string]int{{"api": 95, "api-v2": 5}, {"a": 1, "b": 1}, {"a": 5, "b": 3, "c": 2, "d": 0}, {"a": 999, "b": 1}} {
		total, got := 0, map[string]int{}
		for _, share := range shares {
			total += share
		}
		for _, pool := range parted(t, "r", shares, clients) {
			got[pool]++
		}
		for pool, share := range shares {
			p := float64(share) / float64(total)
			if deviation := math.Abs(float64(got[pool]) - p*clients); deviation > 5*math.Sqrt(clients*p*(1-p)) {
				t.Errorf("%v: %s got %d of %d clients", shares, pool, got[pool], clients)
			}
		}
	}
}

func TestAGrowingShareMovesOnlyTheClientsItNeeds(t *testing.T) {
	const clients = 100_000
	for _, c := range []struct {
		why           string
		before, after map[string]int
		to            string  // where clients may move to
		share         float64 // of all clients
	}{
		{"5 to 10 of a hundred", map[string]int{"api": 95, "api-v2": 5}, map[string]int{"api": 90, "api-v2": 10}, "api-v2", 0.05},
		{"one of three", map[string]int{"a": 50, "b": 30, "c": 20}, map[string]int{"a": 50, "b": 30, "c": 120}, "c", 0.6 - 0.2},
		{"a new pool", map[string]int{"a": 50, "b": 50}, map[string]int{"a": 50, "b": 50, "c": 100}, "c", 0.5},
	} {
		before, after := parted(t, "r", c.before, clients), parted(t, "r", c.after, clients)
		moved := 0
		for i := range before {
			if before[i] == after[i] {
				continue
			}
			moved++
			if after[i] != c.to {
				t.Fatalf("%s: a client moved from %s to %s", c.why, before[i], after[i])
			}
		}
		if got := float64(moved) / clients; math.Abs(got-c.share) > 0.01 {
			t.Errorf("%s: %.3f of the clients moved, want %.3f", c.why, got, c.share)
		}
	}
}

// The same on every node, and in every release: these never change.
func TestASplitIsTheSameEverywhere(t *testing.T) {
	got := fmt.Sprint(parted(t, "api", map[string]int{"one": 1, "two": 1}, 12))
	if want := "[one two one one one two one two two two two two]"; got != want {
		t.Errorf("split = %s, want %s", got, want)
	}
}

// Each route draws anew, so that not the same clients try everything that is new.
func TestSplitsOfRoutesAreIndependent(t *testing.T) {
	const clients = 10_000
	shares := map[string]int{"old": 90, "new": 10}
	a, b := parted(t, "a", shares, clients), parted(t, "b", shares, clients)
	both := 0
	for i := range a {
		if a[i] == "new" && b[i] == "new" {
			both++
		}
	}
	if both < clients/200 || both > clients*3/200 {
		t.Errorf("%d of %d clients are new on both", both, clients)
	}
}

func TestASplitExchangeHasTheTimeoutsOfItsPool(t *testing.T) {
	conf := base()
	conf.Pool["slow"] = pool("slow", "192.0.2.9:80")
	conf.Pool["slow"].Timeout.Read = 7
	conf.Route = []*config.Route{{Name: "r", Split: map[string]int{"app": 1, "slow": 1}}, {Name: "x", Host: []string{"x"}, Pool: "app"}}
	p, _ := start(t, conf)
	seen := map[string]int{}
	for i := range 50 {
		x := get("h", "/")
		x.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1)
		begin(p, x)
		seen[x.Route.Pool]++
		if want := map[string]int{"app": 0, "slow": 7}[x.Route.Pool]; int(x.Route.Timeout.Read) != want || x.Server.Pool != x.Route.Pool || x.Route.Name != "r" {
			t.Fatalf("route %+v, server %s of %s", *x.Route, x.Server.Name, x.Server.Pool)
		}
		respond(p, x, 200)
		p.End(x, nil)
	}
	if len(seen) != 2 {
		t.Errorf("pools %v", seen)
	}
	if s := p.current.Load(); s.routes[0].counters != s.routes[0].split[1].route.counters {
		t.Error("the routes of a split are counted apart")
	}
}

func BenchmarkSplit(b *testing.B) {
	conf := base()
	conf.Route = []*config.Route{{Name: "r", Split: map[string]int{"app": 95, "two": 5}}}
	conf.Pool["two"] = pool("two", "192.0.2.9:80")
	s, err := compile(conf, nil, Steering{}, nil, 1, nil, filter.Env{})
	if err != nil {
		b.Fatal(err)
	}
	client := netip.MustParseAddr("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		s.routes[0].split.choose(client)
	}
}
