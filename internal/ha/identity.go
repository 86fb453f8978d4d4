package ha

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"

	"proxyd/internal/ha/election"
)

// ID returns the name of the voter at an address of cluster.join.
func ID(a netip.AddrPort) election.ID {
	return election.ID(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String())
}

// Identify finds which voter of join this host is: the one at bind, if bind is given,
// else the only one whose address is among local, the addresses of this host.
func Identify(join []netip.AddrPort, bind netip.AddrPort, local []netip.Addr) (election.ID, error) {
	if bind.IsValid() {
		for _, a := range join {
			if ID(a) == ID(bind) {
				return ID(a), nil
			}
		}
		return "", fmt.Errorf("cluster.bind %v is not in cluster.join %v", bind, join)
	}
	here := map[netip.Addr]bool{}
	for _, a := range local {
		here[a.Unmap().WithZone("")] = true
	}
	var own []election.ID
	for _, a := range join {
		if id := ID(a); here[a.Addr().Unmap()] && !slices.Contains(own, id) {
			own = append(own, id)
		}
	}
	switch len(own) {
	case 1:
		return own[0], nil
	case 0:
		return "", fmt.Errorf("this host has no address of cluster.join %v", join)
	}
	return "", fmt.Errorf("this host has more than one address of cluster.join: %v; cluster.bind says which one it is", own)
}

// Voters returns the names of the voters of join, in the order in which all nodes have
// them, each once.
func Voters(join []netip.AddrPort) []election.ID {
	var out []election.ID
	for _, a := range join {
		out = append(out, ID(a))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// address returns where a voter is, for those who hand an address over to it.
func address(id election.ID) netip.Addr {
	a, err := netip.ParseAddrPort(string(id))
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// fingerprint tells whether two nodes have the same list of voters.
func fingerprint(voters []election.ID) uint64 {
	h := fnv.New64a()
	for _, v := range slices.Sorted(slices.Values(voters)) {
		h.Write([]byte(v))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// candidates orders the voters for one VIP, the best first: those that prefer names, in
// its order, then the others. The others begin at another place for each VIP, so that
// VIPs which prefer nobody spread over the nodes. name tells the names known so far.
func candidates(vip string, prefer []string, voters []election.ID, name func(election.ID) string) []election.ID {
	rest := slices.Sorted(slices.Values(voters))
	var out []election.ID
	for _, want := range prefer {
		for i, v := range rest {
			if want != "" && name(v) == want {
				out = append(out, v)
				rest = slices.Delete(rest, i, i+1)
				break
			}
		}
	}
	if len(rest) == 0 {
		return out
	}
	turn := int(fnv64(vip) % uint64(len(rest)))
	return append(append(out, rest[turn:]...), rest[:turn]...)
}

func fnv64(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
