package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxName bounds names: they become labels of metrics and file names.
const maxName = 63

// checkName keeps the grammar of the names of nodes, pools, listeners and addresses.
func checkName(s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("needs 1 to %d characters", maxName)
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.') {
			return errors.New("may have letters, digits, and after the first character - _ and .")
		}
	}
	return nil
}

// parsePrefix reads "10.0.0.0/8", or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(`needs an address such as "10.0.0.0/8", not %q`, s)
	}
	return p, nil
}

// parseNodeAddr reads "10.0.0.11" or "10.0.0.11:7946".
func parseNodeAddr(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), defaultPort), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf(`needs an IP address such as "10.0.0.11" or "10.0.0.11:7946", not %q`, s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
