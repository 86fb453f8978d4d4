package ha

import (
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/ha/wire"
)

// A cluster is taken a release up, node by node, and one of its nodes back again.
func TestTwoReleasesAreOneCluster(t *testing.T) {
	today, next := wire.Range{Oldest: 1, Newest: 1}, wire.Range{Oldest: 1, Newest: 2}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		speaks := map[string]wire.Range{"a": today, "b": today}
		w.adapt = func(name string, c *Config) { c.Wire = speaks[name] }
		w.start("a", public("a", "b"))
		w.start("b", public("a", "b"))
		w.held("public", "a", 3*time.Second)
		for _, step := range []struct {
			name string
			to   wire.Range
		}{{"b", next}, {"a", next}, {"b", today}, {"b", next}, {"a", today}, {"b", today}} {
			time.Sleep(time.Second)
			w.kill(step.name)
			w.someone("public", time.Second)
			speaks[step.name] = step.to
			w.start(step.name, public("a", "b"))
			time.Sleep(time.Second)
			holder := w.someone("public", time.Second)
			other := map[string]string{"a": "b", "b": "a"}[holder]
			if _, err := w.nodes[holder].Failover(t.Context(), "public", other, "to be seen"); err != nil {
				t.Fatalf("with %v and %v: %v", speaks["a"], speaks["b"], err)
			}
			v, err := w.nodes["a"].Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := v.Nodes[1].Newest; got != speaks["b"].Newest || v.Stats.BadFrames > 0 {
				t.Errorf("a has b's newest as %d, want %d; frames that could not be read: %d", got, speaks["b"].Newest, v.Stats.BadFrames)
			}
		}
		w.never2(t)
	})
}
