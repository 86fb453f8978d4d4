package engine

import (
	"sync/atomic"
	"time"
)

// A date is the value of the Date field, written once a second.
type date struct{ last atomic.Pointer[dateText] }

type dateText struct {
	second int64
	text   [len(dateForm)]byte
}

// dateForm is IMF-fixdate (RFC 9110, 5.6.7).
const dateForm = "Mon, 02 Jan 2006 15:04:05 GMT"

// at returns the text for t.
func (d *date) at(t time.Time) []byte {
	second := t.Unix()
	have := d.last.Load()
	if have == nil || have.second != second {
		have = &dateText{second: second}
		t.UTC().AppendFormat(have.text[:0], dateForm)
		d.last.Store(have)
	}
	return have.text[:]
}
