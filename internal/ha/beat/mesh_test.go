package beat

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
	"proxyd/internal/ha/wire"
)

// The tests here use real sockets on loopback and wait for events, never for time;
// limit only ends a test that would hang.
const limit = 30 * time.Second

// voters returns n addresses on loopback whose ports, and those above them, are free.
func voters(t *testing.T, n int) []election.ID {
	t.Helper()
	var out []election.ID
	for i := range n {
		host := netip.AddrFrom4([4]byte{127, 9, byte(os.Getpid()), byte(i + 1)})
		l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		out = append(out, ha.ID(netip.AddrPortFrom(host, uint16(port-1))))
	}
	return out
}

// join starts a mesh that says something every beat, as a node does. stop ends it.
func join(t *testing.T, self election.ID, all []election.ID, secret string) (m *Mesh, stop func()) {
	t.Helper()
	return joinAs(t, self, all, secret, wire.Range{})
}

// joinAs starts a mesh as join does, of a release that speaks some versions.
func joinAs(t *testing.T, self election.ID, all []election.ID, secret string, versions wire.Range) (m *Mesh, stop func()) {
	t.Helper()
	m, err := Listen(Config{Wire: versions, Cluster: "test", Secrets: []string{secret}, Self: self, Voters: all, Heartbeat: 20 * time.Millisecond,
		Now: clock.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	go func() { // ends with ctx
		for wait(ctx, m.Heartbeat) {
			for _, v := range all {
				m.Send(v, []byte("from "+self))
			}
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return m, stop
}

// expect waits for an event of a kind from a peer, passing over others.
func expect(t *testing.T, m *Mesh, kind ha.MeshKind, from election.ID) ha.MeshEvent {
	t.Helper()
	late := time.After(limit)
	for {
		select {
		case e := <-m.Events():
			if e.Kind == kind && e.From == from {
				return e
			}
		case <-late:
			t.Fatalf("no event of kind %d from %s; dropped %v", kind, from, m.Dropped())
		}
	}
}

const secret = "a secret of the cluster"

// lined waits until m has a lifeline to a peer.
func lined(t *testing.T, m *Mesh, to election.ID) {
	t.Helper()
	for began := time.Now(); time.Since(began) < limit; {
		p := m.peer(to)
		p.mu.Lock()
		up := p.line != nil
		p.mu.Unlock()
		if up {
			return
		}
		expect(t, m, ha.Message, to) // paces the loop
	}
	t.Fatalf("no lifeline to %s", to)
}

func TestPeersHearEachOther(t *testing.T) {
	v := voters(t, 3)
	var all []*Mesh
	for _, id := range v {
		m, _ := join(t, id, v, secret)
		all = append(all, m)
	}
	for i, m := range all {
		alive, spoke := map[election.ID]bool{}, map[election.ID]bool{}
		late := time.After(limit)
		for len(spoke) < 2 {
			select {
			case e := <-m.Events():
				switch {
				case e.Kind == ha.Alive:
					alive[e.From] = true
				case e.Kind == ha.Message && (!alive[e.From] || string(e.Msg) != "from "+string(e.From)):
					t.Fatalf("%s: %q from %s, alive %v", v[i], e.Msg, e.From, alive)
				case e.Kind == ha.Message:
					spoke[e.From] = true
				}
			case <-late:
				t.Fatalf("%s heard only %v; dropped %v", v[i], spoke, m.Dropped())
			}
		}
	}
}

func TestEndOfAProcessIsGone(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	_, stop := join(t, v[1], v, secret)
	lined(t, a, v[1])
	stop()
	expect(t, a, ha.Gone, v[1])
	_, _ = join(t, v[1], v, secret)
	expect(t, a, ha.Alive, v[1])
}

func TestKilledProcessIsGoneAndAStoppedOneIsSilent(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	child := exec.Command(os.Args[0], "-test.run=TestChild")
	child.Env = append(os.Environ(), "BEAT_TEST_SELF="+string(v[1]), "BEAT_TEST_PEER="+string(v[0]))
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	lined(t, a, v[1])
	if !a.Challenge(v[1], limit) {
		t.Fatal("a living process did not answer the challenge")
	}
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	expect(t, a, ha.Silent, v[1])
	if a.Challenge(v[1], 100*time.Millisecond) {
		t.Error("a frozen process answered the challenge")
	}
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expect(t, a, ha.Alive, v[1])
	lined(t, a, v[1])
	began := time.Now()
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	expect(t, a, ha.Gone, v[1])
	t.Logf("gone after %v", time.Since(began))
}

// TestChild is the other process of the test above; by itself it does nothing.
func TestChild(t *testing.T) {
	self, peer := election.ID(os.Getenv("BEAT_TEST_SELF")), election.ID(os.Getenv("BEAT_TEST_PEER"))
	if self == "" {
		return
	}
	m, _ := join(t, self, []election.ID{self, peer}, secret)
	for range m.Events() { // until it is killed
	}
}

func TestStrangersAreDroppedAndCounted(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	_, _ = join(t, v[1], v, "the secret of another")
	for began := time.Now(); a.Dropped()["stranger"] == 0 || a.Dropped()["junk"] == 0; {
		if time.Since(began) > limit {
			t.Fatalf("dropped %v", a.Dropped())
		}
		to, err := Address(v[0])
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte{wire.Newest, 1, 2, 3})
		c.Close()
	}
	select {
	case e := <-a.Events():
		t.Errorf("event of a stranger: %+v", e)
	default:
	}
	if a.Challenge(v[1], time.Second) {
		t.Error("a stranger answered a challenge")
	}
}

func TestChallengeNeedsOneWayOnly(t *testing.T) {
	v := voters(t, 2)
	a, _ := join(t, v[0], v, secret)
	_, _ = join(t, v[1], v, secret)
	a.Devices = []string{"lo", "missing0"}
	if !a.Challenge(v[1], limit) {
		t.Error("no answer by the default way")
	}
	if c, err := a.dial(t.Context(), a.peer(v[1]), limit, "lo"); err != nil {
		t.Errorf("by lo: %v", err)
	} else {
		c.Close()
	}
	if _, err := a.dial(t.Context(), a.peer(v[1]), limit, "missing0"); err == nil {
		t.Error("an answer by an interface that there is not")
	}
}

// carrier takes datagrams to another mesh of this process.
type carrier struct{ to *Mesh }

func (c *carrier) Carry(_ election.ID, b []byte) {
	if c.to != nil {
		c.to.Receive(append([]byte(nil), b...))
	}
}

func TestSecondCarrierIsEnoughAndItsCopiesAreDropped(t *testing.T) {
	v := voters(t, 2)
	open := func(i int, c Carrier) *Mesh {
		m, err := Listen(Config{Cluster: "test", Secrets: []string{secret}, Self: v[i], Voters: v, Heartbeat: 20 * time.Millisecond,
			Now: clock.Now, Log: slog.New(slog.DiscardHandler)}, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(m.close)
		return m
	}
	ab, ba := &carrier{}, &carrier{}
	a, b := open(0, ab), open(1, ba) // nobody reads their sockets
	ab.to, ba.to = b, a
	for range 2 { // challenge, echo
		a.Send(v[1], []byte("x"))
		b.Send(v[0], []byte("x"))
	}
	expect(t, a, ha.Message, v[1])
	expect(t, b, ha.Message, v[0])
	ab.to = nil
	double := &doubler{b}
	a.carrier = []Carrier{double}
	a.peer(v[1]).turn = 0 // all that is said is carried too
	before := b.Dropped()["copy"]
	a.Send(v[1], []byte("twice"))
	if e := expect(t, b, ha.Message, v[0]); string(e.Msg) != "twice" && string(e.Msg) != "x" {
		t.Errorf("heard %q", e.Msg)
	}
	if got := b.Dropped()["copy"] - before; got != 1 {
		t.Errorf("%d copies dropped, want 1", got)
	}
}

type doubler struct{ to *Mesh }

func (d *doubler) Carry(_ election.ID, b []byte) {
	d.to.Receive(append([]byte(nil), b...))
	d.to.Receive(append([]byte(nil), b...))
}

// A carrier delivers from goroutines of its own, which may end after the mesh does.
func TestDatagramAfterTheEndIsDropped(t *testing.T) {
	all := voters(t, 2)
	m, stop := join(t, all[0], all, "a secret of the cluster")
	stop()
	if m.tell(ha.MeshEvent{Kind: ha.Message, From: all[1]}) {
		t.Error("an event was queued after the events were closed")
	}
}
