package upstream

import "net/netip"

// maglev maps hashes to slots so that each slot gets its weight's share and few hashes
// move when one comes or goes (Eisenbud and others, NSDI 2016, 3.4). It depends on
// names and weights only, so every node builds the same.
type maglev []uint16

// sizes are primes; a table has at least a hundred places for each slot.
var sizes = [...]int{1021, 8191, 65537, 655373}

func newMaglev(slots []slot) maglev {
	if len(slots) == 0 {
		return nil
	}
	total := 0
	for i := range slots {
		total += slots[i].weight
	}
	size := sizes[len(sizes)-1]
	for _, n := range sizes {
		if n >= 100*max(total, len(slots)) {
			size = n
			break
		}
	}
	type walk struct{ at, skip int }
	walks := make([]walk, len(slots))
	for i := range slots {
		h := hashText(slots[i].Name)
		walks[i] = walk{int(h % uint64(size)), int(mix(h)%uint64(size-1)) + 1}
	}
	const free = ^uint16(0)
	table := make(maglev, size)
	for i := range table {
		table[i] = free
	}
	for filled := 0; ; {
		for i := range slots {
			for range slots[i].weight {
				w := &walks[i]
				for table[w.at] != free {
					w.at = (w.at + w.skip) % size
				}
				table[w.at] = uint16(i)
				if filled++; filled == size {
					return table
				}
			}
		}
	}
}

// at returns the slot for a hash; try counts up when those before it would not do.
func (m maglev) at(hash uint64, try int) int {
	if try > 0 {
		hash = mix(hash + uint64(try))
	}
	return int(m[hash%uint64(len(m))])
}

// hashAddr is the same on every node and in every release.
func hashAddr(a netip.Addr) uint64 {
	b := a.Unmap().As16()
	h := uint64(fnvOffset)
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return mix(h)
}

func hashText(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return mix(h)
}

// FNV-1a of 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// mix spreads the bits of h (the finaliser of splitmix64).
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}
