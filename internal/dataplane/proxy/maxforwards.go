package proxy

import (
	"bytes"
	"strconv"

	"proxyd/internal/dataplane"
)

var nameMaxForwards = []byte("Max-Forwards")

// spendForward takes one off the Max-Forwards of an OPTIONS request, and reports whether it may
// go on: not when none is left, since then this is who is asked (RFC 9110, 7.6.2). What is no
// number is left as it is, and of other methods it says nothing.
func spendForward(x *dataplane.Exchange) bool {
	q := &x.Request
	if q.Method != dataplane.OPTIONS {
		return true
	}
	for i := range q.Header {
		f := &q.Header[i]
		if f.ID != dataplane.Other || !bytes.EqualFold(f.Name, nameMaxForwards) {
			continue
		}
		switch left, err := strconv.ParseUint(string(f.Value), 10, 32); {
		case err != nil: // a larger number bounds nothing
		case left == 0:
			return false
		default:
			from := len(x.Text)
			x.Text = strconv.AppendUint(x.Text, left-1, 10)
			f.Value = x.Text[from:len(x.Text):len(x.Text)]
		}
	}
	return true
}
