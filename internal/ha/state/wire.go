package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"proxyd/internal/ha/wire"
)

// Entries on the wire: one byte of version, then entries until the end. An entry, with
// big-endian numbers:
//
//	1 byte    flags: deleted
//	8 bytes   term
//	8 bytes   sequence
//	8 bytes   expiry, Unix seconds; 0 is never
//	1+n, 1+n, 1+n bytes   node, kind, key
//	4+n bytes value
const (
	flagDeleted = 1
	minEntry    = 1 + 3*8 + 3 + 4
)

// MaxEntries is how many entries one Decode takes.
const MaxEntries = 1 << 16

// ErrWire is wrapped by what Decode returns for bytes that are no entries.
var ErrWire = errors.New("state entries")

// Append appends the encoding of entries to b, in a version of the wire. Decode takes at most MaxEntries back.
func Append(b []byte, version uint8, entries []Entry) []byte {
	b = append(b, version)
	for _, e := range entries {
		b = appendEntry(b, e)
	}
	return b
}

func appendEntry(b []byte, e Entry) []byte {
	var flags byte
	if e.Deleted {
		flags = flagDeleted
	}
	var expires uint64
	if !e.Expires.IsZero() {
		expires = uint64(e.Expires.Unix())
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint64(b, e.Stamp.Term)
	b = binary.BigEndian.AppendUint64(b, e.Stamp.Seq)
	b = binary.BigEndian.AppendUint64(b, expires)
	for _, s := range []string{e.Stamp.Node, e.Kind, e.Key} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Value)))
	return append(b, e.Value...)
}

// Decode reads what Append wrote in one of the versions. It keeps no reference to b, and allocates no more
// than b is long, whatever b says. One bad entry spoils the whole.
func Decode(b []byte, versions wire.Range) ([]Entry, error) {
	if len(b) == 0 || !versions.Knows(b[0]) {
		return nil, fmt.Errorf("%w: not of version %v", ErrWire, versions)
	}
	r := reader{rest: b[1:]}
	var entries []Entry
	for len(r.rest) > 0 {
		if len(entries) == MaxEntries {
			return nil, fmt.Errorf("%w: more than %d", ErrWire, MaxEntries)
		}
		e, err := r.entry()
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d: %w", ErrWire, len(entries), err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

var errShort = errors.New("cut short")

type reader struct{ rest []byte }

func (r *reader) entry() (Entry, error) {
	if len(r.rest) < minEntry {
		return Entry{}, errShort
	}
	flags := r.rest[0]
	if flags&^flagDeleted != 0 {
		return Entry{}, fmt.Errorf("unknown flags %#x", flags)
	}
	e := Entry{Deleted: flags&flagDeleted != 0}
	e.Stamp.Term = binary.BigEndian.Uint64(r.rest[1:])
	e.Stamp.Seq = binary.BigEndian.Uint64(r.rest[9:])
	expires := binary.BigEndian.Uint64(r.rest[17:])
	r.rest = r.rest[25:]
	if expires >= 1<<40 {
		return Entry{}, fmt.Errorf("expiry %d out of range", expires)
	}
	if expires > 0 {
		e.Expires = time.Unix(int64(expires), 0).UTC()
	}
	for _, s := range []*string{&e.Stamp.Node, &e.Kind, &e.Key} {
		if len(r.rest) < 1 || len(r.rest)-1 < int(r.rest[0]) {
			return Entry{}, errShort
		}
		n := int(r.rest[0])
		*s = string(r.rest[1 : 1+n])
		r.rest = r.rest[1+n:]
	}
	if len(r.rest) < 4 {
		return Entry{}, errShort
	}
	n := uint64(binary.BigEndian.Uint32(r.rest))
	if r.rest = r.rest[4:]; n > MaxValue {
		return Entry{}, ErrTooLarge
	}
	if uint64(len(r.rest)) < n {
		return Entry{}, errShort
	}
	if n > 0 {
		e.Value = append([]byte(nil), r.rest[:n]...)
	}
	r.rest = r.rest[n:]
	return e, e.check()
}
