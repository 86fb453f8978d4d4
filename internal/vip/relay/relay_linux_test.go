package relay

import (
	"errors"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"proxyd/internal/clock"
)

// ways are those that send anything on.
var ways = []Way{EBPF, Nftables}

// forEach runs a test for each way and family, in a namespace of its own.
func forEach(t *testing.T, f func(t *testing.T, way Way, family int)) {
	if !inside(t) {
		return
	}
	for _, way := range ways {
		for i := range families {
			t.Run(string(way)+" "+families[i].name, func(t *testing.T) { f(t, way, i) })
		}
	}
}

func (h *host) target(other *host, family int, d time.Duration) Target {
	return Target{MAC: other.place.MAC, Addr: other.addr(families[family].vip), Until: clock.Now().Add(d)}
}

func TestConnectionsGoOnWhereTheyBegan(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		r := b.relay(way)

		client.sends(a)
		old := client.wantDial(vip, a, "before")
		b.do(func() { ok(t, r.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)
		old.wantEcho(t, "moved")
		fresh := client.wantDial(vip, b, "moved")
		fresh.wantEcho(t, "new")
		old.wantEcho(t, "moved, with a new one beside it")
		n, err := b.sent(r, vip)
		if err != nil || n < 40 {
			t.Errorf("Sent = %d, %v, want at least 40", n, err)
		}

		b.do(func() { ok(t, r.Set(vip, Target{})) })
		_, err = old.Write([]byte("x\n"))
		if err == nil {
			_, err = old.lines.ReadString('\n')
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after the drain an old connection ends with %v, want a reset", err)
		}
		fresh.wantEcho(t, "after the drain")
		if again, err := b.sent(r, vip); err != nil || again < n {
			t.Errorf("Sent after the drain = %d, %v, want %d or more", again, err, n)
		}
	})
}

func TestHandingBackDuringADrain(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		ra, rb := a.relay(way), b.relay(way)

		client.sends(a)
		first := client.wantDial(vip, a, "first")
		b.do(func() { ok(t, rb.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)
		second := client.wantDial(vip, b, "second")
		b.do(func() { ok(t, rb.Set(vip, Target{})) })
		a.do(func() { ok(t, ra.Set(vip, a.target(b, family, time.Minute))) })
		client.sends(a)
		first.wantEcho(t, "at home again")
		second.wantEcho(t, "handed back")
		client.wantDial(vip, a, "third").wantEcho(t, "third")
	})
}

// tables are the names of relays' tables at the host.
func (h *host) tables() (names []string) {
	h.do(func() {
		conn := must(nftables.New())(h.t)
		names = must(tablesOf(conn, h.config(Nftables, false).State))(h.t)
	})
	return names
}

// set has a relay send on to the other host.
func (h *host) set(r *Relay, other *host, family int) {
	h.t.Helper()
	h.do(func() { ok(h.t, r.Set(families[family].vip, h.target(other, family, time.Minute))) })
}

// alone ends what others at the host send on.
func (h *host) alone(relays ...*Relay) {
	h.t.Helper()
	h.do(func() { ok(h.t, EndOthers(h.config(Nftables, false).State, relays)) })
}

// sent is what a relay at the host has sent on.
func (h *host) sent(r *Relay, vip netip.Addr) (n uint64, err error) {
	h.do(func() { n, err = r.Sent(vip) })
	return n, err
}

// Two processes change places, twice, while packets are sent on.
func TestTheNextProcessGoesOnSending(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		open := func(keep bool) (r *Relay) {
			b.do(func() { r = must(Open(b.config(way, keep)))(t) })
			return r
		}
		end := func(r *Relay) { b.do(func() { ok(t, r.Close()) }) }

		client.sends(a)
		old := client.wantDial(families[family].vip, a, "before")
		r := open(false)
		b.set(r, a, family)
		client.sends(b)
		for range 2 {
			old.wantEcho(t, "one sends on")
			refused := open(true)
			end(refused) // it did not come up
			old.wantEcho(t, "another came and went")
			next := open(true)
			old.wantEcho(t, "the next is there")
			b.set(next, a, family)
			old.wantEcho(t, "the next was told")
			b.alone(next)
			old.wantEcho(t, "the next is alone")
			end(r)
			r = next
		}
		old.wantEcho(t, "the others have ended")
		end(r)
		if left := b.tables(); len(left) > 0 {
			t.Errorf("at the end the tables %v are left", left)
		}
	})
}

// Tables outlive a process that is killed: whoever goes on takes them away, and nobody
// takes away what another works with.
func TestTablesOfAProcessThatDied(t *testing.T) {
	if !inside(t) {
		return
	}
	for family := range families {
		t.Run(families[family].name, func(t *testing.T) {
			a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
			settled(t, a, b, client)
			a.serve()
			b.serve()
			// What is opened here is not closed: its process dies.
			open := func(keep bool) (r *Relay) {
				b.do(func() { r = must(Open(b.config(Nftables, keep)))(t) })
				return r
			}
			want := func(n int, when string) {
				t.Helper()
				if got := b.tables(); len(got) != n {
					t.Errorf("%s: the tables are %v, want %d", when, got, n)
				}
			}

			client.sends(a)
			old := client.wantDial(families[family].vip, a, "before")
			first := open(false)
			b.set(first, a, family)
			client.sends(b)
			open(true)
			want(1, "the next died before it was told anything")
			old.wantEcho(t, "the next died")
			b.do(func() { ok(t, first.Set(families[1-family].vip, Target{})) })
			want(1, "the first goes on")

			second := open(true)
			b.set(second, a, family)
			want(2, "the second was told, the first died")
			b.alone(second)
			want(1, "the second goes on")
			old.wantEcho(t, "the first died")

			b.set(open(true), a, family)
			want(2, "a third was told and died")
			old.wantEcho(t, "a third died")
			fourth := open(true)
			b.set(fourth, a, family)
			b.alone(fourth)
			want(1, "the fourth goes on")
			old.wantEcho(t, "the second died")

			fifth := open(true)
			b.do(func() { ok(t, fifth.Set(families[family].vip, Target{})) })
			b.alone(fifth)
			want(0, "a fifth has nothing to send on")

			b.set(open(true), a, family)
			want(1, "a sixth died")
			open(false)
			want(0, "a life that does not go on from it")
		})
	}
}

// The next process is told of one address after the other: none is without meanwhile.
func TestTheNextProcessIsToldOfOneAddressAfterTheOther(t *testing.T) {
	if !inside(t) {
		return
	}
	a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
	settled(t, a, b, client)
	a.serve()
	b.serve()
	var first, next *Relay
	b.do(func() { first = must(Open(b.config(Nftables, false)))(t) })
	var conns []*conn
	client.sends(a)
	for family := range families {
		conns = append(conns, client.wantDial(families[family].vip, a, "before"))
		b.set(first, a, family)
	}
	client.sends(b)
	b.do(func() { next = must(Open(b.config(Nftables, true)))(t) })
	for family := range families {
		b.set(next, a, family)
		for _, c := range conns {
			c.wantEcho(t, "told of "+families[family].name)
		}
	}
	b.alone(next)
	b.do(func() { ok(t, first.Close()) })
	for _, c := range conns {
		c.wantEcho(t, "the next is alone")
	}
}

func TestTablesAreOfTheirNode(t *testing.T) {
	own := newName("/state/a", "br-lan.7")
	for name, want := range map[string]bool{
		own:                               true,
		newName("/state/a", "eth0"):       true, // configured or not
		newName("/state/b", "eth0"):       false,
		own + "-x":                        false,
		"x" + own:                         false,
		"filter":                          false,
		"proxyd-fence-" + own[len(stem):]: false,
	} {
		if got := ofNode(name, "/state/a"); got != want {
			t.Errorf("%s is the node's: %v, want %v", name, got, want)
		}
	}
}

// What the kernel answers to one step must have room.
func TestManyAddressesAtOnce(t *testing.T) {
	if !inside(t) {
		return
	}
	a, b := plug(t, "a", 1), plug(t, "b", 2)
	for _, way := range ways {
		t.Run(string(way), func(t *testing.T) {
			b.do(func() {
				r := must(Open(b.config(way, false)))(t)
				near, far := b.target(a, 0, time.Minute), b.target(a, 0, time.Hour)
				for _, to := range []Target{near, far, {}} {
					var all []*setting // as if several had called Set: other threads are elsewhere
					for i := range 200 {
						all = append(all, &setting{vip: netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}), to: to})
					}
					r.setAll(all)
					for _, s := range all {
						ok(t, s.err)
					}
					want := 200
					if to == (Target{}) {
						want = 0
					}
					if got := written(t, r); got != want {
						t.Errorf("%d addresses are sent on, want %d", got, want)
					}
				}
				ok(t, r.Close())
			})
		})
	}
}

// written is how many addresses the kernel has of what a relay sends on.
func written(t *testing.T, r *Relay) (n int) {
	t.Helper()
	switch m := r.means.(type) {
	case *rules:
		if len(m.now) == 0 {
			return len(must(m.conn.ListTablesOfFamily(nftables.TableFamilyIPv4))(t))
		}
		f := m.families()[0]
		return len(must(m.conn.GetSetElements(must(m.conn.GetSetByName(f.table, "live"))(t)))(t))
	case *tcx:
		var key, value []byte
		for all := m.targets.Iterate(); all.Next(&key, &value); {
			n++
		}
	}
	return n
}

func TestTwoDrainsInARow(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, c, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "c", 3), plug(t, "client", 9)
		settled(t, a, b, c, client)
		for _, h := range []*host{a, b, c} {
			h.serve()
		}
		rb, rc := b.relay(way), c.relay(way)
		client.sends(a)
		first := client.wantDial(vip, a, "first")
		b.do(func() { ok(t, rb.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)
		second := client.wantDial(vip, b, "second")
		c.do(func() { ok(t, rc.Set(vip, c.target(b, family, time.Minute))) })
		client.sends(c)
		first.wantEcho(t, "two drains")
		second.wantEcho(t, "one drain")
		client.wantDial(vip, c, "third").wantEcho(t, "third")
		// A packet that is nobody's goes down the chain and ends there.
		b.do(func() { ok(t, rb.Set(vip, b.target(c, family, time.Minute))) })
		if _, err := first.Write([]byte("x\n")); err == nil {
			if _, err = first.lines.ReadString('\n'); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("where each sends on to the other: %v, want a reset", err)
			}
		}
	})
}

func TestCookiesAreTheirGiversOwn(t *testing.T) {
	if !inside(t) {
		return
	}
	for i, f := range families {
		t.Run(f.name, func(t *testing.T) {
			a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
			settled(t, a, b, client)
			b.serve()
			b.do(func() { ok(t, os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0)) })
			r := b.relay(EBPF)
			b.do(func() { ok(t, r.Set(f.vip, b.target(a, i, time.Minute))) })
			client.sends(b)
			for range 5 {
				client.wantDial(f.vip, b, "by cookie").wantEcho(t, "by cookie")
			}
		})
	}
}

// A script that loads a firewall flushes what there is, our rules too.
func TestHandOverAfterAFlushOfAllRules(t *testing.T) {
	forEach(t, func(t *testing.T, way Way, family int) {
		vip := families[family].vip
		a, b, client := plug(t, "a", 1), plug(t, "b", 2), plug(t, "client", 9)
		settled(t, a, b, client)
		a.serve()
		b.serve()
		r := b.relay(way)
		b.do(func() {
			ok(t, r.Set(vip, b.target(a, family, time.Minute)))
			conn, err := nftables.New()
			ok(t, err)
			conn.FlushRuleset()
			ok(t, conn.Flush())
			ok(t, r.Set(vip, Target{}))
		})
		client.sends(a)
		old := client.wantDial(vip, a, "before")
		b.do(func() { ok(t, r.Set(vip, b.target(a, family, time.Minute))) })
		client.sends(b)
		old.wantEcho(t, "moved")
	})
}
