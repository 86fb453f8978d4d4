package track

// A judge makes one opinion of many looks. It is good until it is told otherwise: what
// nobody has looked at yet must not move an address.
type judge struct {
	known  bool // there was a look
	failed bool
	row    int // looks in a row that say the opposite
}

// add takes in one look and reports whether it changed the opinion. The first decides at
// once; later ones need rise or fall of them in a row.
func (j *judge) add(good bool, rise, fall int) (changed bool) {
	if !j.known {
		j.known, j.failed = true, !good
		return j.failed
	}
	if good != j.failed {
		j.row = 0
		return false
	}
	j.row++
	if j.failed && j.row < rise || !j.failed && j.row < fall {
		return false
	}
	j.failed, j.row = !j.failed, 0
	return true
}
