package upstream

// inOrder chooses the first server of the file that has a place: all the others are for
// when it has none. One that starts slowly leaves a part to the next.
type inOrder struct {
	slots []*slot
	draw  func() uint64
}

func (r *inOrder) arrange() {}

func (r *inOrder) choose(a Ask) *slot {
	for _, s := range r.slots {
		if share := s.share.Load(); share > 0 && share < unit && int32(r.draw()%unit) >= share {
			continue
		}
		if s.take(a) {
			return s
		}
	}
	for _, s := range r.slots { // all start slowly
		if s.take(a) {
			return s
		}
	}
	return nil
}
