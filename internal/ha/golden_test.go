package ha

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"proxyd/internal/ha/wire/wiretest"
)

func TestFrameKeepsItsFormat(t *testing.T) {
	sent := framed(samples)
	all := wiretest.Golden(t, "v1/frame.hex", sent[0])
	for i, b := range all {
		got, err := everything(b)
		if err != nil || len(got) == 0 {
			t.Fatalf("number %d: %v", i+1, err)
		}
		if i < len(all)-1 {
			continue // it lacks what was added since
		}
		if d := cmp.Diff(samples, got, cmp.AllowUnexported(hello{}, tenure{}, ballot{}, request{}, note{}), addrs); d != "" {
			t.Errorf("(-written +read)\n%s", d)
		}
	}
}
