package beat

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/datagram"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// twoPaths starts a pair that hears each other on two paths, and says so as nodes do.
func twoPaths(t *testing.T) (v []election.ID, a, b *Mesh) {
	t.Helper()
	v = voters(t, 2)
	second := map[election.ID]netip.AddrPort{}
	for i, id := range v {
		at, err := Address(id)
		if err != nil {
			t.Fatal(err)
		}
		host := at.Addr().As4()
		host[1], host[3] = 10, byte(i+1)
		second[id] = netip.AddrPortFrom(netip.AddrFrom4(host), at.Port())
	}
	open := func(self, other election.ID) *Mesh {
		m, err := Listen(Config{Cluster: "test", Secrets: []string{secret}, Self: self, Voters: v, Heartbeat: 20 * time.Millisecond,
			Interface: "eth0", Paths: []Path{{Name: "eth1", Local: second[self].Addr(), Known: second}},
			Now: clock.Now, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); m.Run(ctx) }()
		go func() { // ends with ctx
			for wait(ctx, m.Heartbeat) {
				m.Send(other, []byte("from "+self))
			}
		}()
		t.Cleanup(func() { cancel(); <-done })
		return m
	}
	// Their ports differ on loopback, where one host has all addresses.
	return v, open(v[0], v[1]), open(v[1], v[0])
}

// cut keeps a mesh from sending on one path.
func cut(m *Mesh, path int) {
	for _, p := range m.peers {
		if p != nil {
			p.mu.Lock()
			p.aimed[path] = nil
			p.mu.Unlock()
		}
	}
}

func TestPeerIsSilentOnlyWhenEveryPathIs(t *testing.T) {
	v, a, b := twoPaths(t)
	expect(t, a, ha.Message, v[1])
	expect(t, b, ha.Message, v[0])
	cut(a, 0)
	cut(b, 0)
	for a.Signs(v[1]).Paths[0].Silent == false || a.Signs(v[1]).Paths[1].Age < 0 {
		select {
		case e := <-a.Events():
			if e.Kind == ha.Silent {
				t.Fatalf("silent though it is heard on the other path: %s", e.Info)
			}
		case <-time.After(limit):
			t.Fatalf("nothing happens; signs %+v", a.Signs(v[1]))
		}
	}
	if s := a.Signs(v[1]); s.Paths[1].Silent || s.Paths[0].Name != "eth0" || s.Paths[1].Name != "eth1" {
		t.Errorf("signs %+v, want eth0 silent and eth1 not", s)
	}
	cut(a, 1)
	cut(b, 1)
	expect(t, a, ha.Silent, v[1])
}

func TestThreadThatBeatsForALoopThatStandsStillIsNoSignOfLife(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	b, err := Listen(Config{Cluster: "test", Secrets: []string{secret}, Self: v[1], Voters: v, Heartbeat: 20 * time.Millisecond,
		Now: clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); b.Run(ctx) }()
	defer func() { cancel(); <-done }()
	for heard := false; !heard; { // its loop turns until it is heard
		b.Send(v[0], []byte("x"))
		select {
		case e := <-a.Events():
			heard = e.Kind == ha.Message
		case <-time.After(b.Heartbeat):
		}
	}
	e := expect(t, a, ha.Silent, v[1])
	if !strings.Contains(e.Info, "its election loop stands still") {
		t.Errorf("silent: %q, want that its process lives and its loop does not turn", e.Info)
	}
	if age := a.Signs(v[1]).Paths[0].Age; age > a.gap() {
		t.Errorf("its thread was last heard %v ago, want it to go on", age)
	}
	if a.Challenge(v[1], time.Second) {
		t.Error("a process whose loop stands still answered a challenge: nobody would take its place")
	}
	b.Send(v[0], []byte("x"))
	expect(t, a, ha.Alive, v[1])
}

func TestPeerWithAnotherKeyIsToldAndLives(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	_, _ = join(t, v[1], v, "the secret of another")
	expect(t, a, ha.Foreign, v[1])
	if !a.Challenge(v[1], limit) {
		t.Error("a living process with another key passes for frozen: its address would be claimed")
	}
	if !a.Signs(v[1]).Foreign {
		t.Error("it is not shown")
	}
}

func TestAnybodyElseIsNotTakenForAPeerWithAnotherKey(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	to, err := Address(v[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := openSocket(netip.AddrPortFrom(netip.MustParseAddr("127.11.0.1"), 0), "")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	forged := make([]byte, overhead)
	forged[0], forged[2], forged[3] = wire.Newest, a.peer(v[1]).mark, a.self
	for a.Dropped()["stranger"] < 2*foreignAfter {
		_ = datagram.Send(s.fd, forged, datagram.EndpointOf(to))
	}
	if a.Signs(v[1]).Foreign {
		t.Error("datagrams from another address count as a peer's")
	}
}

func TestSecretsRotateWithoutSilence(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	b, _ := join(t, v[1], v, secret)
	lined(t, a, v[1])
	lined(t, b, v[0])
	expect(t, a, ha.Message, v[1])
	expect(t, b, ha.Message, v[0])
	const young = "the secret that comes after"
	for _, step := range []struct {
		m       *Mesh
		secrets []string
	}{
		{a, []string{secret, young}}, {b, []string{secret, young}}, // both accept both
		{a, []string{young, secret}}, {b, []string{young, secret}}, // both use the new one
		{a, []string{young}}, {b, []string{young}}, // the old one is forgotten
	} {
		if err := step.m.SetSecrets(step.secrets); err != nil {
			t.Fatal(err)
		}
		for _, m := range []*Mesh{a, b} {
			for range 3 {
				select {
				case e := <-m.Events():
					if e.Kind != ha.Message {
						t.Fatalf("event %d (%s) during the rotation", e.Kind, e.Info)
					}
				case <-time.After(limit):
					t.Fatal("nothing is heard")
				}
			}
		}
		if !a.Challenge(v[1], limit) || !b.Challenge(v[0], limit) {
			t.Fatal("a challenge is not answered during the rotation")
		}
	}
	if n := a.Dropped()["stranger"] + b.Dropped()["stranger"]; n != 0 {
		t.Errorf("%d datagrams could not be opened", n)
	}
}

func TestBeatOfTheThreadAllocatesNothing(t *testing.T) {
	v := voters(t, 2)
	m, err := Listen(Config{Cluster: "test", Secrets: []string{secret}, Self: v[0], Voters: v, Heartbeat: time.Millisecond,
		Now: clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	m.turned.Store(int64(m.Now()))
	room := make([]byte, 0, maxDatagram)
	in, from := make([]byte, maxDatagram+1), new(datagram.Endpoint)
	now := m.Now()
	if n := testing.AllocsPerRun(200, func() {
		now = now.Add(time.Second)
		m.pulse(now, &room)
		m.judge(now)
		datagram.Receive(m.sockets[0].fd, in, from)
		_ = from.Addr()
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if m.peers[1].seq == 0 {
		t.Error("nothing was said")
	}
}
