package proxy

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

// D4: who is cut off for floods again and again has no new budgets, until some time has passed.
func TestD4AnAddressThatFloodsIsTurnedAway(t *testing.T) {
	conf := base()
	conf.Node.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	p, _ := start(t, conf)
	now := time.Unix(1_000_000, 0)
	p.opt.Now = func() time.Time { return now }
	l := &dataplane.Listener{Name: "web"}
	from := func(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), 1) }
	flood := func(addr string) bool {
		if !p.Admit(l, from(addr)) {
			return false
		}
		p.Leave(l, from(addr), dataplane.ClosedFlood)
		return true
	}
	for i := range floodsAtOnce {
		if !flood("2001:db8::1") || !flood("10.1.2.3") {
			t.Fatalf("turned away after %d floods", i)
		}
	}
	if !flood("10.1.2.3") {
		t.Error("a trusted proxy is turned away")
	}
	if flood("2001:db8::ffff:1") {
		t.Error("another address of the same /64 is let in")
	}
	if !p.Admit(l, from("2001:db8:0:1::1")) || !p.Admit(l, from("198.51.100.1")) {
		t.Error("others are turned away")
	}
	now = now.Add(floodTime)
	if !flood("2001:db8::1") || flood("2001:db8::1") {
		t.Error("want one more a second")
	}
	now = now.Add(2 * floodsAtOnce * floodTime)
	if !flood("2001:db8::1") {
		t.Error("floods of long ago are held against it")
	}
	wantSeries(t, gather(t, p), map[string]float64{`proxyd_connections_closed_total{listener="web",reason="flooder"}`: 2})
}

func TestE9FloodersAreForgotten(t *testing.T) {
	var f floods
	now := time.Unix(1_000_000, 0)
	addr := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(i))))
	}
	for i := range 3 * mostFlooders {
		f.note(addr(i), now)
	}
	if n := len(f.until); n != mostFlooders || f.some.Load() != mostFlooders {
		t.Errorf("%d are remembered, want %d", n, mostFlooders)
	}
	for range 100 {
		f.note(addr(0), now)
	}
	if !f.barred(addr(0), now.Add(floodsAtOnce*floodTime)) || f.barred(addr(0), now.Add((floodsAtOnce+1)*floodTime)) {
		t.Error("a hundred floods at once bar for longer, or shorter, than eleven seconds")
	}
	f.barred(addr(0), now.Add(2*floodSweep))
	if n := len(f.until); n != 0 || f.some.Load() != 0 {
		t.Errorf("%d are remembered for ever", n)
	}
}

// However many flood, the log names one now and then.
func TestE9TheLogOfFloodsIsBounded(t *testing.T) {
	var f floods
	now := time.Unix(1_000_000, 0)
	lines, others := 0, 0
	for i := range 100 { // seconds, in each of which a hundred addresses are barred
		for a := range 100 {
			for range floodsAtOnce + 1 {
				if say, n := f.note(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(a)}), now.Add(time.Duration(i)*time.Second)); say {
					lines, others = lines+1, others+n
				}
			}
		}
	}
	if want := int(100 * time.Second / floodSaid); lines != want || others < 8000 {
		t.Errorf("%d lines that tell of %d others, want %d", lines, others, want)
	}
}
