package config

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse: no text makes Parse panic; it returns problems with places, or a
// configuration whose effective form reads as the same.
func FuzzParse(f *testing.F) {
	for _, name := range append(glob(f, "testdata/good/*.toml"), glob(f, "testdata/bad/*.toml")...) {
		f.Add(mustRead(name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := testHost().Parse("proxyd.toml", data)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("Parse = %v, want Problems", err)
			}
			for _, p := range problems {
				if p.Line < 1 || p.Col < 1 || p.Msg == "" {
					t.Errorf("a problem without a place: %v", p)
				}
			}
			return
		}
		again, err := testHost().Parse("effective.toml", []byte(c.Effective()))
		if err != nil {
			t.Fatalf("Parse(Effective()) = %v\n%s", err, c.Effective())
		}
		if diff := cmp.Diff(c, again, same); diff != "" {
			t.Errorf("Parse(Effective()) differs (-was +is):\n%s\n%s", diff, c.Effective())
		}
	})
}
