//go:build !race

package beat

import "sync/atomic"

// take clears a place, and reports whether it was not 0.
//
//go:nosplit
func take(place *uint32) bool { return atomic.SwapUint32(place, 0) != 0 }
