package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"proxyd/internal/ha/election"
)

var pair = []election.ID{"10.0.0.1:7946", "10.0.0.2:7946"}

// join starts a node on the LAN; stop ends it.
func join(t *testing.T, l *lan, self election.ID, c Config) (g *Gossip, stop func()) {
	t.Helper()
	if c.Secrets == nil {
		c.Secrets = []string{"a secret of the cluster"}
	}
	c.Cluster, c.Self, c.Voters, c.Transport, c.Log = "test", self, pair, l.transport(string(self)), slog.New(slog.DiscardHandler)
	g, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	return g, func() { cancel(); <-done }
}

// sees waits, in virtual time, until g has as many members.
func sees(t *testing.T, g *Gossip, n int, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for len(g.Alive()) != n {
		if time.Since(began) > limit {
			t.Fatalf("%s sees %v after %v, want %d members", g.Self, g.Alive(), limit, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

func TestCutPairFindsItselfAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a, stopA := join(t, l, pair[0], Config{})
		b, stopB := join(t, l, pair[1], Config{})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		sees(t, b, 2, 5*time.Second)
		l.setCut(true)
		sees(t, a, 1, 30*time.Second)
		sees(t, b, 1, 30*time.Second)
		time.Sleep(2 * time.Minute) // memberlist itself has given up by now
		l.setCut(false)
		sees(t, a, 2, 5*time.Second)
		sees(t, b, 2, 5*time.Second)
	})
}

func TestMembersStayThroughLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a, stopA := join(t, l, pair[0], Config{})
		b, stopB := join(t, l, pair[1], Config{})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		sees(t, b, 2, 5*time.Second)
		l.mu.Lock()
		l.loss = 0.05
		l.mu.Unlock()
		for range 300 {
			time.Sleep(time.Second)
			if len(a.Alive()) != 2 || len(b.Alive()) != 2 {
				t.Fatalf("a sees %v, b sees %v", a.Alive(), b.Alive())
			}
		}
	})
}

func TestRestartedNodeIsAMemberAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a, stopA := join(t, l, pair[0], Config{})
		_, stopB := join(t, l, pair[1], Config{})
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		stopB()
		sees(t, a, 1, 30*time.Second)
		b, stopB := join(t, l, pair[1], Config{})
		defer stopB()
		sees(t, b, 2, 5*time.Second)
		sees(t, a, 2, 5*time.Second)
	})
}

func TestCarriedDatagramsArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		got := make(chan []byte, 8)
		a, stopA := join(t, l, pair[0], Config{})
		_, stopB := join(t, l, pair[1], Config{Receive: func(b []byte) { got <- b }})
		defer stopB()
		defer stopA()
		sent := []byte("sealed elsewhere")
		a.Carry(pair[1], sent)
		clear(sent) // Carry keeps no reference
		if b := <-got; !bytes.Equal(b, []byte("sealed elsewhere")) {
			t.Errorf("arrived %q", b)
		}
		a.Carry("10.0.0.9:7946", sent) // nobody
	})
}

func TestAnotherSecretIsRefusedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a, stopA := join(t, l, pair[0], Config{})
		_, stopB := join(t, l, pair[1], Config{Secrets: []string{"the secret of another"}, Receive: func([]byte) {}})
		defer stopB()
		defer stopA()
		time.Sleep(10 * time.Second)
		if got := a.Alive(); !slices.Equal(got, pair[:1]) {
			t.Errorf("a sees %v", got)
		}
		if a.Refused() == 0 {
			t.Error("nothing counted")
		}
		before := a.Refused()
		a.Transport.(*ether).packets <- &memberlist.Packet{Buf: []byte("junk of a stranger"), From: a.Transport.(*ether).addr, Timestamp: time.Now()}
		time.Sleep(time.Second)
		if a.Refused() == before {
			t.Error("junk not counted")
		}
	})
}

// shared is a State in which the longer text wins.
type shared struct {
	mu   sync.Mutex
	text string
}

func (s *shared) Encode(uint8) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []byte(s.text)
}

func (s *shared) Merge(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) > len(s.text) {
		s.text = string(b)
	}
	return nil
}

func TestStateIsExchangedWhenNodesMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		sa, sb := &shared{text: "ban 192.0.2.1"}, &shared{}
		_, stopA := join(t, l, pair[0], Config{State: sa})
		b, stopB := join(t, l, pair[1], Config{State: sb})
		defer stopB()
		defer stopA()
		sees(t, b, 2, 5*time.Second)
		if got := string(sb.Encode(1)); got != "ban 192.0.2.1" {
			t.Errorf("b knows %q", got)
		}
	})
}
