package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// chainOf is a certificate that lasts from noon on, PEM.
func chainOf(t *testing.T, name string, serial int64, life time.Duration) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{name}, NotBefore: noon, NotAfter: noon.Add(life), AuthorityKeyId: []byte{1, 2, 3}}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestRenewalIsAroundTwoThirdsUnlessTheCASays(t *testing.T) {
	m := New(Options{})
	const life = 90 * 24 * time.Hour
	seen := map[time.Time]bool{}
	for i := range int64(50) {
		c := certified{Name: "example.com", Chain: chainOf(t, "example.com", i+1, life)}
		at := m.renewAt(c)
		if at.Before(noon.Add(life*2/3-life/24)) || at.After(noon.Add(life*2/3+life/24)) {
			t.Errorf("renewed %v after its begin", at.Sub(noon))
		}
		if again := m.renewAt(c); !again.Equal(at) {
			t.Errorf("%v, then %v", at, again)
		}
		seen[at] = true
	}
	if len(seen) < 45 {
		t.Errorf("50 certificates are renewed at %d times", len(seen))
	}
	c := certified{Name: "example.com", Chain: chainOf(t, "example.com", 99, life), Renewal: renewal{Start: noon, End: noon.Add(time.Hour), Selected: noon.Add(time.Minute)}}
	if at := m.renewAt(c); !at.Equal(noon.Add(time.Minute)) {
		t.Errorf("renewed at %v, not when the CA wants it", at)
	}
	for _, of := range []struct {
		c    certified
		want time.Duration
	}{
		{certified{Renewal: renewal{Selected: noon.Add(life)}}, life * 11 / 12},                                       // a window behind the end
		{certified{Renewal: renewal{Selected: noon.Add(-time.Hour)}}, -time.Hour},                                     // at once
		{certified{Renewal: renewal{Selected: noon.Add(-time.Hour)}, Since: noon.Add(time.Minute)}, 61 * time.Minute}, // but not twice at once
		{certified{Since: noon.AddDate(5, 0, 0), Renewal: renewal{Selected: noon.Add(time.Hour)}}, time.Hour},         // a clock was ahead
	} {
		of.c.Name, of.c.Chain = "example.com", c.Chain
		if at := m.renewAt(of.c); !at.Equal(noon.Add(of.want)) {
			t.Errorf("renewed %v after its begin, want %v", at.Sub(noon), of.want)
		}
	}
	if replaces(c) == "" || replaces(certified{Chain: c.Chain}) != "" {
		t.Errorf("replaces %q with a window, %q without", replaces(c), replaces(certified{Chain: c.Chain}))
	}
}

func TestBackOffGrowsToABound(t *testing.T) {
	for _, c := range []struct {
		failures int
		answered bool
		want     time.Duration
	}{
		{1, false, 10 * time.Second}, {2, false, 20 * time.Second}, {4, false, 80 * time.Second}, {60, false, 10 * time.Minute},
		{1, true, time.Minute}, {2, true, 4 * time.Minute}, {3, true, 16 * time.Minute}, {60, true, 6 * time.Hour},
	} {
		if got := backOff(c.failures, c.answered, "example.com"); got > c.want || got < c.want*9/10 {
			t.Errorf("after %d failures, answered %v: %v, want %v or a tenth less", c.failures, c.answered, got, c.want)
		}
	}
	// Let's Encrypt bears five refusals of a name an hour.
	sum := time.Duration(0)
	for i := range 5 {
		sum += backOff(i+1, true, "example.com")
	}
	if sum < time.Hour {
		t.Errorf("the sixth order within %v", sum)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

func TestRetryAfterIsBelieved(t *testing.T) {
	for _, c := range []struct {
		status int
		after  string
		want   time.Duration
	}{
		{429, "90", 90 * time.Second},
		{503, noon.Add(2 * time.Hour).Format(http.TimeFormat), 2 * time.Hour},
		{429, "99999999", maxPatience},
		{500, "90", 90 * time.Second},
		{200, "90", 0}, {429, "", 0}, {429, "soon", 0},
	} {
		p := &patience{now: func() time.Time { return noon }, RoundTripper: transport(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: c.status, Header: http.Header{"Retry-After": {c.after}}, Body: http.NoBody}, nil
		})}
		if _, err := p.RoundTrip(&http.Request{}); err != nil {
			t.Fatal(err)
		}
		got := time.Duration(0)
		until, all := p.take()
		if !until.IsZero() {
			got = until.Sub(noon)
		}
		if again, _ := p.take(); got != c.want || !again.IsZero() {
			t.Errorf("HTTP %d with Retry-After %q: %v, want %v, once", c.status, c.after, got, c.want)
		}
		if ours := c.status >= 500; ours != !all.IsZero() {
			t.Errorf("HTTP %d: whatever is asked for until %v", c.status, all)
		}
	}
}
