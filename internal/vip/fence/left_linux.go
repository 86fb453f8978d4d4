package fence

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"

	"proxyd/internal/vip/bpf"
)

// Left returns on which interfaces of this network namespace the node has a fence, of whatever
// kind, with the addresses that it is about: what an earlier life left, if none runs. A fence of
// filters without a file system for pins is not found: nothing says whose it is. What may not
// be looked at is not there.
func Left(state string) map[string][]netip.Addr {
	left := map[string][]netip.Addr{}
	for device, pins := range bpf.PinsOfAll(state) {
		left[device] = append(left[device], gatesOf(pins)...)
	}
	for device, addrs := range tablesLeft(state) {
		left[device] = append(left[device], addrs...)
	}
	for device, addrs := range left {
		slices.SortFunc(addrs, netip.Addr.Compare)
		left[device] = slices.Compact(addrs)
	}
	return left
}

// gatesOf lists the addresses that pinned gates are about.
func gatesOf(pins *bpf.Pins) (addrs []netip.Addr) {
	m, err := pins.Old(pinGates)
	if err != nil {
		return nil
	}
	defer m.Close()
	var k, v []byte
	for all := m.Iterate(); all.Next(&k, &v); {
		if len(k) == keySize {
			addrs = append(addrs, netip.AddrFrom16([keySize]byte(k)).Unmap())
		}
	}
	return addrs
}

// tablesLeft lists the addresses that the node's tables are about.
func tablesLeft(state string) map[string][]netip.Addr {
	left := map[string][]netip.Addr{}
	conn, err := dial()
	if err != nil {
		return left // a kernel without any
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyARP, nftables.TableFamilyINet} {
		all, _ := conn.ListTablesOfFamily(family)
		for _, table := range all {
			device, ours := deviceOf(table.Name, state)
			if !ours {
				continue
			}
			left[device] = append(left[device], members(conn, table)...)
		}
	}
	return left
}

// deviceOf returns of which interface a table is, if it is one of the node's.
func deviceOf(table, state string) (device string, ours bool) {
	device, ours = strings.CutSuffix(table, "-"+bpf.NodeTag(state))
	if !ours {
		return "", false
	}
	return strings.CutPrefix(device, tableStem)
}

// members lists the addresses that a table is about.
func members(conn *nftables.Conn, table *nftables.Table) (addrs []netip.Addr) {
	sets, _ := conn.GetSets(table)
	for _, s := range sets {
		if s.Name != arpVIPs && s.Name != vips4 && s.Name != vips6 {
			continue
		}
		elements, _ := conn.GetSetElements(s)
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}
