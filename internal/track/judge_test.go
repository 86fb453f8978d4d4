package track

import "testing"

func TestJudgeNeedsSeveralInARow(t *testing.T) {
	tests := []struct{ name, looks, want string }{
		{"unknown is good, and the first good look says nothing new", "+", "+"},
		{"the first look decides alone", "-", "-"},
		{"three failures in a row are needed", "+---", "+++-"},
		{"a good look between begins anew", "+--+--+---", "+++++++++-"},
		{"two good looks in a row are needed", "-++", "--+"},
		{"a failure between begins anew", "-+-+-++", "------+"},
		{"there and back", "+---++---", "+++--+++-"},
	}
	for _, test := range tests {
		var j judge
		got := ""
		for i, look := range test.looks {
			was := j.failed
			if changed := j.add(look == '+', 2, 3); changed != (was != j.failed) {
				t.Errorf("%s: look %d: changed = %t, failed %t -> %t", test.name, i, changed, was, j.failed)
			}
			got += map[bool]string{true: "-", false: "+"}[j.failed]
		}
		if got != test.want {
			t.Errorf("%s: after %s it is %s, want %s", test.name, test.looks, got, test.want)
		}
	}
}
