// Package cert is certificates with their keys: read from files, judged, chosen by the name
// that a client asks for, and read again when the files change.
package cert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Pair names the files of a chain, the certificate itself first, and of its key. Both may
// be one file.
type Pair struct{ Cert, Key string }

// A Disk is where the files are. The fields are those of package os; tests give their own.
type Disk struct {
	Getenv   func(name string) string
	Stat     func(name string) (fs.FileInfo, error)
	ReadFile func(name string) ([]byte, error)
}

// ThisDisk is the machine's own.
func ThisDisk() Disk { return Disk{Getenv: os.Getenv, Stat: os.Stat, ReadFile: os.ReadFile} }

// A Certificate is one that was read, with its key. It never changes.
type Certificate struct {
	Pair           // both are "" of one that is in no file
	Subject string // the first of its names
	Names   []string
	Serial  string // hexadecimal
	Issuer  string
	Kind    string // of the key: ECDSA P-256, RSA 2048 ...

	NotBefore, NotAfter time.Time

	tls      tls.Certificate
	exposed  bool // everybody on the host may read the key
	unsigned bool // no name stands where clients look for it
	stamps   [2]stamp
}

// maxFile bounds what is read of a file.
const maxFile = 1 << 20

// Load reads a pair. The error says what is wrong with which file, and the cure where it is
// known.
func (d Disk) Load(p Pair) (*Certificate, error) {
	c := &Certificate{Pair: p}
	if c.Key == "" {
		c.Key = p.Cert
	}
	chain, _, err := d.read("certificate", p.Cert, &c.stamps[0])
	if err != nil {
		return nil, err
	}
	key, info, err := d.read("key", c.Key, &c.stamps[1])
	if err != nil {
		return nil, err
	}
	c.exposed = info.Mode().Perm()&0o007 != 0
	if err := c.parse(chain, key); err != nil {
		return nil, err
	}
	return c, nil
}

// read returns a file, or the credential of its name that the service manager has handed
// over (LoadCredential of systemd) if the file itself is not for us to read.
func (d Disk) read(what, name string, at *stamp) ([]byte, fs.FileInfo, error) {
	data, info, err := d.readFile(name, at)
	dir := d.Getenv("CREDENTIALS_DIRECTORY")
	if err != nil && dir != "" {
		if more, handed, again := d.readFile(filepath.Join(dir, filepath.Base(name)), at); again == nil {
			return more, handed, nil
		}
	}
	switch {
	case err == nil:
		return data, info, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, fmt.Errorf("%s %s does not exist", what, name)
	case errors.Is(err, fs.ErrPermission):
		who := me()
		return nil, nil, fmt.Errorf("%s %s cannot be read by user %s: give it to a group of that user (chgrp %s %s; chmod 0640 %s; the directories above need x), or hand it over with LoadCredential=%s:%s in the service",
			what, name, who, who, name, name, filepath.Base(name), name)
	}
	return nil, nil, fmt.Errorf("%s %s: %w", what, name, cause(err))
}

func (d Disk) readFile(name string, at *stamp) ([]byte, fs.FileInfo, error) {
	info, err := d.Stat(name)
	switch {
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("is not a regular file")
	case info.Size() > maxFile:
		return nil, nil, fmt.Errorf("has %d bytes; at most %d are read", info.Size(), maxFile)
	}
	*at = stamp{name, info}
	data, err := d.ReadFile(name)
	return data, info, err
}

// me is the user that this process runs as.
func me() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint(os.Getuid())
}

func cause(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Parse makes a Certificate of the texts of a chain and its key.
func Parse(chain, key []byte) (*Certificate, error) {
	c := new(Certificate)
	if err := c.parse(chain, key); err != nil {
		return nil, err
	}
	return c, nil
}

// Source is where c comes from: file, or acme.
func (c *Certificate) Source() string {
	if c.Cert == "" {
		return "acme"
	}
	return "file"
}

// parse makes c of the two texts.
func (c *Certificate) parse(chain, key []byte) error {
	if !holds(chain, "CERTIFICATE") {
		return fmt.Errorf("certificate %s holds no certificate (PEM)", c.Cert)
	}
	switch {
	case holds(key, "ENCRYPTED PRIVATE KEY") || strings.Contains(string(key), "Proc-Type: 4,ENCRYPTED"):
		return fmt.Errorf("key %s is locked by a password, which nobody enters at a start; unlock it: openssl pkey -in %s -out FILE", c.Key, c.Key)
	case !holds(key, "PRIVATE KEY"):
		return fmt.Errorf("key %s holds no private key (PEM)", c.Key)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "tls: ")
		if strings.Contains(text, "does not match") {
			return fmt.Errorf("key %s does not belong to certificate %s, the first in that file", c.Key, c.Cert)
		}
		return fmt.Errorf("certificate %s with key %s: %s", c.Cert, c.Key, text)
	}
	leaf := pair.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("certificate %s: %w", c.Cert, err)
		}
		pair.Leaf = leaf
	}
	c.tls = pair
	for _, name := range leaf.DNSNames {
		c.Names = append(c.Names, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	c.Subject = leaf.Subject.CommonName
	if len(c.Names) > 0 {
		c.Subject = c.Names[0]
	} else {
		c.unsigned = true
		if c.Subject == "" {
			c.Subject = filepath.Base(c.Cert)
		}
	}
	c.Issuer = leaf.Issuer.CommonName
	if c.Issuer == "" {
		c.Issuer = leaf.Issuer.String()
	}
	c.Serial = fmt.Sprintf("%x", leaf.SerialNumber)
	c.NotBefore, c.NotAfter = leaf.NotBefore, leaf.NotAfter
	switch k := leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		c.Kind = "ECDSA " + k.Params().Name
	case *rsa.PublicKey:
		c.Kind = fmt.Sprintf("RSA %d", k.N.BitLen())
	default:
		c.Kind = leaf.PublicKeyAlgorithm.String()
	}
	return nil
}

// holds reports whether a text has a PEM block of a kind, or of one whose name ends so.
func holds(text []byte, kind string) bool {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return false
		}
		if b.Type == kind || strings.HasSuffix(b.Type, " "+kind) {
			return true
		}
	}
}

// soon is from when on one is told of an end that comes.
const soon = 14 * 24 * time.Hour

// Doubts says why clients will not take c at now, or will not for long, and what else is
// hardly meant. It is served all the same.
func (c *Certificate) Doubts(now time.Time) []string {
	doubts := c.aged(now, "clients refuse")
	if c.unsigned {
		doubts = append(doubts, fmt.Sprintf("certificate %s names no host in its subject alternative names: clients refuse it", c.Cert))
	}
	if k, ok := c.tls.Leaf.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		doubts = append(doubts, fmt.Sprintf("certificate %s has a key of %d bits: clients refuse RSA below 2048", c.Cert, k.N.BitLen()))
	}
	return append(doubts, c.open()...)
}

// ClientDoubts is Doubts of a certificate that is shown to servers. It need not name a host.
func (c *Certificate) ClientDoubts(now time.Time) []string {
	return append(c.aged(now, "servers refuse"), c.open()...)
}

// aged says that c is too old, or too new.
func (c *Certificate) aged(now time.Time, refuse string) []string {
	switch {
	case now.After(c.NotAfter):
		return []string{fmt.Sprintf("certificate %s of %s has expired on %s: %s it", c.Cert, c.Subject, c.NotAfter.UTC().Format(layout), refuse)}
	case now.Before(c.NotBefore):
		return []string{fmt.Sprintf("certificate %s of %s is not valid before %s: %s it until then", c.Cert, c.Subject, c.NotBefore.UTC().Format(layout), refuse)}
	case now.Add(soon).After(c.NotAfter):
		return []string{fmt.Sprintf("certificate %s of %s expires on %s", c.Cert, c.Subject, c.NotAfter.UTC().Format(layout))}
	}
	return nil
}

// open says that c's key is no secret on this host.
func (c *Certificate) open() []string {
	if !c.exposed {
		return nil
	}
	return []string{fmt.Sprintf("key %s can be read by everybody on this host; run: chmod 0640 %s", c.Key, c.Key)}
}

// TLS is c for crypto/tls. The caller must not change it.
func (c *Certificate) TLS() *tls.Certificate { return &c.tls }

// Same reports whether both are the same certificate.
func (c *Certificate) Same(o *Certificate) bool {
	return c == o || c != nil && o != nil && slices.EqualFunc(c.tls.Certificate, o.tls.Certificate, bytes.Equal)
}
