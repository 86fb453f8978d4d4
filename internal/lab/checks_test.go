package lab

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
)

func TestChecksAreJudged(t *testing.T) {
	none := &Checked{Kind: "none", Servers: 5000, In: 30 * time.Second, Resident: 50e6}
	good := Checked{Kind: "http", Servers: 5000, Passed: 30000, In: 30 * time.Second, CPU: 0.1, Resident: 55e6}
	for name, c := range map[string]struct {
		spoil  func(*Checked)
		broken string
	}{
		"good":            {func(*Checked) {}, ""},
		"too few":         {func(c *Checked) { c.Passed = 28000 }, "933 checks a second"},
		"many failed":     {func(c *Checked) { c.Passed, c.Failed = 29000, 1000 }, "1000 of 30000 checks failed"},
		"too dear":        {func(c *Checked) { c.CPU = 0.41 }, "for a check"},
		"too much memory": {func(c *Checked) { c.Resident = 95e6 }, "bytes for a server"},
	} {
		made := good
		c.spoil(&made)
		var out strings.Builder
		err := Checks{Out: &out}.report([]*Checked{none, &made})
		if (err != nil) != (c.broken != "") || err != nil && (!errors.Is(err, ErrPromise) || !strings.Contains(err.Error(), c.broken)) {
			t.Errorf("%s: %v, want %q", name, err, c.broken)
		}
	}
}

func TestChecksAreConfiguredForEveryServer(t *testing.T) {
	for _, k := range checkKinds {
		c, err := config.Parse("proxyd.toml", []byte(Checks{Servers: 120}.configuration(k.check, "/nowhere", "/nowhere/admin.sock")))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for name, p := range c.Pool {
			if (p.Check != nil) != (k.check != "") || p.Check != nil && p.Check.Interval != checksInterval {
				t.Errorf("%s: pool %s has the check %+v", k.name, name, p.Check)
			}
			for _, s := range p.Server {
				seen[s.Addr] = true
			}
		}
		if len(seen) != 120 || len(c.Route) != 3 {
			t.Errorf("%s: %d servers, %d routes: %s", k.name, len(seen), len(c.Route), fmt.Sprint(seen))
		}
	}
}
