package cert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a certificate for names in dir, of which the first gives the files their
// name, and returns them.
func write(t testing.TB, dir string, serial int64, until time.Time, key crypto.Signer, names ...string) Pair {
	t.Helper()
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: names, NotBefore: until.AddDate(-1, 0, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{filepath.Join(dir, names[0]+".crt"), filepath.Join(dir, names[0]+".key")}
	put(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text}))
	return p
}

// put replaces a file at once, as certificate tools do.
func put(t testing.TB, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", text, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func curve(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var nextYear = time.Now().AddDate(1, 0, 0)

func TestWhichCertificateANameGets(t *testing.T) {
	dir := t.TempDir()
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	twin := filepath.Join(dir, "twin")
	if err := os.Mkdir(twin, 0o750); err != nil {
		t.Fatal(err)
	}
	set, err := ThisDisk().LoadAll([]Pair{
		write(t, dir, 1, nextYear, old, "default.example"),
		write(t, twin, 2, nextYear, curve(t), "default.example"),
		write(t, dir, 3, nextYear, curve(t), "wild", "*.example.com"),
		write(t, dir, 4, nextYear, curve(t), "www.example.com", "example.com"),
		write(t, dir, 5, nextYear, curve(t), "deep", "*.a.example.com"),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"":                  "2", // the elliptic one of the default's two
		"nobody.example":    "2",
		"default.example":   "2",
		"www.example.com":   "4",
		"WWW.Example.COM.":  "4",
		"example.com":       "4",
		"api.example.com":   "3",
		"a.example.com":     "3",
		"b.a.example.com":   "5",
		"c.b.a.example.com": "2", // a star stands for one label
		"*.example.com":     "3",
	} {
		if got := set.Find(name)[0].Serial; got != want {
			t.Errorf("Find(%q) has serial %s, want %s", name, got, want)
		}
	}
	modern := &tls.ClientHelloInfo{ServerName: "default.example", SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256}, SupportedCurves: []tls.CurveID{tls.X25519}}
	ancient := *modern
	ancient.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256}
	for hello, want := range map[*tls.ClientHelloInfo]int64{modern: 2, &ancient: 1} {
		c, err := set.choose(hello)
		if err != nil || c.Leaf.SerialNumber.Int64() != want {
			t.Errorf("a client of %v gets serial %v (%v), want %d", hello.SignatureSchemes, c.Leaf.SerialNumber, err, want)
		}
	}
}

func TestAChangedFileIsInUseAtTheNextHandshake(t *testing.T) {
	dir, log := t.TempDir(), &strings.Builder{}
	p := write(t, dir, 1, nextYear, curve(t), "h")
	store := NewStore(ThisDisk(), slog.New(slog.NewTextHandler(log, nil)))
	set, err := ThisDisk().LoadAll([]Pair{p})
	if err != nil {
		t.Fatal(err)
	}
	store.Use(set)
	check := func(when string, want int64, faulty bool) {
		t.Helper()
		store.Look()
		c, err := store.Get(&tls.ClientHelloInfo{ServerName: "h"})
		if err != nil || c.Leaf.SerialNumber.Int64() != want {
			t.Errorf("%s: serial %v (%v), want %d", when, c.Leaf.SerialNumber, err, want)
		}
		if f := store.Fault(store.Set().All()[0]); (f != "") != faulty {
			t.Errorf("%s: the fault is %q", when, f)
		}
	}
	check("at first", 1, false)
	other := t.TempDir()
	next := write(t, other, 2, nextYear, curve(t), "h")
	text := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	put(t, p.Cert, text(next.Cert))
	check("the half of a new pair", 1, true)
	check("and again", 1, true)
	if n := strings.Count(log.String(), "not taken into use"); n != 1 {
		t.Errorf("the log says it %d times: %s", n, log)
	}
	put(t, p.Key, text(next.Key))
	check("the whole pair", 2, false)
	put(t, p.Cert, []byte("rubbish"))
	check("rubbish", 2, true)
	if err := os.Remove(p.Cert); err != nil {
		t.Fatal(err)
	}
	check("nothing", 2, true)
	put(t, p.Cert, text(next.Cert))
	check("back again", 2, false)
}

func TestAKeyThatCannotBeReadNamesUserFileAndCure(t *testing.T) {
	p := write(t, t.TempDir(), 1, nextYear, curve(t), "h")
	d := ThisDisk()
	read := d.ReadFile
	d.ReadFile = func(name string) ([]byte, error) {
		if name == p.Key {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
		}
		return read(name)
	}
	_, err := d.Load(p)
	if err == nil {
		t.Fatal("it was read")
	}
	for _, want := range []string{p.Key, "user " + me(), "chgrp", "LoadCredential=h.key:" + p.Key} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	// Unless the service manager has handed it over.
	dir := t.TempDir()
	text, _ := os.ReadFile(p.Key)
	put(t, filepath.Join(dir, "h.key"), text)
	d.Getenv = func(string) string { return dir }
	if _, err := d.Load(p); err != nil {
		t.Errorf("with a credential: %v", err)
	}
}

func TestWhatClientsWillNotTakeIsADoubt(t *testing.T) {
	now := time.Now()
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		until time.Time
		key   crypto.Signer
		want  string
	}{
		{now.Add(-time.Hour), curve(t), "has expired on"},
		{now.AddDate(2, 0, 0), curve(t), "is not valid before"},
		{now.Add(24 * time.Hour), curve(t), "expires on"},
		{now.AddDate(0, 6, 0), short, "1024 bits"},
		{now.AddDate(0, 6, 0), curve(t), ""},
	} {
		read, err := ThisDisk().Load(write(t, t.TempDir(), 1, c.until, c.key, "h"))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(read.Doubts(now), "\n"); !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("until %v: %q, want %q", c.until, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	p := write(f, f.TempDir(), 1, nextYear, func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			f.Fatal(err)
		}
		return key
	}(), "h")
	chain, _ := os.ReadFile(p.Cert)
	key, _ := os.ReadFile(p.Key)
	f.Add(chain, key)
	f.Add(key, chain)
	f.Fuzz(func(t *testing.T, chain, key []byte) {
		c := &Certificate{Pair: Pair{"c", "k"}}
		if c.parse(chain, key) == nil && (c.Subject == "" || c.tls.Leaf == nil) {
			t.Error("a certificate without a name of its own")
		}
	})
}
