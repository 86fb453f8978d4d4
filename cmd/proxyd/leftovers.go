package main

import (
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"proxyd/internal/config"
	"proxyd/internal/vip"
	"proxyd/internal/vip/fence"
	"proxyd/internal/vip/relay"
)

// sweepLeftovers takes away what an earlier life of this node, which crashed, has left and the
// configuration has no place for any more: addresses that are no VIPs now, fences of interfaces
// that have none, and what sends older connections on. What is left of those that it has is
// taken over when they are opened. A node without VIPs may have no right to any of this, and
// has left nothing then.
func sweepLeftovers(c *config.Config, log *slog.Logger) {
	left := fence.Left(c.Node.State)
	has := map[string][]netip.Addr{}
	for _, v := range held(c) {
		has[v.Interface] = append(has[v.Interface], v.Address.Addr())
	}
	for device, addrs := range left {
		// Before its fence is another, which lets pass what concerns an address that it is not about.
		left[device] = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return slices.Contains(has[device], a) })
	}
	errs := []error{relay.Remove(c.Node.State)}
	found, err := vip.ReleaseLeft(left)
	if errs = append(errs, err); err == nil { // an address that is still there must stay silent
		for device := range left {
			if has[device] == nil {
				errs = append(errs, fence.Remove(c.Node.State, device))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		log.Warn("an earlier life of this node left what cannot be removed: `proxyd release` as root does it", "error", err)
		return
	}
	maps.DeleteFunc(left, func(device string, _ []netip.Addr) bool { return has[device] != nil })
	if len(found)+len(left) > 0 {
		log.Info("removed what an earlier life left", "addresses", found, "fences", slices.Sorted(maps.Keys(left)))
	}
}

// release takes this host's VIPs away without asking anyone, and those that an earlier life had:
// for after the process.
func release(file string) error {
	c, err := load(config.Texts{Main: file, Partial: true})
	if err != nil {
		return err
	}
	on := map[string][]netip.Prefix{}
	for _, v := range vipsOf(c) {
		on[v.Interface] = append(on[v.Interface], v.Address)
	}
	left := fence.Left(c.Node.State)
	if len(on)+len(left) > 0 {
		if err := vip.Privileges(); err != nil {
			return fault{exitPermission, err}
		}
	}
	var errs []error
	if len(on) > 0 {
		errs = append(errs, vip.Release(on))
	}
	_, err = vip.ReleaseLeft(left)
	errs = append(errs, err)
	if errors.Join(errs...) == nil { // an address that is still there must stay silent
		for name := range on {
			left[name] = nil
		}
		for name := range left {
			errs = append(errs, fence.Remove(c.Node.State, name))
		}
		errs = append(errs, relay.Remove(c.Node.State))
	}
	return errors.Join(errs...)
}
