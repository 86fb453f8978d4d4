package relay

import (
	"errors"
	"net/netip"
	"os"
	"sync"
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
		names = must(tablesOf(conn, tableStem(h.config(Nftables, false).State, h.place.Name)))(h.t)
	})
	return names
}

// set has a relay send on to the other host.
func (h *host) set(r *Relay, other *host, family int) {
	h.t.Helper()
	h.do(func() { ok(h.t, r.Set(families[family].vip, h.target(other, family, time.Minute))) })
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
			want(1, "the second goes on, the first died")
			old.wantEcho(t, "the first died")

			third := open(true)
			want(1, "the second died")
			b.set(third, a, family)
			want(1, "the third goes on")
			old.wantEcho(t, "the second died")

			b.do(func() { ok(t, open(true).Set(families[family].vip, Target{})) })
			want(0, "a fourth has nothing to send on")

			b.set(open(true), a, family)
			want(1, "a fifth died")
			open(false)
			want(0, "a life that does not go on from it")
		})
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
				for _, to := range []Target{b.target(a, 0, time.Minute), b.target(a, 0, time.Hour), {}} {
					var all sync.WaitGroup
					for i := range 200 {
						all.Go(func() {
							if err := r.Set(netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}), to); err != nil {
								t.Error(err)
							}
						})
					}
					all.Wait()
				}
				ok(t, r.Close())
			})
		})
	}
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
