package dataplane

import "testing"

func TestRoomRefusesMoreThanItsLimit(t *testing.T) { // E3
	var r Room
	if !r.Take(1 << 40) {
		t.Error("a room without a limit refused")
	}
	r.Give(1 << 40)
	r.SetLimit(100)
	if !r.Take(60) || r.Take(41) || !r.Take(40) {
		t.Error("60 and 40 fit into 100, and 41 does not")
	}
	r.SetLimit(10)
	if r.Take(1) || r.Taken() != 100 {
		t.Errorf("%d bytes are held, want 100 and no more", r.Taken())
	}
	r.Give(95)
	if !r.Take(5) {
		t.Error("5 more fit into 10")
	}
}
