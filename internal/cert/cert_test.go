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
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
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
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: until.AddDate(-1, 0, 0), NotAfter: until}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			form.IPAddresses = append(form.IPAddresses, ip)
		} else {
			form.DNSNames = append(form.DNSNames, name)
		}
	}
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
		write(t, dir, 6, nextYear, curve(t), "192.0.2.1", "2001:db8::1"),
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
		"192.0.2.1":         "6", // which is no name (RFC 6066, 3), but what is meant is plain
		"2001:DB8::1":       "6",
		"192.0.2.2":         "2",
	} {
		if got := set.Find(name)[0].Serial; got != want {
			t.Errorf("Find(%q) has serial %s, want %s", name, got, want)
		}
	}
	modern := &tls.ClientHelloInfo{ServerName: "default.example", SupportedVersions: []uint16{tls.VersionTLS13}, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256}, SupportedCurves: []tls.CurveID{tls.X25519}}
	ancient := *modern
	ancient.SignatureSchemes = []tls.SignatureScheme{tls.PSSWithSHA256}
	stranger, nameless := ancient, ancient
	stranger.ServerName, nameless.ServerName = "nobody.example", ""
	there := *modern
	there.ServerName, there.Conn = "", at("[::ffff:192.0.2.1]:443")
	elsewhere := there
	elsewhere.Conn = at("192.0.2.2:443")
	for hello, want := range map[*tls.ClientHelloInfo]int64{modern: 2, &ancient: 1, &stranger: 1, &nameless: 1, &there: 6, &elsewhere: 2} {
		c, err := set.choose(hello)
		if err != nil || c.Leaf.SerialNumber.Int64() != want {
			t.Errorf("a client of %v that asks for %q at %v gets serial %v (%v), want %d", hello.SignatureSchemes, hello.ServerName, hello.Conn, c.Leaf.SerialNumber, err, want)
		}
	}
}

// at is a connection to an address.
type at string

func (a at) LocalAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(string(a)))
}
func (at) RemoteAddr() net.Addr             { return nil }
func (at) Read([]byte) (int, error)         { return 0, io.EOF }
func (at) Write([]byte) (int, error)        { return 0, io.EOF }
func (at) Close() error                     { return nil }
func (at) SetDeadline(time.Time) error      { return nil }
func (at) SetReadDeadline(time.Time) error  { return nil }
func (at) SetWriteDeadline(time.Time) error { return nil }

// What a handshake costs does not grow with the number of certificates.
func TestManyCertificatesCostAHandshakeNothing(t *testing.T) {
	c, err := ThisDisk().Load(write(t, t.TempDir(), 1, nextYear, curve(t), "h"))
	if err != nil {
		t.Fatal(err)
	}
	all := make([]*Certificate, 10000)
	for i := range all {
		one := *c
		one.Serial, one.Names = fmt.Sprint(i), []string{fmt.Sprintf("h%d.example", i), fmt.Sprintf("*.h%d.example", i)}
		all[i] = &one
	}
	set := NewSet(all)
	for name, want := range map[string]string{"h0.example": "0", "h9999.example": "9999", "a.h7000.example": "7000", "h10000.example": "0"} {
		if got := set.Find(name)[0].Serial; got != want {
			t.Errorf("Find(%q) has serial %s, want %s", name, got, want)
		}
		hello := &tls.ClientHelloInfo{ServerName: name}
		if n := testing.AllocsPerRun(100, func() { set.choose(hello) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkChooseOf10000(b *testing.B) {
	c, err := ThisDisk().Load(write(b, b.TempDir(), 1, nextYear, curve(b), "h"))
	if err != nil {
		b.Fatal(err)
	}
	all := make([]*Certificate, 10000)
	for i := range all {
		one := *c
		one.Names = []string{fmt.Sprintf("h%d.example", i)}
		all[i] = &one
	}
	set, hello := NewSet(all), &tls.ClientHelloInfo{ServerName: "h7000.example"}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = set.choose(hello)
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

// Of very many files a share is looked at each time, and all of them in turn.
func TestManyFilesAreLookedAtInTurn(t *testing.T) {
	p := write(t, t.TempDir(), 1, nextYear, curve(t), "h")
	c, err := ThisDisk().Load(p)
	if err != nil {
		t.Fatal(err)
	}
	stats := map[string]int{}
	d := ThisDisk()
	d.Stat = func(name string) (fs.FileInfo, error) {
		stats[name]++
		return os.Stat(p.Cert)
	}
	store := NewStore(d, slog.New(slog.DiscardHandler))
	all := make([]*Certificate, 2*mostLooked+1)
	for i := range all {
		one := *c
		for j := range one.stamps {
			one.stamps[j] = stamp{fmt.Sprint(i, " ", j), c.stamps[0].info}
		}
		all[i] = &one
	}
	store.Use(NewSet(all))
	for looks, want := range []int{0, 2 * mostLooked, 4 * mostLooked, 4*mostLooked + 2} {
		if len(stats) != want {
			t.Errorf("after %d looks %d files were seen, want %d", looks, len(stats), want)
		}
		store.Look()
	}
}

// Tools swap files in several ways. Whatever is seen in between, the pair before serves until
// the next one is whole.
func TestFilesAreSwappedAsToolsDo(t *testing.T) {
	link := func(t *testing.T, to, name string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, name+".new"), os.Rename(name+".new", name)); err != nil {
			t.Fatal(err)
		}
	}
	text := func(t *testing.T, name string) []byte {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	into := func(t *testing.T, name string, data []byte) { // in place
		t.Helper()
		if err := os.WriteFile(name, data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for name, swap := range map[string]struct {
		first func(t *testing.T, dir string, one Pair) Pair
		steps []func(t *testing.T, p, two Pair) // after the last one the next pair is in use
	}{
		"a link to the folder of both (Kubernetes)": {
			func(t *testing.T, dir string, one Pair) Pair {
				link(t, filepath.Dir(one.Cert), filepath.Join(dir, "..data"))
				link(t, filepath.Join("..data", "h.crt"), filepath.Join(dir, "tls.crt"))
				link(t, filepath.Join("..data", "h.key"), filepath.Join(dir, "tls.key"))
				return Pair{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
			},
			[]func(*testing.T, Pair, Pair){func(t *testing.T, p, two Pair) {
				link(t, filepath.Dir(two.Cert), filepath.Join(filepath.Dir(p.Cert), "..data"))
			}},
		},
		"a link for each (certbot)": {
			func(t *testing.T, dir string, one Pair) Pair {
				p := Pair{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
				link(t, one.Cert, p.Cert)
				link(t, one.Key, p.Key)
				return p
			},
			[]func(*testing.T, Pair, Pair){
				func(t *testing.T, p, two Pair) { link(t, two.Key, p.Key) },
				func(t *testing.T, p, two Pair) { link(t, two.Cert, p.Cert) },
			},
		},
		"written over, the certificate first": {
			func(_ *testing.T, _ string, one Pair) Pair { return one },
			[]func(*testing.T, Pair, Pair){
				func(t *testing.T, p, two Pair) { into(t, p.Cert, nil) },
				func(t *testing.T, p, two Pair) { into(t, p.Cert, text(t, two.Cert)[:200]) },
				func(t *testing.T, p, two Pair) { into(t, p.Cert, text(t, two.Cert)) },
				func(t *testing.T, p, two Pair) { into(t, p.Key, text(t, two.Key)[:100]) },
				func(t *testing.T, p, two Pair) { into(t, p.Key, text(t, two.Key)) },
			},
		},
		"taken away, then written": {
			func(_ *testing.T, _ string, one Pair) Pair { return one },
			[]func(*testing.T, Pair, Pair){
				func(t *testing.T, p, two Pair) { os.Remove(p.Key) },
				func(t *testing.T, p, two Pair) { os.Remove(p.Cert) },
				func(t *testing.T, p, two Pair) { into(t, p.Key, text(t, two.Key)) },
				func(t *testing.T, p, two Pair) { into(t, p.Cert, text(t, two.Cert)) },
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := swap.first(t, t.TempDir(), write(t, t.TempDir(), 1, nextYear, curve(t), "h"))
			two := write(t, t.TempDir(), 2, nextYear, curve(t), "h")
			store := NewStore(ThisDisk(), slog.New(slog.DiscardHandler))
			set, err := ThisDisk().LoadAll([]Pair{p})
			if err != nil {
				t.Fatal(err)
			}
			store.Use(set)
			for i, step := range swap.steps {
				step(t, p, two)
				store.Look()
				last := i == len(swap.steps)-1
				want := map[bool]string{false: "1", true: "2"}[last]
				if c := store.Set().All()[0]; c.Serial != want || (store.Fault(c) == "") != last {
					t.Errorf("after step %d: serial %s, want %s; fault %q", i+1, c.Serial, want, store.Fault(c))
				}
			}
		})
	}
}

// A key that was made unreadable when it was replaced is told of as one at the start, and one
// that has expired is used as one at the start: whoever put it there wants it.
func TestAReplacementIsJudgedAsAtTheStart(t *testing.T) {
	p := write(t, t.TempDir(), 1, nextYear, curve(t), "h")
	d, log, closed := ThisDisk(), &strings.Builder{}, false
	read := d.ReadFile
	d.ReadFile = func(name string) ([]byte, error) {
		if closed && name == p.Key {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
		}
		return read(name)
	}
	store := NewStore(d, slog.New(slog.NewTextHandler(log, nil)))
	set, err := d.LoadAll([]Pair{p})
	if err != nil {
		t.Fatal(err)
	}
	store.Use(set)
	closed = true
	write(t, filepath.Dir(p.Cert), 2, time.Now().Add(-time.Hour), curve(t), "h")
	store.Look()
	fault := store.Fault(store.Set().All()[0])
	for _, want := range []string{p.Key, "user " + me(), "chgrp", "LoadCredential="} {
		if !strings.Contains(fault, want) {
			t.Errorf("%q does not say %q", fault, want)
		}
	}
	if got := store.Set().All()[0].Serial; got != "1" {
		t.Errorf("meanwhile %s is served", got)
	}
	closed = false
	write(t, filepath.Dir(p.Cert), 3, time.Now().Add(-time.Hour), curve(t), "h")
	store.Look()
	if got := store.Set().All()[0].Serial; got != "3" || !strings.Contains(log.String(), "has expired on") {
		t.Errorf("then %s is served; log %s", got, log)
	}
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
