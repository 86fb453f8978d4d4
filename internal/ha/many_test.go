package ha

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/election"
)

// fifty are the VIPs of a pair of which a holds each, and takes 3 ms to take one.
func fifty(t *testing.T) (w *world, a, b *host, names []string) {
	t.Helper()
	vips := map[string]*config.VIP{}
	for i := range 50 {
		name := fmt.Sprintf("vip-%02d", i)
		names, vips[name] = append(names, name), &config.VIP{Name: name, Prefer: []string{"a"}}
	}
	w = newWorld(t, "a", "b")
	w.slow = 3 * time.Millisecond
	a, b = w.start("a", vips), w.start("b", vips)
	w.until(3*time.Second, "all held by a", func() bool { return w.all(names, "a") })
	time.Sleep(10 * time.Second)
	if !w.all(names, "a") {
		t.Fatalf("not all are held by a: %v", w.lan)
	}
	return w, a, b, names
}

// all reports whether exactly the named host answers for each of the VIPs.
func (w *world) all(vips []string, name string) bool {
	return !slices.ContainsFunc(vips, func(v string) bool { return !slices.Equal(w.holders(v), []string{name}) })
}

func TestFiftyVIPsOfADeadHolderAreTakenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _, b, names := fifty(t)
		w.kill("a")
		took := w.until(time.Second, "all held by b", func() bool { return w.all(names, "b") })
		if took > 5*w.slow {
			t.Errorf("all taken after %v, where one takes %v", took, w.slow)
		}
		w.never2(t)
		changes, err := b.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.To == "b" && !slices.ContainsFunc(c.Trail, func(f Fact) bool { return f.Kind == FactTake }) {
				t.Errorf("the change of %s has no evidence: %v", c.VIP, c.Trail)
			}
		}
	})
}

func TestFiftyVIPsAreHandedOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _, names := fifty(t)
		moved, err := a.Failover(t.Context(), "", "b", "test")
		if err != nil || len(moved.VIPs) != len(names) || !w.all(names, "b") {
			t.Fatalf("Failover = %d VIPs, %v", len(moved.VIPs), err)
		}
		if moved.Took > 10*w.slow {
			t.Errorf("all were there after %v, where one takes %v to let go and as long to take", moved.Took, w.slow)
		}
		w.never2(t)
	})
}

// What one machine said is done in order, whatever others said, and a lease that a later
// one covers is not set.
func TestActionsOfOneElectorAreDoneInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		a := w.start("a", public())
		w.held("public", "a", time.Second)
		var said []string
		_ = a.ask(t.Context(), func(now clock.Instant) {
			e := a.byVIP["public"]
			p := a.newPeer("10.0.0.2:7946")
			p.out.send = func([]byte) { said = append(said, fmt.Sprint("sent, held by ", w.holders("public"))) }
			a.peers = append(a.peers, p)
			defer func() { a.peers = nil }()
			end := now.Add(lease)
			a.staged = append(a.staged, e)
			e.acts = []election.Action{
				election.Send{To: p.id}, election.Hold{Until: end}, election.Yield{To: p.id}, election.Send{To: p.id},
			}
			a.perform()
			p.out.flush()
		})
		if want := []string{"sent, held by [a]", "sent, held by []"}; !slices.Equal(said, want) {
			t.Errorf("%q, want %q", said, want)
		}
	})
}
