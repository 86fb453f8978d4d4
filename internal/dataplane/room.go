package dataplane

import "sync/atomic"

// A Room counts bytes of messages that are held in memory, and refuses more than its
// limit. The zero Room has no limit. Its methods may be called at any time.
type Room struct{ limit, taken atomic.Int64 }

// SetLimit changes how many bytes may be held; 0 is no limit. What is held stays.
func (r *Room) SetLimit(bytes int64) { r.limit.Store(bytes) }

// Limit returns how many bytes may be held; 0 is no limit.
func (r *Room) Limit() int64 { return r.limit.Load() }

// Take takes n bytes of the room and reports whether there were as many. What is taken
// is given back.
func (r *Room) Take(n int64) bool {
	limit := r.limit.Load()
	if r.taken.Add(n) > limit && limit > 0 {
		r.taken.Add(-n)
		return false
	}
	return true
}

// Give gives n bytes back.
func (r *Room) Give(n int64) { r.taken.Add(-n) }

// Taken returns how many bytes are held.
func (r *Room) Taken() int64 { return r.taken.Load() }
