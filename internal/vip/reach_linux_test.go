package vip

import (
	"context"
	"net/netip"
	"testing"
	"time"
)

// TestReach: any sign of life of a host is enough, on the network of the port or by what
// goes through a router too; silence is none.
func TestReach(t *testing.T) {
	if !inside(t) {
		return
	}
	s := newStage(t)
	_, port := s.open(nil)
	far := func(ctx context.Context, a netip.Addr) error { return Reach(ctx, a) }
	for _, c := range []struct {
		name  string
		reach func(context.Context, netip.Addr) error
		addr  string
		d     time.Duration
		want  bool
	}{
		{"by ARP", port.Reach, "10.9.0.9", patience, true},
		{"by ND", port.Reach, "fd09::9", patience, true},
		{"by ARP, nobody", port.Reach, "10.9.0.77", 100 * time.Millisecond, false},
		{"by ND, nobody", port.Reach, "fd09::77", 100 * time.Millisecond, false},
		{"by echo", ping, "10.9.0.9", patience, true},
		{"by echo over IPv6", ping, "fd09::9", patience, true},
		{"by a refused connection", connect, "10.9.0.9", patience, true},
		{"by any", far, "10.9.0.9", patience, true},
		{"by any, nobody", far, "10.9.0.77", 100 * time.Millisecond, false},
		{"by any, no route", far, "203.0.113.1", 100 * time.Millisecond, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), c.d)
		if err := c.reach(ctx, netip.MustParseAddr(c.addr)); (err == nil) != c.want {
			t.Errorf("%s: %v, want a sign of life: %v", c.name, err, c.want)
		}
		cancel()
	}
}
