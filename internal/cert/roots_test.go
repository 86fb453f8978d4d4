package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newRoot returns the texts of an authority until a time and of a list of what it revoked,
// of which the next is due at due.
func newRoot(t *testing.T, name string, until, due time.Time) (root, list []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.AddDate(-2, 0, 0), NotAfter: until, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	revoked := []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: due}}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: due.AddDate(0, 0, -1), NextUpdate: due, RevokedCertificateEntries: revoked}, c, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl})
}

func TestAuthoritiesAndWhatTheyRevoked(t *testing.T) {
	now := time.Now()
	root, list := newRoot(t, "One", now.AddDate(1, 0, 0), now.AddDate(0, 0, 1))
	late, old := newRoot(t, "Two", now.AddDate(0, 0, -1), now.AddDate(0, 0, -1))
	_, foreign := newRoot(t, "One", now.AddDate(1, 0, 0), now.AddDate(0, 0, 1))
	name := filepath.Join(t.TempDir(), "ca.pem")
	load := func(parts ...[]byte) (*Roots, error) {
		t.Helper()
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		if err := os.WriteFile(name, all, 0o644); err != nil {
			t.Fatal(err)
		}
		return ThisDisk().LoadRoots(name)
	}
	r, err := load(root, list)
	if err != nil || len(r.Certs) != 1 || len(r.Doubts(now)) > 0 {
		t.Fatalf("LoadRoots = %+v, %v", r, err)
	}
	of := func(serial int64) *x509.Certificate {
		return &x509.Certificate{RawIssuer: r.Certs[0].RawSubject, SerialNumber: big.NewInt(serial)}
	}
	chain := func(serials ...int64) (all []*x509.Certificate) {
		for _, n := range serials {
			all = append(all, of(n))
		}
		return all
	}
	for _, c := range []struct {
		chains [][]*x509.Certificate
		want   int64 // 0: none is
	}{
		{[][]*x509.Certificate{chain(7, 1)}, 7},
		{[][]*x509.Certificate{chain(8, 1)}, 0},
		{[][]*x509.Certificate{chain(8, 7)}, 7}, // an authority that another has signed
		{[][]*x509.Certificate{{of(8), {RawIssuer: r.Certs[0].RawSubject, RawSubject: r.Certs[0].RawSubject, SerialNumber: big.NewInt(7)}}}, 0}, // one that has signed itself
		{[][]*x509.Certificate{chain(8, 7, 1)}, 7}, // one in between
		{[][]*x509.Certificate{chain(8, 7, 1), chain(8, 9, 1)}, 0},
		{[][]*x509.Certificate{chain(7, 9, 1), chain(7, 10, 1)}, 7},
		{nil, 0},
	} {
		if got := r.Revoked(c.chains); (got != nil) != (c.want != 0) || got != nil && got.SerialNumber.Int64() != c.want {
			t.Errorf("of %v revoked is %v, want %d", c.chains, got, c.want)
		}
	}
	r, err = load(late, old)
	if err != nil || len(r.Doubts(now)) != 2 {
		t.Errorf("of what is old: %v, %v", r.Doubts(now), err)
	}
	for want, parts := range map[string][][]byte{
		"holds no certificate":         {list},
		"signed by none of":            {root, foreign},
		"list of revoked certificates": {root, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")})},
		"certificate 1":                {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})},
	} {
		if _, err := load(parts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("LoadRoots = %v, want %q", err, want)
		}
	}
}

// A changed file is read again; one that is not good leaves what there was.
func TestTrustFollowsItsFiles(t *testing.T) {
	now := time.Now()
	one, _ := newRoot(t, "One", now.AddDate(1, 0, 0), now)
	two, _ := newRoot(t, "Two", now.AddDate(1, 0, 0), now)
	name := filepath.Join(t.TempDir(), "ca.pem")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(one)
	disk, log := ThisDisk(), slog.New(slog.DiscardHandler)
	trust, err := disk.LoadTrust([]string{name, ""}, []Pair{{}})
	if err != nil {
		t.Fatal(err)
	}
	if disk.Look(trust, log) != trust {
		t.Error("nothing has changed")
	}
	write(append(one, two...))
	next := disk.Look(trust, log)
	if len(next.Roots(name).Certs) != 2 || len(trust.Roots(name).Certs) != 1 {
		t.Error("both are there now, and the old Trust is as it was")
	}
	write([]byte("nothing"))
	bad := disk.Look(next, log)
	if len(bad.Roots(name).Certs) != 2 {
		t.Error("a bad file is in use")
	}
	if disk.Look(bad, log) != bad {
		t.Error("it is told again")
	}
	os.Remove(name)
	if gone := disk.Look(bad, log); len(gone.Roots(name).Certs) != 2 {
		t.Error("a file that is gone takes what was in it along")
	}
}
