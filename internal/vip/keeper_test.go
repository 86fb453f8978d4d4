package vip_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/clock"
	"proxyd/internal/vip"
	"proxyd/internal/vip/viptest"
)

const (
	lease = 240 * time.Millisecond
	beat  = 40 * time.Millisecond
)

var (
	addr     = netip.MustParseAddr("10.0.0.100")
	macA     = viptest.MAC{2, 0, 0, 0, 0, 0xa}
	macB     = viptest.MAC{2, 0, 0, 0, 0, 0xb}
	macC     = viptest.MAC{2, 0, 0, 0, 0, 0xc}
	macOther = viptest.MAC{2, 0, 0, 0, 0, 0xff}
)

// A world is a LAN with two nodes and a client, in virtual time.
type world struct {
	now    func() clock.Instant
	lan    *viptest.LAN
	a, b   *viptest.Link
	client *viptest.Host
	ka, kb *vip.Keeper
	pa, pb *vip.Port
}

// inWorld runs f in a synctest bubble, on a fresh world.
func inWorld(t *testing.T, o vip.Options, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		now := viptest.SinceNow()
		lan := viptest.New(now)
		w := &world{
			now: now, lan: lan,
			a:      lan.Link("eth0", macA, netip.MustParsePrefix("10.0.0.1/24")),
			b:      lan.Link("eth0", macB, netip.MustParsePrefix("10.0.0.2/24")),
			client: lan.Host(netip.MustParseAddr("10.0.0.9"), macC),
		}
		w.pa = vip.OpenPort(w.a, vip.PortOptions{Now: now, Peers: []netip.Addr{netip.MustParseAddr("10.0.0.2")}})
		w.pb = vip.OpenPort(w.b, vip.PortOptions{Now: now, Peers: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
		w.ka, w.kb = keeper(t, w.pa, o), keeper(t, w.pb, vip.Options{})
		synctest.Wait()
		f(t, w)
		if err := errors.Join(w.pa.Close(), w.pb.Close()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func keeper(t *testing.T, p *vip.Port, o vip.Options) *vip.Keeper {
	t.Helper()
	k, err := p.Keeper(netip.PrefixFrom(addr, 24), o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// holdFor renews the lease each beat for d, as an election that goes well does.
func (w *world) holdFor(t *testing.T, k *vip.Keeper, d time.Duration) {
	t.Helper()
	for end := w.now().Add(d); w.now() < end; time.Sleep(beat) {
		if err := k.Hold(w.now().Add(lease)); err != nil {
			t.Fatalf("Hold: %v", err)
		}
	}
}

func (w *world) wantHolders(t *testing.T, when string, want ...viptest.MAC) {
	t.Helper()
	if diff := cmp.Diff(want, w.lan.WhoHas(addr)); diff != "" {
		t.Errorf("%s: who answers for the address (-want +got):\n%s", when, diff)
	}
}

func TestHoldAnswersAtOnceAndDropSilences(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.wantHolders(t, "before")
		if err := w.ka.Hold(w.now().Add(lease)); err != nil {
			t.Fatal(err)
		}
		w.wantHolders(t, "held", macA)
		if s := w.ka.Status(); s.State != vip.Held || s.Until != w.now().Add(lease) {
			t.Errorf("Status() = %v until %v, want held until %v", s.State, s.Until, w.now().Add(lease))
		}
		for range 2 {
			if err := w.ka.Drop(); err != nil {
				t.Fatal(err)
			}
			w.wantHolders(t, "dropped")
		}
	})
}

func TestLeaseEndsWithoutHold(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 2*time.Second)
		left := w.ka.Status().Until.Sub(w.now())
		time.Sleep(left - 1)
		synctest.Wait()
		w.wantHolders(t, "just before the lease's end", macA)
		time.Sleep(1 * time.Nanosecond)
		synctest.Wait()
		w.wantHolders(t, "at the lease's end")
		if n := w.ka.Stats.Lapses.Load(); n != 1 {
			t.Errorf("Lapses = %d, want 1", n)
		}
	})
}

func TestHoldRefusesALeaseThatIsOver(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		if err := w.ka.Hold(w.now()); !errors.Is(err, vip.ErrLapsed) {
			t.Errorf("Hold(now) = %v, want ErrLapsed", err)
		}
		w.wantHolders(t, "after")
		_ = w.ka.Hold(w.now().Add(lease))
		if err := w.ka.Hold(w.now().Add(-1)); !errors.Is(err, vip.ErrLapsed) {
			t.Errorf("Hold(past) = %v, want ErrLapsed", err)
		}
		w.wantHolders(t, "after a held lease was over")
	})
}

func TestLeaseLongerThanTheKernelsLifetimeIsBridged(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		if err := w.ka.Hold(w.now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for range 99 {
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			w.wantHolders(t, "within the lease", macA)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		w.wantHolders(t, "after the lease")
	})
}

func TestRenewalIsCheap(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 10*time.Second) // 250 calls
		if n := w.a.Count().Add; n > 51 {
			t.Errorf("the address was added %d times in 10 s, want one in 200 ms at the most", n)
		}
	})
}

func TestAnnouncementsFollowTheSchedule(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		start := w.now()
		var at []time.Duration
		seen := uint64(0)
		for w.now() < start.Add(155*time.Second) {
			if err := w.ka.Hold(w.now().Add(lease)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if n := w.ka.Stats.Announcements.Load(); n != seen {
				seen = n
				at = append(at, w.now().Sub(start))
			}
			time.Sleep(20 * time.Millisecond)
		}
		ms := time.Millisecond
		want := []time.Duration{0, 100 * ms, 1100 * ms, 2200 * ms, 3300 * ms, 5000 * ms, 10000 * ms, 20000 * ms, 30000 * ms, 90000 * ms, 150000 * ms}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("announced at (-want +got):\n%s", diff)
		}
	})
}

func TestClientInLocktimeLearnsWithinTwoSeconds(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 500*time.Millisecond)
		if mac, _ := w.client.MAC(addr); mac != macA {
			t.Fatalf("client sends to %x, want the holder %x", mac, macA)
		}
		_ = w.ka.Drop()
		w.holdFor(t, w.kb, time.Second)
		if mac, _ := w.client.MAC(addr); mac != macA {
			t.Fatalf("client's entry was changed within the locktime: the test proves nothing")
		}
		w.holdFor(t, w.kb, time.Second)
		if mac, _ := w.client.MAC(addr); mac != macB {
			t.Errorf("client sends to %x two seconds after the takeover, want %x", mac, macB)
		}
	})
}

func TestYieldIsSilentAndStillAccepts(t *testing.T) {
	inWorld(t, vip.Options{Drain: 10 * time.Second}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, time.Second)
		for range 2 {
			if err := w.ka.Yield(netip.MustParseAddr("10.0.0.2")); err != nil {
				t.Fatal(err)
			}
		}
		w.wantHolders(t, "yielded")
		w.holdFor(t, w.kb, 9*time.Second)
		w.wantHolders(t, "successor holds", macB)
		if !w.a.Accepts(addr) {
			t.Error("the address is not accepted within the drain time")
		}
		w.holdFor(t, w.kb, 2*time.Second)
		if w.a.Accepts(addr) {
			t.Error("the address is accepted after the drain time")
		}
		if got := w.ka.Status().State; got != vip.Idle {
			t.Errorf("state after the drain = %v, want idle", got)
		}
		if n := w.kb.Stats.Conflicts.Load(); n != 0 {
			t.Errorf("the successor counted %d conflicts, want 0", n)
		}
	})
}

func TestParkedAddressIsTakenBack(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, time.Second)
		_ = w.ka.Yield(netip.Addr{})
		time.Sleep(time.Second)
		w.holdFor(t, w.ka, time.Second)
		w.wantHolders(t, "held again", macA)
		if c := w.a.Count(); c.Unpark != 1 {
			t.Errorf("Unpark was called %d times, want once: the address is on loopback still", c.Unpark)
		}
		if n := w.ka.Stats.Repairs.Load(); n != 0 {
			t.Errorf("Repairs = %d, want 0: the removal was our own", n)
		}
		_ = w.ka.Drop()
		if w.a.Accepts(addr) {
			t.Error("the address is accepted after Drop")
		}
	})
}

func TestDropEndsADrain(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, time.Second)
		_ = w.ka.Yield(netip.Addr{})
		_ = w.ka.Drop()
		if w.a.Accepts(addr) {
			t.Error("the address is accepted after Drop")
		}
	})
}

func TestForeignClaimIsCountedAndAnswered(t *testing.T) {
	var told []string
	tell := func(mac net.HardwareAddr) { told = append(told, mac.String()) }
	inWorld(t, vip.Options{OnConflict: tell}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 4*time.Second)
		foreign := w.lan.Host(netip.MustParseAddr("10.0.0.66"), macOther)
		if mac, _ := w.client.MAC(addr); mac != macA {
			t.Fatalf("client sends to %x, want %x", mac, macA)
		}
		w.holdFor(t, w.ka, 2*time.Second)
		before := w.ka.Stats.Announcements.Load()
		foreign.Claim(addr)
		synctest.Wait()
		if n := w.ka.Stats.Conflicts.Load(); n != 1 {
			t.Errorf("Conflicts = %d, want 1", n)
		}
		w.holdFor(t, w.ka, 1500*time.Millisecond)
		if n := w.ka.Stats.Announcements.Load() - before; n != 3 {
			t.Errorf("%d announcements in 1.5 s after the claim, want 3: in full", n)
		}
		if mac, _ := w.client.MAC(addr); mac != macA {
			t.Errorf("client sends to %x after the claim, want it won back by %x", mac, macA)
		}
		if diff := cmp.Diff([]string{"02:00:00:00:00:ff"}, told); diff != "" {
			t.Errorf("OnConflict (-want +got):\n%s", diff)
		}
	})
}

func TestTwoHoldersDoNotAnnounceWithoutEnd(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		for range 250 { // 10 s
			_ = w.ka.Hold(w.now().Add(lease))
			_ = w.kb.Hold(w.now().Add(lease))
			time.Sleep(beat)
		}
		if n := w.ka.Stats.Announcements.Load(); n > 40 {
			t.Errorf("%d announcements in 10 s of two holders, want at most four a second", n)
		}
		if w.ka.Stats.Conflicts.Load() == 0 || w.kb.Stats.Conflicts.Load() == 0 {
			t.Error("a holder did not notice the other")
		}
	})
}

func TestRemovedByHandIsPutBackAtOnce(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 4*time.Second)
		before := w.ka.Stats.Announcements.Load()
		w.a.Flush()
		w.wantHolders(t, "flushed")
		synctest.Wait() // no time passes
		w.wantHolders(t, "repaired", macA)
		if r, n := w.ka.Stats.Repairs.Load(), w.ka.Stats.Announcements.Load()-before; r != 1 || n != 1 {
			t.Errorf("Repairs = %d, announced %d times, want 1 and 1", r, n)
		}
	})
}

func TestRemovedAfterTheLeaseStaysRemoved(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, time.Second)
		_ = w.ka.Drop()
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.wantHolders(t, "after Drop")
		if n := w.ka.Stats.Repairs.Load(); n != 0 {
			t.Errorf("Repairs = %d, want 0", n)
		}
	})
}

func TestLinkThatComesUpIsAnnouncedOnInFull(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, 40*time.Second)
		w.a.Cut(true)
		synctest.Wait()
		w.holdFor(t, w.ka, 5*time.Second)
		before := w.ka.Stats.Announcements.Load()
		w.a.Cut(false)
		w.holdFor(t, w.ka, 1500*time.Millisecond)
		if n := w.ka.Stats.Announcements.Load() - before; n != 3 {
			t.Errorf("%d announcements in 1.5 s after the link came up, want 3", n)
		}
	})
}

func TestFaultOfTheLinkIsReportedAndOvercome(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		broken := errors.New("no such device")
		w.a.Fail(broken)
		if err := w.ka.Hold(w.now().Add(lease)); !errors.Is(err, broken) {
			t.Errorf("Hold = %v, want %v", err, broken)
		}
		if s := w.ka.Status(); s.State != vip.Idle || !errors.Is(s.Fault, broken) {
			t.Errorf("Status = %+v, want idle with the fault", s)
		}
		w.a.Fail(nil)
		w.holdFor(t, w.ka, time.Second)
		w.a.Fail(broken)
		if err := w.ka.Drop(); !errors.Is(err, broken) {
			t.Errorf("Drop = %v, want %v", err, broken)
		}
		w.a.Fail(nil)
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		w.wantHolders(t, "a failed removal is tried again")
	})
}

func TestTakeoverTimesAreKept(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		if asked, took := w.ka.Stats.Takeover(); asked != 0 || took != 0 {
			t.Errorf("Takeover() before any = %v, %v", asked, took)
		}
		start := w.now()
		w.holdFor(t, w.ka, time.Second)
		if asked, took := w.ka.Stats.Takeover(); asked != start || took != 0 {
			t.Errorf("Takeover() = %v, %v, want %v, 0s (virtual time stands still)", asked, took, start)
		}
		if got := w.ka.Stats.LastAnnounced(); got != start.Add(100*time.Millisecond) {
			t.Errorf("LastAnnounced() = %v, want 100 ms after the start", got.Sub(start))
		}
	})
}

func TestCloseDropsAndRefusesFurtherHolds(t *testing.T) {
	inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
		w.holdFor(t, w.ka, time.Second)
		if err := w.ka.Close(); err != nil {
			t.Fatal(err)
		}
		w.wantHolders(t, "closed")
		if err := w.ka.Hold(w.now().Add(lease)); !errors.Is(err, vip.ErrClosed) {
			t.Errorf("Hold after Close = %v, want ErrClosed", err)
		}
		if _, err := w.pa.Keeper(netip.PrefixFrom(addr, 24), vip.Options{}); err != nil {
			t.Errorf("a new keeper for the address: %v", err)
		}
		if _, err := w.pa.Keeper(netip.PrefixFrom(addr, 24), vip.Options{}); err == nil {
			t.Error("two keepers for one address were allowed")
		}
	})
}

func TestProbe(t *testing.T) {
	gateway := netip.MustParseAddr("10.0.0.254")
	tests := []struct {
		name         string
		arrange      func(w *world)
		taken, heard bool
	}{
		{"nobody has it, the client answers", func(*world) {}, false, true},
		{"another host has it", func(w *world) { w.lan.Host(gateway, macOther).Claim(addr) }, true, true},
		{"the other node holds it", func(w *world) { _ = w.kb.Hold(w.now().Add(lease)) }, true, true},
		{"the other node has it parked", func(w *world) { _ = w.kb.Hold(w.now().Add(lease)); _ = w.kb.Yield(netip.Addr{}) }, false, true},
		{"we hear nothing", func(w *world) { w.a.Lose(true, false) }, false, false},
		{"nobody hears us", func(w *world) { w.a.Lose(false, true) }, false, false},
		{"the only witness is off", func(w *world) { w.client.Off(true) }, false, false},
		{"our own holding is not another's", func(w *world) { _ = w.ka.Hold(w.now().Add(lease)) }, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, vip.Options{}, func(t *testing.T, w *world) {
				tt.arrange(w)
				synctest.Wait()
				time.Sleep(time.Millisecond)
				start := w.now()
				taken, heard, err := w.ka.Probe(start, 80*time.Millisecond)
				if taken != tt.taken || heard != tt.heard || err != nil {
					t.Errorf("Probe() = %v, %v, %v, want %v, %v", taken, heard, err, tt.taken, tt.heard)
				}
				if d := w.now().Sub(start); d > 80*time.Millisecond {
					t.Errorf("Probe took %v, want 80ms at the most", d)
				}
			})
		})
	}
}

func TestProbeWithoutWitnessesTrustsTheLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := viptest.SinceNow()
		lan := viptest.New(now)
		link := lan.Link("eth0", macA)
		peer := netip.MustParseAddr("10.0.0.2")
		lan.Host(peer, macB).Off(true) // a peer is no witness
		p := vip.OpenPort(link, vip.PortOptions{Now: now, Peers: []netip.Addr{peer}})
		defer p.Close()
		k := keeper(t, p, vip.Options{})
		if taken, heard, err := k.Probe(now(), 80*time.Millisecond); taken || !heard || err != nil {
			t.Errorf("Probe() = %v, %v, %v, want false, true: nobody is known that could answer", taken, heard, err)
		}
		link.Cut(true)
		if _, heard, err := k.Probe(now(), 80*time.Millisecond); heard || err == nil {
			t.Errorf("Probe() on a cut link: heard %v, err %v, want false and an error", heard, err)
		}
	})
}
