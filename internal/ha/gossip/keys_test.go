package gossip

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/ha/election"
)

func TestSecretsAreReplacedWithoutLosingAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		answer := func(election.ID, []byte) []byte { return []byte("here") }
		a, stopA := join(t, l, pair[0], Config{Secrets: []string{"the first secret"}, Answer: answer})
		b, stopB := join(t, l, pair[1], Config{Secrets: []string{"the first secret"}, Answer: answer})
		defer stopB()
		defer stopA()
		sees(t, a, 2, 5*time.Second)
		sees(t, b, 2, 5*time.Second)
		both := func(when string) {
			t.Helper()
			for range 40 { // long enough for a member that does not answer to be given up
				time.Sleep(500 * time.Millisecond)
				if len(a.Alive()) != 2 || len(b.Alive()) != 2 {
					t.Fatalf("%s: a sees %v, b sees %v", when, a.Alive(), b.Alive())
				}
			}
			for _, ask := range []struct{ from, to *Gossip }{{a, b}, {b, a}} {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				if _, err := ask.from.Ask(ctx, ask.to.Self, nil); err != nil {
					t.Errorf("%s: %v", when, err)
				}
				cancel()
			}
		}
		for _, step := range []struct {
			name    string
			of      *Gossip
			secrets []string
		}{
			{"a believes the new one", a, []string{"the first secret", "the second secret"}},
			{"b believes it", b, []string{"the first secret", "the second secret"}},
			{"a seals with it", a, []string{"the second secret", "the first secret"}},
			{"b seals with it", b, []string{"the second secret", "the first secret"}},
			{"a drops the old one", a, []string{"the second secret"}},
			{"b drops it", b, []string{"the second secret"}},
		} {
			if err := step.of.SetSecrets(step.secrets); err != nil {
				t.Fatal(err)
			}
			both(step.name)
		}
		refused := b.Refused()
		if err := a.SetSecrets([]string{"the first secret"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if b.Refused() == refused {
			t.Error("b still believes the secret that it dropped")
		}
		if err := a.SetSecrets(nil); err == nil {
			t.Error("no secret at all is taken")
		}
	})
}
