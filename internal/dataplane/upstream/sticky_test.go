package upstream

import (
	"slices"
	"strings"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

func stickyPool(t testing.TB, key string, ttl time.Duration, servers ...string) *Pool {
	t.Helper()
	c := confOf("round_robin", servers...)
	c.Sticky = &config.Sticky{Cookie: "srv", TTL: ttl}
	p, err := New(c, nil, Place{Key: []byte(key)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// asked is a request with a cookie of that value.
func asked(value string) *dataplane.Request {
	q := &dataplane.Request{}
	q.Header.Add(dataplane.Cookie, []byte("Cookie"), []byte("a=b; srv="+value+"; c=d"))
	return q
}

// valueOf is the value of a Set-Cookie field that keeps a client at s.
func valueOf(p *Pool, s *Server, now time.Time) string {
	_, value, _ := strings.Cut(string(p.Cookie(nil, s, now, false)), "=")
	value, _, _ = strings.Cut(value, ";")
	return value
}

func TestCookieKeepsAClientOnEveryNode(t *testing.T) {
	here := stickyPool(t, "secret", time.Hour, "a", "b", "c", "d")
	// Another node, and a file in another order.
	conf := confOf("round_robin", "a", "b", "c", "d")
	conf.Sticky = here.Config.Sticky
	slices.Reverse(conf.Server)
	there, err := New(conf, nil, Place{Key: []byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		s := pick(here, at(0), client)
		value := valueOf(here, s, at(0))
		for _, p := range []*Pool{here, there} {
			kept, fresh := p.Kept(asked(value), at(60))
			if kept == nil || kept.Name != s.Name || !fresh {
				t.Fatalf("a client of %s is kept at %v, fresh %v", s.Name, kept, fresh)
			}
			if got, err := p.Pick(Ask{Now: at(60), Keep: kept}); err != nil || got != kept {
				t.Fatalf("Pick = %v, %v", got, err)
			}
		}
	}
}

func TestCookieTellsNothingAndSaysWhatItShould(t *testing.T) {
	p := stickyPool(t, "secret", time.Hour, "a", "b")
	got := string(p.Cookie(nil, p.servers[0], at(0), true))
	if want := "srv=" + valueOf(p, p.servers[0], at(0)) + "; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure"; got != want {
		t.Errorf("Set-Cookie: %s, want %s", got, want)
	}
	if strings.Contains(got, "10.0.0.1") || strings.Contains(got, "app") {
		t.Errorf("the cookie names what is inside: %s", got)
	}
	plain := stickyPool(t, "secret", 0, "a")
	if got := string(plain.Cookie(nil, plain.servers[0], at(0), false)); strings.Contains(got, "Max-Age") || strings.Contains(got, "Secure") {
		t.Errorf("of a session, in cleartext: %s", got)
	}
}

func TestForgedAndStaleCookiesAreNone(t *testing.T) {
	p := stickyPool(t, "secret", time.Hour, "a", "b")
	good := valueOf(p, p.servers[0], at(0))
	for i := range len(good) {
		for _, c := range "A0_" {
			forged := good[:i] + string(c) + good[i+1:]
			if s, _ := p.Kept(asked(forged), at(1)); s != nil && forged != good {
				t.Fatalf("%s, of %s, keeps at %s", forged, good, s.Name)
			}
		}
	}
	for why, value := range map[string]string{
		"nothing":     "",
		"a name":      "10.0.0.1:97",
		"too long":    good + "A",
		"another key": valueOf(stickyPool(t, "other", time.Hour, "a", "b"), p.servers[0], at(0)),
	} {
		if s, _ := p.Kept(asked(value), at(1)); s != nil {
			t.Errorf("%s keeps at %s", why, s.Name)
		}
	}
	if _, fresh := p.Kept(asked(good), at(1799)); !fresh {
		t.Error("given again before half of its time")
	}
	if s, fresh := p.Kept(asked(good), at(1801)); s == nil || fresh {
		t.Error("not given again after half of its time")
	}
	if s, _ := p.Kept(asked(good), at(3600)); s != nil {
		t.Error("keeps after its time")
	}
	gone := stickyPool(t, "secret", time.Hour, "x", "b") // 10.0.0.1 on another port
	if s, _ := gone.Kept(asked(good), at(1)); s != nil {
		t.Errorf("of a server that is no more: keeps at %s", s.Name)
	}
}

func TestADrainedServerKeepsItsClientsAndADownOneDoesNot(t *testing.T) {
	p := stickyPool(t, "secret", time.Hour, "a", "b")
	a := p.servers[0]
	value := valueOf(p, a, at(0))
	a.Steer(Drain)
	if got := picks(p, at(1), 4); got != "bbbb" {
		t.Errorf("new clients of a drained server: %s", got)
	}
	kept, _ := p.Kept(asked(value), at(1))
	if s, err := p.Pick(Ask{Now: at(1), Keep: kept}); err != nil || s != a {
		t.Errorf("its own client goes to %v, %v", s, err)
	}
	a.Steer(Disable)
	if kept, _ := p.Kept(asked(value), at(1)); kept != nil {
		t.Error("kept at a server that is in maintenance")
	}
	a.Steer(Serve)
	down(p, "a")
	kept, _ = p.Kept(asked(value), at(1))
	if s, err := p.Pick(Ask{Now: at(1), Keep: kept}); err != nil || short(s) != "b" {
		t.Errorf("the client of a server that is down goes to %v, %v", s, err)
	}
}

func FuzzStickyCookie(f *testing.F) {
	p := stickyPool(f, "secret", time.Hour, "a", "b")
	f.Add([]byte("a=b; srv=" + valueOf(p, p.servers[0], at(0))))
	f.Add([]byte(`srv="x"; srv`))
	f.Fuzz(func(t *testing.T, field []byte) {
		q := &dataplane.Request{}
		q.Header.Add(dataplane.Cookie, []byte("Cookie"), field)
		if s, _ := p.Kept(q, at(0)); s != nil && !strings.Contains(string(field), valueOf(p, s, at(0))[:8]) {
			t.Errorf("%q keeps at %s", field, s.Name)
		}
	})
}
