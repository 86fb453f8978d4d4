package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"proxyd/internal/config"
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

// ownAddress finds which voter this host is: cluster.bind if it is given, else the one
// entry of cluster.join whose address this host has.
func ownAddress(c *config.Config, have []netip.Addr) (netip.AddrPort, error) {
	var mine []netip.AddrPort
	for _, j := range c.Cluster.Join {
		if c.Cluster.Bind.IsValid() && j == c.Cluster.Bind || !c.Cluster.Bind.IsValid() && slices.Contains(have, j.Addr()) {
			mine = append(mine, j)
		}
	}
	switch {
	case len(mine) == 1:
		return mine[0], nil
	case c.Cluster.Bind.IsValid():
		return netip.AddrPort{}, fmt.Errorf("%s: cluster.bind %v is not in cluster.join: every node is known by its address there", c.Name, c.Cluster.Bind)
	case len(mine) == 0:
		return netip.AddrPort{}, fmt.Errorf("%s: cluster.join names no address of this host (it has %v)", c.Name, have)
	}
	return netip.AddrPort{}, fmt.Errorf("%s: cluster.join names %v, which are all of this host; say which one it is with cluster.bind", c.Name, mine)
}

// hostWarnings says what in c does not fit this host, for `proxyd check`: it may be run
// on another host than the one that the file is for, so nothing here is an error.
func hostWarnings(c *config.Config) []string {
	var out []string
	if len(c.Cluster.Join) > 0 {
		if have, err := hostAddrs(); err == nil {
			if _, err := ownAddress(c, have); err != nil {
				out = append(out, "warning: "+err.Error())
			}
		}
	}
	for _, v := range vipsOf(c) {
		if err := inReach(v); err != nil {
			out = append(out, fmt.Sprintf("%s: warning: %v", c.Name, err))
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
