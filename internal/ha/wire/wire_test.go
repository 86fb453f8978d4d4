package wire

import "testing"

func TestTwoSpeakTheNewestThatBothKnow(t *testing.T) {
	for _, c := range []struct {
		name   string
		mine   Range
		newest uint8 // of the other
		want   uint8
	}{
		{"the same release", Range{1, 1}, 1, 1},
		{"the other is not known yet", Range{1, 2}, 0, 1},
		{"the other is a release behind", Range{1, 2}, 1, 1},
		{"the other is a release ahead", Range{1, 1}, 2, 1},
		{"both are new", Range{1, 2}, 2, 2},
		{"the other is too old: it is told that by our oldest", Range{2, 3}, 1, 2},
	} {
		if got := c.mine.To(c.newest); got != c.want {
			t.Errorf("%s: To(%d) = %d, want %d", c.name, c.newest, got, c.want)
		}
	}
}

func TestARangeKnowsItsEnds(t *testing.T) {
	r := Range{2, 3}
	for v, want := range map[uint8]bool{1: false, 2: true, 3: true, 4: false} {
		if r.Knows(v) != want {
			t.Errorf("%v.Knows(%d) = %v, want %v", r, v, !want, want)
		}
	}
	if (Range{}).Or() != (Range{Oldest, Newest}) || r.Or() != r {
		t.Errorf("Or: %v and %v", Range{}.Or(), r.Or())
	}
}
