package acme

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// Whatever a CA does instead of what it is for, the certificate that there is is served, the CA
// is asked again more and more seldom, and not before it says; and when it is back, the
// certificate is renewed.
func TestAnOutageOfTheCAStopsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		does func(q *http.Request) (*http.Response, error)
		most int // tries in 90 minutes
		says string
	}{
		"nobody is there":       {func(*http.Request) (*http.Response, error) { return nil, errRefused }, 15, "connection refused"},
		"it says nothing":       {func(q *http.Request) (*http.Response, error) { <-q.Context().Done(); return nil, q.Context().Err() }, 15, "deadline exceeded"},
		"an error without word": {func(*http.Request) (*http.Response, error) { return says(500, "text/html", "<h1>oops</h1>"), nil }, 15, "HTTP 500"},
		"a fault of its own":    {func(*http.Request) (*http.Response, error) { return problem(500, "serverInternal"), nil }, 15, "serverInternal"},
		"a fault until then": {func(*http.Request) (*http.Response, error) {
			return problem(500, "serverInternal", "Retry-After", "1800"), nil
		}, 4, "serverInternal"},
		"it is closed": {func(*http.Request) (*http.Response, error) { return says(503, "", "", "Retry-After", "1800"), nil }, 4, "HTTP 503"},
		"too many":     {func(*http.Request) (*http.Response, error) { return says(429, "", "", "Retry-After", "1800"), nil }, 4, "HTTP 429"},
		"too many, it says": {func(*http.Request) (*http.Response, error) {
			return problem(429, "rateLimited", "Retry-After", "1800"), nil
		}, 4, "rateLimited"},
		"an answer of no use": {func(*http.Request) (*http.Response, error) {
			return says(200, "text/html", "welcome to the hotel"), nil
		}, 15, "does not say where"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(t, 6*time.Hour)
				m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
				defer m.end()
				time.Sleep(10 * time.Second)
				first := m.serials()
				v := m.Views()[0]
				if len(first) != 1 || v.Failures != 0 {
					t.Fatalf("before: serials %v, %+v; log %s", first, v, m.log)
				}
				time.Sleep(time.Until(v.Renew) - time.Minute)
				_, was := o.asked()
				o.asks(c.does)
				time.Sleep(90 * time.Minute)
				v = m.Views()[0]
				_, is := o.asked()
				if got := m.serials(); !slices.Equal(got, first) {
					t.Errorf("meanwhile served: %v, want %v", got, first)
				}
				if n := m.failures(); n == 0 || n > c.most || is-was > 9*n {
					t.Errorf("%d tries with %d requests in 90 minutes, want at most %d", n, is-was, c.most)
				}
				if v.Failures == 0 || !strings.Contains(v.Error, c.says) || v.NotAfter.Before(time.Now()) || v.Next.IsZero() || time.Until(v.Next) > 31*time.Minute {
					t.Errorf("what an operator sees: %+v, now is %v", v, time.Now())
				}
				o.asks(nil)
				time.Sleep(20*time.Minute + max(0, time.Until(v.Next)))
				made, _ := o.asked()
				if got := m.serials(); len(got) != 1 || slices.Equal(got, first) || len(made) != 2 {
					t.Errorf("afterwards served: %v of %d orders; log %s", got, len(made), m.log)
				}
				if v := m.Views()[0]; v.Failures != 0 || v.Error != "" {
					t.Errorf("afterwards an operator sees: %+v", v)
				}
			})
		})
	}
}

// What the CA cannot do for one name it is not asked for another, before the time that it says.
func TestAClosedCAIsLeftAloneWithAllNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		o.asks(func(q *http.Request) (*http.Response, error) {
			if strings.HasSuffix(q.URL.Path, "/new") {
				return says(503, "", "", "Retry-After", "3600"), nil
			}
			return nil, nil
		})
		names := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, names...)
		defer m.end()
		time.Sleep(50 * time.Minute)
		n := m.failures()
		if n == 0 || n > maxOrders {
			t.Errorf("%d orders were tried, want no more than are tried at once", n)
		}
		if err := m.Renew(t.Context(), "f.example"); err != nil { // an operator knows better
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if m.failures() == n {
			t.Error("an operator is not heard")
		}
		o.asks(nil)
		time.Sleep(2 * time.Hour)
		if got := m.serials(); len(got) != len(names) {
			t.Errorf("afterwards %d certificates; log %s", len(got), m.log)
		}
	})
}

// A CA that never comes to an end with an order is left alone for a while, as one that fails.
func TestAnOrderThatIsNeverDone(t *testing.T) {
	for _, later := range []string{"", "86400"} { // the second has us wait for a day
		t.Run("Retry-After "+later, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOffice(t, 90*24*time.Hour)
				o.stuck, o.later = true, later
				m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
				defer m.end()
				time.Sleep(time.Hour)
				v := m.Views()[0]
				if v.Failures < 3 || !v.Ordering || !strings.Contains(v.Error, "processing") {
					t.Errorf("after an hour: %+v", v)
				}
				o.mu.Lock()
				o.stuck = false
				o.mu.Unlock()
				time.Sleep(15 * time.Minute)
				if made, _ := o.asked(); len(m.serials()) != 1 || len(made) != 1 {
					t.Errorf("when the CA is done: serials %v of %d orders", m.serials(), len(made))
				}
			})
		})
	}
}

// A CA that has lost what it had is told of the account anew.
func TestAnAccountThatTheCAHasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
		defer m.end()
		time.Sleep(10 * time.Second)
		o.mu.Lock()
		clear(o.accounts)
		clear(o.orders)
		o.mu.Unlock()
		if err := m.Renew(t.Context(), "example.com"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.accounts) != 1 || len(o.made) != 2 {
			t.Errorf("%d accounts, %d orders; log %s", len(o.accounts), len(o.made), m.log)
		}
	})
}

// An operator who asks twice gets one certificate, and one who asks afterwards another.
func TestRenewIsOneOrderAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
		defer m.end()
		renew := func() {
			t.Helper()
			if err := m.Renew(t.Context(), "example.com"); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(10 * time.Second)
		o.asks(func(q *http.Request) (*http.Response, error) {
			renew() // while every single step is on its way
			return nil, nil
		})
		renew()
		renew()
		time.Sleep(time.Minute)
		if made, _ := o.asked(); len(made) != 2 {
			t.Errorf("%d orders after asking twice, want 2", len(made))
		}
		o.asks(nil)
		renew()
		time.Sleep(time.Minute)
		if made, _ := o.asked(); len(made) != 3 {
			t.Errorf("%d orders after asking again, want 3", len(made))
		}
		if err := m.Renew(t.Context(), "example.org"); err == nil {
			t.Error("a name is renewed that is none of ours")
		}
	})
}

// The CA is asked for its window as often as it says, the certificate is renewed within it, and
// the CA told which one it replaces.
func TestRenewalsAreInTheWindowOfTheCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		begin := time.Now()
		o.window, o.again = [2]time.Time{begin.Add(24 * time.Hour), begin.Add(48 * time.Hour)}, "1800"
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
		defer m.end()
		time.Sleep(10 * time.Second)
		// The CA changes its mind.
		o.mu.Lock()
		o.window = [2]time.Time{begin.Add(4 * time.Hour), begin.Add(5 * time.Hour)}
		o.mu.Unlock()
		time.Sleep(3*time.Hour + 50*time.Minute)
		o.mu.Lock()
		asked := o.windows
		o.mu.Unlock()
		if asked < 7 || asked > 10 {
			t.Errorf("in four hours a window was asked for %d times, which is to be done every half", asked)
		}
		if made, _ := o.asked(); len(made) != 1 {
			t.Errorf("%d orders before the window", len(made))
		}
		o.mu.Lock()
		o.window[0], o.window[1] = o.window[0].Add(720*time.Hour), o.window[1].Add(720*time.Hour) // of the next one
		o.mu.Unlock()
		time.Sleep(10 * time.Minute)
		o.mu.Lock()
		o.window = [2]time.Time{begin.Add(4 * time.Hour), begin.Add(5 * time.Hour)}
		o.mu.Unlock()
		time.Sleep(61 * time.Minute)
		made, _ := o.asked()
		// The next one finds the same window begun, and stays for an hour whatever the CA says.
		if len(made) == 3 && made[2].at.Sub(made[1].at) >= leastKept {
			made = made[:2]
		}
		if len(made) != 2 || made[1].at.Before(begin.Add(4*time.Hour)) || made[1].at.After(begin.Add(5*time.Hour+time.Minute)) {
			t.Errorf("orders %+v, the second is to be between %v and an hour later", made, begin.Add(4*time.Hour))
		} else if made[0].replaces != "" || !strings.Contains(made[1].replaces, ".") {
			t.Errorf("the first replaces %q, the second %q", made[0].replaces, made[1].replaces)
		}
	})
}

// A CA that does not say when to renew keeps no certificate back, neither the first nor the next.
func TestWindowsThatNobodyGetsHoldUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		o.window = [2]time.Time{time.Now().Add(24 * time.Hour), time.Now().Add(48 * time.Hour)}
		o.asks(func(q *http.Request) (*http.Response, error) {
			if strings.Contains(q.URL.Path, "/ari/") {
				<-q.Context().Done()
				return nil, q.Context().Err()
			}
			return nil, nil
		})
		names := []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example"}
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, names...)
		defer m.end()
		time.Sleep(20 * time.Second)
		if got := m.serials(); len(got) != len(names) {
			t.Errorf("%d certificates after 20 s, want %d; log %s", len(got), len(names), m.log)
		}
		time.Sleep(70 * time.Second) // they are asked for now, and nobody answers
		if err := m.Renew(t.Context(), "f.example"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if made, _ := o.asked(); len(made) != len(names)+1 {
			t.Errorf("%d orders, want %d", len(made), len(names)+1)
		}
	})
}

// What the CA says of a certificate that has been replaced meanwhile changes nothing.
func TestAWindowBringsNoCertificateBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		begin := time.Now()
		o.window = [2]time.Time{begin.Add(24 * time.Hour), begin.Add(48 * time.Hour)}
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
		defer m.end()
		time.Sleep(10 * time.Second)
		first := m.serials()
		slow := true
		o.asks(func(q *http.Request) (*http.Response, error) {
			if !strings.Contains(q.URL.Path, "/ari/") || !slow {
				return nil, nil
			}
			slow = false
			if err := m.Renew(q.Context(), "example.com"); err != nil {
				t.Error(err)
			}
			time.Sleep(30 * time.Second)
			o.mu.Lock()
			o.window[1] = o.window[1].Add(time.Hour)
			o.mu.Unlock()
			return nil, nil
		})
		time.Sleep(time.Hour)
		made, _ := o.asked()
		if got := m.serials(); slow || slices.Equal(got, first) || len(made) != 2 {
			t.Errorf("served is %v, which was %v, of %d orders", got, first, len(made))
		}
	})
}

func TestAWindowIsOfItsCertificate(t *testing.T) {
	shelf := &memory{all: map[string][]byte{}}
	v := NewVault(shelf, func() []string { return []string{"a secret"} })
	m := New(Options{Vault: v, Log: slog.New(slog.DiscardHandler), Publish: func(Served) {}})
	old := certified{Name: "example.com", Chain: chainOf(t, "example.com", 1, time.Hour)}
	now := certified{Name: "example.com", Chain: chainOf(t, "example.com", 2, time.Hour)}
	if err := m.put(t.Context(), certPrefix+mark("example.com"), now); err != nil {
		t.Fatal(err)
	}
	var info acme.RenewalInfo
	info.SuggestedWindow.Start, info.SuggestedWindow.End = noon, noon.Add(time.Hour)
	for _, c := range []struct {
		of   certified
		want bool
	}{{old, false}, {now, true}} {
		m.useWindow(t.Context(), c.of, info)
		if got := readBook(v).certs["example.com"].Renewal.Start; got.Equal(noon) != c.want {
			t.Errorf("the window begins at %v", got)
		}
	}
}

// A full shelf takes nothing.
type fullShelf struct {
	memory
	puts int
}

func (s *fullShelf) Put(context.Context, string, []byte, time.Time) error {
	if s.puts++; s.puts > 200 {
		time.Sleep(time.Hour) // else a loop has no end
	}
	return errors.New("the shared state is full")
}

// What cannot be kept is not done, and not tried without a rest either; operators see why.
func TestWhatCannotBeKeptIsNotTriedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		shelf := &fullShelf{memory: memory{all: map[string][]byte{}}}
		m := openTill(o, shelf, nil, "example.com")
		defer m.end()
		time.Sleep(time.Hour)
		v := m.Views()[0]
		if made, _ := o.asked(); len(made) != 0 || shelf.puts > 30 {
			t.Errorf("%d orders, %d attempts to keep something", len(made), shelf.puts)
		}
		if v.Failures < 5 || !strings.Contains(v.Error, "is full") || v.Next.IsZero() {
			t.Errorf("an operator sees %+v", v)
		}
	})
}

// A node whose clock is years ahead finds every certificate expired; it does not order one after
// the other.
func TestAWrongClockOrdersNotWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		o.asks(func(*http.Request) (*http.Response, error) {
			if made, _ := o.asked(); len(made) > 100 {
				time.Sleep(time.Hour) // else a loop has no end
			}
			return nil, nil
		})
		m := openTill(o, &memory{all: map[string][]byte{}}, func() time.Time { return time.Now().AddDate(2, 0, 0) }, "example.com")
		defer m.end()
		time.Sleep(6*time.Hour + time.Minute)
		if made, _ := o.asked(); len(made) < 1 || len(made) > 7 {
			t.Errorf("%d orders in six hours", len(made))
		}
	})
}

// A record of which clients cannot be served is ordered anew, and told of once.
func TestARecordOfNoUseIsOrderedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		shelf := &memory{all: map[string][]byte{}}
		key, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		other, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(certified{Name: "example.com", Directory: o.directory, Key: other, Chain: selfSigned(t, key, "example.com")})
		if err := NewVault(shelf, func() []string { return []string{"a secret"} }).Put(t.Context(), certPrefix+mark("example.com"), text, time.Time{}); err != nil {
			t.Fatal(err)
		}
		o.asks(func(*http.Request) (*http.Response, error) { return nil, errRefused })
		m := openTill(o, shelf, nil, "example.com")
		defer m.end()
		time.Sleep(5 * time.Minute)
		if n := strings.Count(m.log.String(), "is of no use"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
		if v := m.Views()[0]; !v.NotAfter.IsZero() || v.Failures == 0 {
			t.Errorf("an operator sees %+v", v)
		}
		o.asks(nil)
		time.Sleep(10 * time.Minute)
		if got := m.serials(); len(got) != 1 || got[0] == "1" {
			t.Errorf("served: %v", got)
		}
	})
}

// What is sealed with a secret that is gone is told of once and ordered anew.
func TestAnotherSecretOrdersAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		shelf := &memory{all: map[string][]byte{}}
		sealed := NewVault(shelf, func() []string { return []string{"another secret"} })
		for _, key := range []string{accountPrefix + mark(o.directory), certPrefix + mark("example.com")} {
			if err := sealed.Put(t.Context(), key, []byte("{}"), time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
		m := openTill(o, shelf, nil, "example.com")
		defer m.end()
		time.Sleep(time.Minute)
		made, _ := o.asked()
		if n := strings.Count(m.log.String(), "sealed with a secret that this node has not"); n != 2 || len(m.serials()) != 1 || len(made) != 1 {
			t.Errorf("said %d times of two records; served %v of %d orders", n, m.serials(), len(made))
		}
	})
}

// The tries that go into the history are few, however long an outage is.
func TestEventsCountFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffice(t, 90*24*time.Hour)
		o.asks(func(*http.Request) (*http.Response, error) { return nil, errRefused })
		m := openTill(o, &memory{all: map[string][]byte{}}, nil, "example.com")
		defer m.end()
		time.Sleep(time.Hour)
		m.web.mu.Lock()
		defer m.web.mu.Unlock()
		for i, e := range m.web.events {
			if e.Failures != i+1 {
				t.Errorf("event %d: %s", i, fmt.Sprint(e))
			}
		}
	})
}
