package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAQuotaIsNoticedInEveryGroupAbove(t *testing.T) {
	for _, c := range []struct{ name, self, stat string }{
		{"version 2", "0::/system.slice/proxyd.service\n", "system.slice/proxyd.service"},
		{"version 2, above", "0::/system.slice/proxyd.service\n", "system.slice"},
		{"version 2, in a container", "0::/\n", ""},
		{"version 1", "4:cpu,cpuacct:/docker/1\n", "cpu/docker/1"},
		{"version 1, one link", "4:cpu,cpuacct:/docker/1\n", "cpu,cpuacct/docker"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &quota{self: filepath.Join(t.TempDir(), "self"), root: t.TempDir(), rests: func() uint64 { return 0 }}
			stat := filepath.Join(q.root, c.stat, "cpu.stat")
			if err := os.MkdirAll(filepath.Dir(stat), 0o700); err != nil {
				t.Fatal(err)
			}
			tell := func(file, text string) {
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tell(q.self, c.self)
			var got [4]bool
			for i, n := range []string{"7", "7", "9", "9"} {
				tell(stat, "nr_periods 50\nnr_throttled "+n+"\nthrottled_usec 1\n")
				got[i] = q.Curbed()
			}
			if want := [4]bool{false, false, true, false}; got != want {
				t.Errorf("curbed %v, want %v", got, want)
			}
		})
	}
}

func TestAQuotaThatCannotBeSeenMayBeThere(t *testing.T) {
	q := &quota{self: filepath.Join(t.TempDir(), "none"), root: t.TempDir()}
	if !q.Curbed() {
		t.Error("not curbed, though nothing is known")
	}
}

func TestAProcessThatRestsByItselfIsCurbed(t *testing.T) {
	rests := uint64(0)
	q := &quota{self: filepath.Join(t.TempDir(), "self"), root: t.TempDir(), rests: func() uint64 { return rests }}
	for file, text := range map[string]string{q.self: "0::/\n", filepath.Join(q.root, "cpu.stat"): "nr_throttled 0\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []uint64{0, 3, 3} {
		was := rests
		if rests = n; q.Curbed() != (n > was) {
			t.Errorf("%d rests after %d", n, was)
		}
	}
}

func TestTheTightestQuotaOfAllGroupsIsTold(t *testing.T) {
	for _, c := range []struct {
		name, self    string
		files         map[string]string
		quota, period time.Duration
	}{
		{"version 2", "0::/a/b\n", map[string]string{"a/b/cpu.max": "33000 100000\n", "a/cpu.max": "max 100000\n"}, 33 * time.Millisecond, 100 * time.Millisecond},
		{"version 2, above", "0::/a/b\n", map[string]string{"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "50000 50000\n"}, 50 * time.Millisecond, 50 * time.Millisecond},
		{"version 1", "4:cpu,cpuacct:/d\n", map[string]string{"cpu/d/cpu.cfs_quota_us": "33000\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, 33 * time.Millisecond, 100 * time.Millisecond},
		{"version 1, none", "4:cpu,cpuacct:/d\n", map[string]string{"cpu/d/cpu.cfs_quota_us": "-1\n", "cpu/d/cpu.cfs_period_us": "100000\n"}, 0, 0},
		{"none", "0::/a\n", map[string]string{"a/cpu.max": "max 100000\n"}, 0, 0},
		{"nothing to be read", "0::/a\n", nil, 0, 0},
	} {
		q := &quota{self: filepath.Join(t.TempDir(), "self"), root: t.TempDir()}
		for file, text := range c.files {
			at := filepath.Join(q.root, file)
			if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(q.self, []byte(c.self), 0o600); err != nil {
			t.Fatal(err)
		}
		if quota, period := q.bound(); quota != c.quota || period != c.period {
			t.Errorf("%s: %v in %v, want %v in %v", c.name, quota, period, c.quota, c.period)
		}
	}
}
