package lab

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asks makes a record from a picture: a and b are one answer, 2 is both, . is none.
func asks(picture string) []Ask {
	var out []Ask
	for i, c := range picture {
		a := Ask{At: Instant(time.Duration(i) * askEvery)}
		switch c {
		case 'a', 'b':
			a.By = []string{string(c)}
		case '2':
			a.By = []string{"a", "b"}
		}
		out = append(out, a)
	}
	return out
}

func TestChangesCountsWhoAnswersAlone(t *testing.T) {
	at := func(names ...[]string) (out []Ask) {
		for _, n := range names {
			out = append(out, Ask{By: n})
		}
		return out
	}
	a, b, both := []string{"a"}, []string{"b"}, []string{"a", "b"}
	for _, c := range []struct {
		asks []Ask
		want int
	}{
		{nil, 0}, {at(a, nil, a, both, a), 0}, {at(nil, a, both, b), 1}, {at(a, b, nil, a), 2},
	} {
		if got := Changes(c.asks); got != c.want {
			t.Errorf("Changes(%v) = %d, want %d", c.asks, got, c.want)
		}
	}
}

func TestPromiseThatNothingMovesIsBrokenByOneMove(t *testing.T) {
	none := 0
	p := Promise{Outage: time.Second, Failed: anyFailed, Two: anyTime, Changes: &none}
	rows := Rows([]Measure{{Event: "busy", Promise: p}, {Event: "busy", Promise: p, Changes: 1}, {Event: "busy", Promise: p}})
	if rows[0].Kept || rows[0].ChangesMax != 1 {
		t.Errorf("%+v", rows[0])
	}
}

func TestTwoHeldIsTheLongestRun(t *testing.T) {
	for _, c := range []struct {
		picture   string
		two, none time.Duration
	}{
		{"", 0, 0},
		{"aaaa", 0, 0},
		{"aa2bb", 50 * ms, 0},
		{"aa222bb2aa", 150 * ms, 0},
		{"aa.2..bb", 50 * ms, 100 * ms},
		{"aa...", 0, 150 * ms},
	} {
		if got := TwoHeld(asks(c.picture)); got != c.two {
			t.Errorf("TwoHeld(%s) = %v, want %v", c.picture, got, c.two)
		}
		if got := NoneHeld(asks(c.picture)); got != c.none {
			t.Errorf("NoneHeld(%s) = %v, want %v", c.picture, got, c.none)
		}
	}
}

func TestSeenByHasEachOnce(t *testing.T) {
	if diff := cmp.Diff([]string{"a", "b"}, SeenBy(asks("bb2aa."))); diff != "" {
		t.Errorf("SeenBy (-want +got):\n%s", diff)
	}
}
