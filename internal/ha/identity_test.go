package ha

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/ha/election"
)

func TestIdentify(t *testing.T) {
	a, b := netip.MustParseAddrPort("10.0.0.11:7946"), netip.MustParseAddrPort("[2001:db8::12]:7946")
	local := func(s ...string) (out []netip.Addr) {
		for _, x := range s {
			out = append(out, netip.MustParseAddr(x))
		}
		return out
	}
	for _, c := range []struct {
		name  string
		bind  netip.AddrPort
		local []netip.Addr
		want  election.ID
		err   string
	}{
		{"its only address", netip.AddrPort{}, local("127.0.0.1", "10.0.0.11"), "10.0.0.11:7946", ""},
		{"IPv4 written as IPv6", netip.AddrPort{}, local("::ffff:10.0.0.11"), "10.0.0.11:7946", ""},
		{"with a zone", netip.AddrPort{}, local("2001:db8::12%eth0"), "[2001:db8::12]:7946", ""},
		{"bind decides between two", b, local("10.0.0.11", "2001:db8::12"), "[2001:db8::12]:7946", ""},
		{"none", netip.AddrPort{}, local("10.0.0.13"), "", "no address of cluster.join"},
		{"two", netip.AddrPort{}, local("10.0.0.11", "2001:db8::12"), "", "more than one"},
		{"bind is not in join", netip.MustParseAddrPort("10.0.0.13:7946"), nil, "", "not in cluster.join"},
	} {
		got, err := Identify([]netip.AddrPort{a, b}, c.bind, c.local)
		if got != c.want || (c.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v; want %q, %q", c.name, got, err, c.want, c.err)
		}
	}
}

func TestCandidatesFollowPreferThenSpread(t *testing.T) {
	voters := []election.ID{"1", "2", "3"}
	names := map[election.ID]string{"1": "a", "2": "b", "3": "c"}
	name := func(id election.ID) string { return names[id] }
	if got := candidates("x", []string{"c", "gone", "a"}, voters, name); !slices.Equal(got, []election.ID{"3", "1", "2"}) {
		t.Errorf("prefer c, gone, a: %v", got)
	}
	first := map[election.ID]bool{}
	for _, vip := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		first[candidates(vip, nil, voters, name)[0]] = true
	}
	if len(first) != 3 {
		t.Errorf("eight VIPs begin at %v only", first)
	}
}

func TestTermsNeverComeTwice(t *testing.T) {
	dir := t.TempDir()
	_, start, err := OpenTerms(dir)
	if err != nil || start != 0 {
		t.Fatalf("first start: %d, %v", start, err)
	}
	terms, start, err := OpenTerms(dir)
	if err != nil || start != termBlock {
		t.Fatalf("second start: %d, %v", start, err)
	}
	terms.Used(start+termBlock/2-1, func(error) { t.Error("reserved too early") })
	done := make(chan error)
	terms.Used(start+termBlock/2, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, again, err := OpenTerms(dir); err != nil || again != start+termBlock/2+termBlock {
		t.Errorf("third start: %d, %v", again, err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left in the directory: %v", files)
	}
}

func TestAFullDiskKeepsNoNodeFromStarting(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := OpenTerms(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "term")
	last := time.Now().Add(-time.Minute)
	if err := os.Chtimes(file, last, last); err != nil {
		t.Fatal(err)
	}
	terms := &Terms{path: file, store: func(uint64) error { return syscall.ENOSPC }}
	start, err := terms.open()
	if !errors.Is(err, ErrUnreserved) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if start < termBlock+60 {
		t.Errorf("it starts above %d, want the seconds since the last reservation added to %d", start, termBlock)
	}
	terms.store = terms.write // there is room again
	done := make(chan error)
	terms.Used(start+1, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, again, err := OpenTerms(dir); err != nil || again != start+1+termBlock {
		t.Errorf("the next start: %d, %v", again, err)
	}
}

func TestUnreadableTermIsAnError(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "term"), []byte("\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenTerms(dir); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "term")) {
		t.Errorf("error %v does not name the file", err)
	}
	if _, _, err := OpenTerms(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing directory is no error")
	}
}
