package engine

import (
	"testing"
	"time"
)

func TestTheLastDescriptorsAreNotForClients(t *testing.T) {
	for _, c := range []struct{ all, clients, servers int64 }{
		{64, 32, 48}, {256, 208, 232}, {1024, 896, 960}, {1 << 20, 1<<20 - 1024, 1<<20 - 512},
	} {
		var s spare
		s.limit(c.all)
		if s.fullFor(int(c.clients)-1) || !s.fullFor(int(c.clients)) {
			t.Errorf("of %d, clients may have those below %d, want %d", c.all, s.clients.Load(), c.clients)
		}
		if s.spent(int(c.servers)-1) || !s.spent(int(c.servers)) {
			t.Errorf("of %d, servers may have those below %d, want %d", c.all, s.servers.Load(), c.servers)
		}
	}
}

func TestTheLogIsToldOnceAMinuteOfAll(t *testing.T) {
	var s spare
	begun := moment(time.Hour)
	lines := map[uint64]int{}
	for i := range 1000 { // of a second and a half each: 25 minutes
		if n, tell := s.refuse(begun + moment(i)*moment(1500*time.Millisecond)); tell {
			lines[n]++
		}
	}
	if lines[1] != 1 || lines[40] != 24 || len(lines) != 2 {
		t.Errorf("lines by what they count: %v, want one of 1 and 24 of 40", lines)
	}
}
