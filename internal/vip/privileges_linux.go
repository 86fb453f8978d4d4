package vip

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Privileges returns an error that names the capabilities which this process lacks for
// holding addresses, or nil.
func Privileges() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	effective := uint64(caps[0].Effective) | uint64(caps[1].Effective)<<32
	return lacking(effective)
}

// lacking names what a set of capabilities lacks.
func lacking(effective uint64) error {
	var names []string
	for _, c := range []struct {
		bit  uint
		name string
	}{
		{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN (to add and remove addresses)"},
		{unix.CAP_NET_RAW, "CAP_NET_RAW (to send and hear ARP and ND)"},
	} {
		if effective&(1<<c.bit) == 0 {
			names = append(names, c.name)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("missing %s: run as root, or grant it (systemd: AmbientCapabilities=)", strings.Join(names, " and "))
}
