package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/doctor"
	"proxyd/internal/ha"
	"proxyd/internal/vip"
	"proxyd/internal/vip/viptest"
)

// Many addresses take the doctor no longer than a few, and it is said which were not asked.
func TestDoctorOfManyVIPs(t *testing.T) {
	for _, c := range []struct {
		vips, asked int // asked: -1 all
		limit       time.Duration
	}{
		{5, -1, 2 * probeTime},
		{50, -1, 3 * probeTime},
		{1000, 300, examineTime + 2*probeTime},
	} {
		t.Run(fmt.Sprint(c.vips), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				now := viptest.SinceNow()
				lan := viptest.New(now)
				port := vip.OpenPort(lan.Link("eth0", viptest.MAC{2, 0, 0, 0, 0, 1}, netip.MustParsePrefix("10.0.0.11/16")), vip.PortOptions{Now: now})
				defer port.Close()
				conf := &config.Config{VIP: map[string]*config.VIP{}}
				k := &cluster{}
				k.set.Store(&addresses{config: conf, keepers: map[string]*vip.Keeper{}})
				v := ha.View{Nodes: []ha.NodeView{{Name: "edge-1"}}}
				for i := range c.vips {
					name := fmt.Sprintf("vip-%04d", i)
					at := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(1 + i/250), byte(1 + i%250)}), 16)
					conf.VIP[name] = &config.VIP{Name: name, Address: at, Interface: "lo"}
					keeper, err := port.Keeper(at, vip.Options{})
					if err != nil {
						t.Fatal(err)
					}
					k.now().keepers[name] = keeper
					v.VIPs = append(v.VIPs, ha.VIPView{Name: name})
				}
				began := time.Now()
				found := k.examineVIPs(v)
				if took := time.Since(began); took > c.limit {
					t.Errorf("it took %v, want less than %v", took, c.limit)
				}
				asked, passed, last := 0, 0, ""
				for _, f := range found {
					if f.Check != "duplicate" {
						continue
					}
					if f.About < last {
						t.Fatalf("%s stands behind %s", f.About, last)
					}
					last = f.About
					switch {
					case f.Level == doctor.OK:
						asked++
					case strings.Contains(f.What, "was not asked"):
						passed++
					default:
						t.Fatalf("%+v", f)
					}
				}
				if asked+passed != c.vips || c.asked < 0 && passed > 0 || asked < c.asked {
					t.Errorf("of %d VIPs %d were asked for and %d were not", c.vips, asked, passed)
				}
			})
		})
	}
}
