package beat

import (
	"strings"
	"testing"

	"proxyd/internal/ha"
	"proxyd/internal/ha/wire"
)

// Two releases as they will be: one of today and the next.
func today() wire.Range     { return wire.Range{Oldest: 1, Newest: 1} }
func next() wire.Range      { return wire.Range{Oldest: 1, Newest: 2} }
func afterNext() wire.Range { return wire.Range{Oldest: 2, Newest: 3} }

func TestAReleaseAndTheOneBeforeHearEachOther(t *testing.T) {
	v := voters(t, 2)
	a, _ := joinAs(t, v[0], v, secret, next())
	// The other goes a release up, and back again: each time another life of it.
	for _, versions := range []wire.Range{today(), next(), today(), next(), today()} {
		b, stop := joinAs(t, v[1], v, secret, versions)
		expect(t, b, ha.Message, v[0])
		for {
			if e := expect(t, a, ha.Message, v[1]); e.Newest == versions.Newest {
				break
			}
		}
		lined(t, a, v[1])
		lined(t, b, v[0])
		p := a.peer(v[1])
		p.mu.Lock()
		spoken := a.Wire.To(p.newest)
		p.mu.Unlock()
		if spoken != versions.Newest {
			t.Errorf("to one who speaks %v it speaks %d", versions, spoken)
		}
		stop()
		expect(t, a, ha.Silent, v[1])
	}
}

func TestReleasesTooFarApartAreToldAndLive(t *testing.T) {
	v := voters(t, 2)
	a, _ := joinAs(t, v[0], v, secret, today())
	_, _ = joinAs(t, v[1], v, secret, afterNext())
	if e := expect(t, a, ha.Foreign, v[1]); !strings.Contains(e.Info, "speaks version 2 ") || !strings.Contains(e.Info, "this node 1:") {
		t.Errorf("it is told as %q", e.Info)
	}
	if !a.Challenge(v[1], limit) {
		t.Error("a living process of a later release passes for frozen: its address would be claimed")
	}
	if s := a.Signs(v[1]); !s.Unreadable || s.Foreign {
		t.Errorf("it is shown as %+v", s)
	}
}
