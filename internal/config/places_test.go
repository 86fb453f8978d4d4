package config

import (
	"fmt"
	"maps"
	"testing"
)

func TestPlacesAreAMapOfPaths(t *testing.T) {
	ps, want := newPlaces(), map[path]place{}
	put := func(p path, line int) {
		at := place{key: position{line: int32(line)}}
		ps.put(p, at)
		want[p] = at
	}
	put(to("pool", "a", "servers").at(1), 2)
	put(to("route"), 3)
	for i := range 3 {
		put(to("route").at(i), 10+i)
		for k := range maxSpotted + 5 { // more than an element has room for
			put(to("route").at(i).key(fmt.Sprint("k", k)), 100*i+k)
		}
		put(to("route").at(i).key("host").at(2), 20+i)
		put(to("route").at(i).key("timeout").key("total"), 30+i)
	}
	put(to("track").at(7), 4) // the first that is seen need not be the first in the file
	put(to("route").at(1).key("k3"), 5)
	check := func(story string) {
		t.Helper()
		if got := maps.Collect(ps.all()); !maps.Equal(got, want) {
			t.Errorf("%s: there are %v, want %v", story, got, want)
		}
		for p, at := range want {
			if got, ok := ps.get(p); !ok || got != at {
				t.Errorf("%s: get(%q) = %v, %v, want %v", story, p, got, ok, at)
			}
		}
		for _, p := range []path{to("pool"), to("route").at(9), to("route").at(1).key("none"), to("track").at(3).key("x"), to("route").at(0).key("host").at(3)} {
			if at, ok := ps.get(p); ok {
				t.Errorf("%s: get(%q) = %v, want none", story, p, at)
			}
		}
	}
	check("put")
	ps = ps.without(to("route"), map[int]bool{0: true})
	moved := map[path]place{}
	for p, at := range want {
		if q := p.moved(to("route"), func(i int) int { return i - 1 }); q != "" {
			moved[q] = at
		}
	}
	want = moved
	check("without the first route")
	ps.forget(to("track"))
	maps.DeleteFunc(want, func(p path, _ place) bool { return p.parts()[0] == "track" })
	check("without tracks")
}
