package upstream

// maglev maps hashes to slots so that each slot gets its weight's share and few hashes
// move when one comes or goes (Eisenbud and others, NSDI 2016, 3.4). It depends on
// names and weights only, so every node builds the same.
type maglev []uint16

// sizes are primes; a table has at least a hundred places for each slot.
var sizes = [...]int{1021, 8191, 65537, 655373}

// newMaglev builds the table of names, of which each has a weight of at least 1.
func newMaglev(names []string, weights []int) maglev {
	total := 0
	for _, w := range weights {
		total += w
	}
	size := sizes[len(sizes)-1]
	for _, n := range sizes {
		if n >= 100*total {
			size = n
			break
		}
	}
	type walk struct{ at, skip int }
	walks := make([]walk, len(names))
	for i, name := range names {
		h := hashText(name)
		walks[i] = walk{int(h % uint64(size)), int(mix(h)%uint64(size-1)) + 1}
	}
	const free = ^uint16(0)
	table := make(maglev, size)
	for i := range table {
		table[i] = free
	}
	for filled := 0; ; {
		for i := range walks {
			for range weights[i] {
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

// hashText is the same on every node and in every release.
func hashText[T string | []byte](s T) uint64 { return mix(fold(fnvOffset, s)) }

// fold goes on with a hash that mix ends.
func fold[T string | []byte](h uint64, s T) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
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
