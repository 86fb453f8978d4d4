//go:build race

package beat

// take clears a place, and reports whether it was not 0. With the race detector an atomic
// operation is a call that needs what a thread between two calls of the runtime has not. One
// that is set meanwhile may be lost, which makes the thread look once more.
//
//go:norace
//go:nosplit
func take(place *uint32) bool {
	was := *place
	*place = 0
	return was != 0
}
