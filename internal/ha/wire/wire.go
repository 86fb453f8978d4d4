// Package wire is the version of what nodes send each other, and how two of them agree on
// one.
//
// One number counts for all of it: datagrams, lifelines, frames, messages of the election,
// entries of the shared state, questions. Each of them begins with it, in every version. A
// node speaks to another the newest version that both know, and the oldest that it knows
// while it has not heard which those are. So a release and the one before it work together
// whichever comes first, and either of two nodes may go back.
//
// Within a version a later release may add records, fields behind the known ones, flags and
// kinds of entries: those who do not know them skip them. A new version is for what cannot
// be skipped; the one before it must then still be read and written.
package wire

import "fmt"

// The versions that this program speaks. Version 1 is that of the first release.
const (
	Oldest = 1
	Newest = 1
)

// A Range is the versions that a program speaks, from the oldest to the newest. The zero
// Range stands for what this program speaks.
type Range struct{ Oldest, Newest uint8 }

// Or returns r, and the versions that this program speaks for the zero Range.
func (r Range) Or() Range {
	if r == (Range{}) {
		return Range{Oldest, Newest}
	}
	return r
}

// Knows reports whether a message of a version can be read.
func (r Range) Knows(version uint8) bool { return r.Oldest <= version && version <= r.Newest }

// To returns the version to speak to a program whose newest is that; 0 is one that is not
// known yet.
func (r Range) To(newest uint8) uint8 { return max(r.Oldest, min(r.Newest, newest)) }

// String says which versions they are: "1", "1 to 2".
func (r Range) String() string {
	if r.Oldest == r.Newest {
		return fmt.Sprint(r.Oldest)
	}
	return fmt.Sprintf("%d to %d", r.Oldest, r.Newest)
}
