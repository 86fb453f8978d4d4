package doctor

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// well is a host on which nothing is amiss.
func well() fstest.MapFS {
	f := fstest.MapFS{}
	for name, text := range map[string]string{
		"proc/self/status":      "Name:\tproxyd\nCapEff:\t000001ffffffffff\n",
		"proc/self/limits":      "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1048576              1048576              files\n",
		"proc/self/task/7/stat": "7 (a (b) c) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 -51 0 9 0 100 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 50 1 0 0 0",
		"proc/self/cgroup":      "0::/system.slice/proxyd.service\n",
		"sys/fs/cgroup/system.slice/proxyd.service/cpu.max": "max 100000\n",
		"sys/class/dmi/id/sys_vendor":                       "Dell Inc.\n",
		"proc/sys/net/ipv4/conf/eth0/arp_ignore":            "1\n",
		"proc/sys/net/ipv4/conf/all/arp_ignore":             "0\n",
		"proc/sys/net/ipv4/conf/eth0/arp_announce":          "2\n",
		"proc/sys/net/ipv6/conf/eth0/disable_ipv6":          "0\n",
	} {
		f[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return f
}

func examine(f fstest.MapFS) []Finding {
	h := Host{Files: f, Interfaces: []Interface{{Name: "eth0", Index: 2, IPv6: true}}, Threads: 5}
	return h.Check()
}

func TestAWellHostIsWell(t *testing.T) {
	all := examine(well())
	for _, f := range all {
		if f.Level != OK || f.What == "" {
			t.Errorf("%+v", f)
		}
	}
	if len(all) != 9 {
		t.Errorf("%d findings: %+v", len(all), all)
	}
}

func TestWhatIsAmissIsFound(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		check            string
		level            Level
		what             string
	}{
		{"a capability that is needed", "proc/self/status", "CapEff:\t0000000000000400\n", "capabilities", Fail, "CAP_NET_ADMIN"},
		{"a capability that makes it better", "proc/self/status", "CapEff:\t0000000000003400\n", "capabilities", Warn, "CAP_BPF"},
		{"few files", "proc/self/limits", "Max open files            1024                 4096                 files\n", "descriptors", Warn, "1024"},
		{"no real-time thread", "proc/self/task/7/stat", "7 (x) S 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 9 0 100 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "real_time", Warn, "no thread"},
		{"a quota", "sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n", "quota", Warn, "1.5 processors"},
		{"a cloud", "sys/class/dmi/id/sys_vendor", "Amazon EC2\n", "cloud", Fail, "Amazon EC2"},
		{"a cloud with a cure", "sys/class/dmi/id/product_name", "OpenStack Nova\n", "cloud", Warn, "OpenStack"},
		{"a host that answers for lo", "proc/sys/net/ipv4/conf/eth0/arp_ignore", "0\n", "sysctls", Fail, "arp_ignore is 0"},
		{"IPv6 that is off", "proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1\n", "sysctls", Fail, "IPv6 is off"},
		{"networkd", "run/systemd/netif/links/2", "ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/10-eth0.network\n", "manager", Warn, "systemd-networkd"},
		{"NetworkManager", "run/NetworkManager/devices/2", "[device]\nmanaged=true\nconnection-uuid=5\n", "manager", Warn, "NetworkManager"},
	} {
		f := well()
		f[c.file] = &fstest.MapFile{Data: []byte(c.text)}
		found := false
		for _, got := range examine(f) {
			if got.Check == c.check && got.Level == c.level && strings.Contains(got.What, c.what) {
				found = true
			} else if got.Level != OK {
				t.Errorf("%s: also %+v", c.name, got)
			}
			if got.Level != OK && (got.Why == "" || got.Cure == "") {
				t.Errorf("%s: no why or no cure: %+v", c.name, got)
			}
		}
		if !found {
			t.Errorf("%s: not found in %+v", c.name, examine(f))
		}
	}
}

func TestANetworkThatKeepsForeignAddressesIsWell(t *testing.T) {
	f := well()
	f["run/systemd/netif/links/2"] = &fstest.MapFile{Data: []byte("NETWORK_FILE=/run/systemd/network/10-netplan-eth0.network\n")}
	f["run/systemd/network/10-netplan-eth0.network"] = &fstest.MapFile{Data: []byte("[Network]\nDHCP=yes\n")}
	f["etc/systemd/network/10-netplan-eth0.network.d/keep.conf"] = &fstest.MapFile{Data: []byte("[Network]\nKeepConfiguration=yes\n")}
	if got := Worst(examine(f)); got != OK {
		t.Errorf("%s: %+v", got, examine(f))
	}
}

func TestNothingIsReadTwiceFromAnEmptyHost(t *testing.T) {
	for _, f := range examine(fstest.MapFS{}) {
		if f.Level == Fail && f.Check != "sysctls" {
			t.Errorf("what cannot be read is a failure: %+v", f)
		}
	}
}

func pair() Pair {
	return Pair{Heartbeat: 40 * time.Millisecond, Lease: 240 * time.Millisecond, Guard: 30 * time.Millisecond, LongestStall: 3 * time.Millisecond,
		Peers: []Peer{{Name: "edge-2", Heard: true, Longest: 60 * time.Millisecond, Limit: 260 * time.Millisecond, RTT: time.Millisecond, Known: true,
			Skew: time.Millisecond, MTU: 1500, Link: 1500, HearsUs: true, Ports: []Port{{Name: "7946/tcp", What: "state"}}}}}
}

func TestAPair(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(p *Pair, q *Peer)
		check  string
		level  Level
	}{
		{"well", func(*Pair, *Peer) {}, "", OK},
		{"two configurations", func(p *Pair, _ *Peer) { p.Problems = []string{"edge-2 has another"} }, "config", Fail},
		{"a late loop", func(p *Pair, _ *Peer) { p.LongestStall = 50 * time.Millisecond }, "stalls", Warn},
		{"a loop that slept", func(p *Pair, _ *Peer) { p.LongestStall, p.Stalls = time.Second, 1 }, "stalls", Fail},
		{"a silent peer", func(_ *Pair, q *Peer) { q.Heard, q.Why = false, "gone" }, "heard", Fail},
		{"a closed port", func(_ *Pair, q *Peer) { q.Ports[0].Err = errors.New("refused") }, "ports", Fail},
		{"near misses", func(_ *Pair, q *Peer) { q.Longest = 200 * time.Millisecond }, "gaps", Warn},
		{"loss", func(_ *Pair, q *Peer) { q.LossOut = 0.05 }, "loss", Warn},
		{"much loss", func(_ *Pair, q *Peer) { q.LossIn = 0.3 }, "loss", Fail},
		{"a long way", func(_ *Pair, q *Peer) { q.RTT = 30 * time.Millisecond }, "timing", Warn},
		{"too long a way", func(_ *Pair, q *Peer) { q.RTT = 80 * time.Millisecond }, "timing", Fail},
		{"a clock that is off", func(_ *Pair, q *Peer) { q.Skew = -2 * time.Second }, "clock", Warn},
		{"a clock that is far off", func(_ *Pair, q *Peer) { q.Skew = time.Hour }, "clock", Fail},
		{"a small MTU", func(_ *Pair, q *Peer) { q.MTU = 1400 }, "mtu", Warn},
		{"a tiny MTU", func(_ *Pair, q *Peer) { q.MTU = 576 }, "mtu", Fail},
	} {
		p := pair()
		c.change(&p, &p.Peers[0])
		all := p.Check()
		if got := Worst(all); got != c.level {
			t.Errorf("%s: worst is %s, want %s: %+v", c.name, got, c.level, all)
		}
		for _, f := range all {
			if f.Level != OK && (f.Check != c.check || f.Why == "" || f.Cure == "") {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
	}
}

func TestTheWorstComesFirst(t *testing.T) {
	all := []Finding{{Check: "a", Level: OK}, {Check: "b", Level: Fail}, {Check: "c", Level: Warn}, {Check: "d", Level: Fail}}
	Sort(all)
	var got []string
	for _, f := range all {
		got = append(got, f.Check)
	}
	if strings.Join(got, "") != "bdca" || Worst(all) != Fail || Worst(nil) != OK {
		t.Errorf("%v, worst %s", got, Worst(all))
	}
}
