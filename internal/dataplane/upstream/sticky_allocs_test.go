//go:build !race

package upstream

import (
	"testing"
	"time"
)

// The race detector drops things from sync.Pools on purpose.
func TestReadingACookieAllocatesNothing(t *testing.T) {
	p := stickyPool(t, "secret", time.Hour, "a", "b")
	q := asked(valueOf(p, p.servers[0], at(0)))
	if n := testing.AllocsPerRun(100, func() { p.Kept(q, at(1)) }); n > 0 {
		t.Errorf("Kept allocates %v times", n)
	}
}
