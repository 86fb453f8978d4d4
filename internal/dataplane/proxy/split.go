package proxy

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"proxyd/internal/config"
)

// A split parts the clients of a route among pools by their shares. Which pool a client
// gets depends on its address, the route's name, and the pools' names and shares alone, so
// it is the same on every node. When a share grows, clients come to that pool and none
// moves between others (weighted rendezvous hashing).
type split []splitPool

type splitPool struct {
	route *compiledRoute // to that pool
	hash  uint64         // of the route and the pool
	share float64
}

// splitPools lists the pools of a split, those without a share left out, in the order of
// their names.
func splitPools(c *config.Route) []string {
	var names []string
	for name, share := range c.Split {
		if share > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, strings.Compare)
	return names
}

func (s *split) add(r *compiledRoute, share int) {
	*s = append(*s, splitPool{route: r, hash: hashText(r.Name + "\x00" + r.Pool), share: float64(share)})
}

// choose returns the route to the client's pool. Each pool draws an exponentially
// distributed time with its share as the rate; the earliest wins.
func (s split) choose(client netip.Addr) *compiledRoute {
	key := whose(client).As16()
	hash := uint64(fnvOffset)
	for _, c := range key {
		hash = (hash ^ uint64(c)) * fnvPrime
	}
	best, earliest := 0, math.Inf(1)
	for i := range s {
		draw := (float64(mix(hash^s[i].hash)>>11) + 0.5) / (1 << 53)
		if time := -math.Log(draw) / s[i].share; time < earliest {
			best, earliest = i, time
		}
	}
	return s[best].route
}

// FNV-1a of 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hashText(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return mix(h)
}

// mix spreads the bits of h (the finaliser of splitmix64).
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
