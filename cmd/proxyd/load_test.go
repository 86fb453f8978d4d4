package main

import (
	"testing"
	"time"

	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/doctor"
)

func TestAnOverloadIsTwoEntriesOfTheHistory(t *testing.T) {
	var s shedding
	now := time.Unix(1e9, 0)
	var got []string
	look := func(seconds int, l proxy.Load) {
		for range seconds {
			if text := s.look(now, l); text != "" {
				got = append(got, text)
			}
			now = now.Add(time.Second)
		}
	}
	look(100, proxy.Load{Refused: 0})
	look(10, proxy.Load{Shedding: true, Refused: 50})
	look(30, proxy.Load{Refused: 50})
	look(1, proxy.Load{Refused: 70}) // it shed between two looks
	look(200, proxy.Load{Refused: 70})
	look(1, proxy.Load{Shedding: true, Refused: 70})
	look(200, proxy.Load{Refused: 75})
	begins := "this node does not keep up: it refuses what it cannot do in time (503, reason shed)"
	want := []string{begins, "this node keeps up again: it refused 70 exchanges in 40s", begins, "this node keeps up again: it refused 5 exchanges in 1s"}
	if len(got) != len(want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

func TestADoctorNamesAnOverload(t *testing.T) {
	for _, c := range []struct {
		load  proxy.Load
		level doctor.Level
		what  string
	}{
		{proxy.Load{}, doctor.OK, "it does all that it is asked for"},
		{proxy.Load{Refused: 7}, doctor.OK, "it does all that it is asked for; 7 exchanges were refused since its start"},
		{proxy.Load{Shedding: true, Waiting: 312, Refused: 4210}, doctor.Warn, "this node does not keep up and sheds: 312 refusals wait, 4210 exchanges were refused since its start"},
	} {
		if f := loaded(c.load); f.Check != "overload" || f.Level != c.level || f.What != c.what || (f.Level != doctor.OK) != (f.Cure != "") {
			t.Errorf("%+v: %+v", c.load, f)
		}
	}
}
