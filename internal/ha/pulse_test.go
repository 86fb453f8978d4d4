package ha

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestThePathToAPeerIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a, _ := pair(t, public("a", "b"))
		time.Sleep(time.Minute)
		look := func() PathView {
			v, err := a.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return v.Nodes[1].Path
		}
		p := look()
		if p.RTT < 2*w.delay || p.RTT > 4*w.delay+time.Millisecond || p.Skew.Abs() > time.Millisecond {
			t.Errorf("round trip %v, skew %v", p.RTT, p.Skew)
		}
		if p.LossIn != 0 || p.LossOut != 0 || p.HearsUs < 0 || p.HearsUs > 2*beat {
			t.Errorf("loss %v and %v, heard there %v ago", p.LossIn, p.LossOut, p.HearsUs)
		}
		// Loss one way only is told by its direction.
		w.mu.Lock()
		w.lossOf = map[string]float64{"b": 0.2}
		w.mu.Unlock()
		time.Sleep(3 * time.Minute)
		if p := look(); p.LossIn < 0.1 || p.LossIn > 0.3 || p.LossOut > 0.01 {
			t.Errorf("loss %v from there and %v to there, want 0.2 and 0", p.LossIn, p.LossOut)
		}
		w.mu.Lock()
		w.lossOf = nil
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
	})
}

func TestLossesStartAnewWithALife(t *testing.T) {
	var l losses
	l.count(1, 10, 10)
	l.count(2, 500, 490)
	if s, ok := l.share(); !ok || s < 0.02 || s > 0.03 {
		t.Errorf("share %v, %v", s, ok)
	}
	l.count(3, 1, 1)
	if _, ok := l.share(); ok {
		t.Error("one beat of a new life has a share")
	}
}
