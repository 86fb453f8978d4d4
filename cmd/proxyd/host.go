package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"proxyd/internal/config"
	"proxyd/internal/ha"
	"proxyd/internal/ha/beat"
	"proxyd/internal/ha/election"
)

// hostAddrs returns every address that this host has now.
func hostAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	var have []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			have = append(have, p.Addr())
		}
	}
	return have, nil
}

// lostAddress says that this host has not the address any more by which the others know it,
// nil if it has: somebody may have flushed its interface.
func lostAddress(self election.ID) error {
	at, err := netip.ParseAddrPort(string(self))
	if err != nil {
		return nil // of a node alone it is a name
	}
	have, err := hostAddrs()
	if err == nil && !slices.Contains(have, at.Addr()) {
		err = fmt.Errorf("this host has lost its own address %v", at.Addr())
	}
	return err
}

// hostWarnings says what in c does not fit this host, for `proxyd check`: it may be run
// on another host than the one that the file is for, so nothing here is an error.
func hostWarnings(c *config.Config) []string {
	var out []string
	for _, err := range append(misplaced(c), outOfReach(c)...) {
		out = append(out, fmt.Sprintf("%s: warning: %v", c.Name, err))
	}
	return out
}

// misplaced says why this host cannot take part in the cluster of c.
func misplaced(c *config.Config) (out []error) {
	if len(c.Cluster.Join) == 0 {
		return nil
	}
	have, err := hostAddrs()
	if err == nil {
		_, err = ha.Identify(c.Cluster.Join, c.Cluster.Bind, have)
	}
	if err != nil {
		out = append(out, err)
	}
	for _, path := range c.Cluster.Paths {
		if _, err := beat.FindPath(path); err != nil {
			out = append(out, fmt.Errorf("cluster.paths: %w", err))
		}
	}
	return out
}

// outOfReach says which VIPs of c cannot be held here.
func outOfReach(c *config.Config) (out []error) {
	for _, v := range held(c) {
		if err := inReach(v); err != nil {
			out = append(out, err)
		}
	}
	return out
}

// vipsOf returns the VIPs of c by name.
func vipsOf(c *config.Config) []*config.VIP {
	var names []string
	for name := range c.VIP {
		names = append(names, name)
	}
	slices.Sort(names)
	var vips []*config.VIP
	for _, name := range names {
		vips = append(vips, c.VIP[name])
	}
	return vips
}

// held returns those VIPs of c that this host may hold: a witness holds none.
func held(c *config.Config) []*config.VIP {
	if c.Cluster.Witness {
		return nil
	}
	return vipsOf(c)
}

// inReach reports why v cannot be held here: its interface is missing, or the
// interface has no subnet that v is part of.
func inReach(v *config.VIP) error {
	i, err := net.InterfaceByName(v.Interface)
	if err != nil {
		return fmt.Errorf("vip.%s: interface %s: no such interface on this host", v.Name, v.Interface)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return fmt.Errorf("vip.%s: interface %s: %w", v.Name, v.Interface, err)
	}
	var subnets []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr() == v.Address.Addr() {
			continue
		}
		if p.Contains(v.Address.Addr()) {
			return nil
		}
		subnets = append(subnets, p)
	}
	return fmt.Errorf("vip.%s: %v is not in any subnet of %s (%v)", v.Name, v.Address.Addr(), v.Interface, subnets)
}
