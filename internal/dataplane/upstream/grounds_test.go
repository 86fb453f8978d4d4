package upstream

import (
	"fmt"
	"testing"
	"time"

	"proxyd/internal/dataplane"
)

func TestGroundsNameWhatIsHashed(t *testing.T) {
	with, without := &dataplane.Request{Path: []byte("/a")}, &dataplane.Request{Path: []byte("/a")}
	with.Header.Add(dataplane.Other, []byte("X-Key"), []byte("1"))
	with.Header.Add(dataplane.Cookie, []byte("Cookie"), []byte("k=1"))
	for _, c := range []struct {
		key  string
		q    *dataplane.Request
		want string
	}{
		{"ip", with, "the client 198.51.100.9"},
		{"uri", with, "path and query"},
		{"header:X-Key", with, "header X-Key"},
		{"header:X-Key", without, "the client 198.51.100.9, since there is no header X-Key"},
		{"cookie:k", with, "cookie k"},
		{"cookie:k", without, "the client 198.51.100.9, since there is no cookie k"},
	} {
		conf := confOf("hash", "a", "b")
		conf.HashKey = c.key
		p, err := New(conf, nil, Place{})
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("%.4f, of %s", float64(p.Hash(c.q, client)>>11)/(1<<53), c.want)
		if hash, cookie := p.Grounds(c.q, client, at(0)); hash != want || cookie != "" {
			t.Errorf("%s: %q, %q, want %q", c.key, hash, cookie, want)
		}
	}
	if hash, cookie := poolOf(t, "round_robin", "a").Grounds(with, client, at(0)); hash != "" || cookie != "" {
		t.Errorf("of a pool with neither: %q, %q", hash, cookie)
	}
}

func TestGroundsSayWhatACookieSays(t *testing.T) {
	p := stickyPool(t, "secret", time.Hour, "a", "b")
	one, two := p.servers[0], p.servers[1]
	good, out := valueOf(p, one, at(0)), valueOf(p, two, at(0))
	two.Steer(Disable)
	const useless = "srv counts for nothing: it is too old, not ours, or of a server that is gone"
	for _, c := range []struct {
		story  string
		q      *dataplane.Request
		second int
		want   string
	}{
		{"none", &dataplane.Request{}, 1, "srv is absent"},
		{"good", asked(good), 1, "srv names " + one.Name},
		{"of a server that is out", asked(out), 1, "srv names " + two.Name + ", which is out"},
		{"too old", asked(good), 3600, useless},
		{"not ours", asked("x"), 1, useless},
	} {
		if _, got := p.Grounds(c.q, client, at(c.second)); got != c.want {
			t.Errorf("%s: %q, want %q", c.story, got, c.want)
		}
	}
}
