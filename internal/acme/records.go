package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The records of a cluster, by the beginning of their keys. One that a later release wrote
// may say more; what is not known is lost when this one writes it.
const (
	accountPrefix = "account/" // and the mark of a directory
	orderPrefix   = "order/"   // and the mark of a name
	certPrefix    = "cert/"    // likewise
)

// mark is a name in a key: names may be longer than keys.
func mark(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:12])
}

func hostOf(directory string) string {
	if u, err := url.Parse(directory); err == nil {
		return u.Hostname()
	}
	return directory
}

// An account is who orders. Its key is made before the CA hears of it: to the same key the CA
// gives the same account, however often it is asked.
type account struct {
	Directory string `json:"directory"`
	Key       string `json:"key"` // PEM
	Email     string `json:"email"`
	URL       string `json:"url,omitempty"`    // "": the CA may not know it yet
	Orders    string `json:"orders,omitempty"` // URL of the list of its orders; not every CA has one
}

// An order is one certificate on its way, and what came of those before.
type order struct {
	Name      string    `json:"name"`
	Directory string    `json:"directory"`
	Key       string    `json:"key,omitempty"`       // PEM, of the certificate
	Asked     time.Time `json:"asked,omitzero"`      // when the CA was, or is about to be, asked for an order of which the URL is not known yet
	URL       string    `json:"url,omitempty"`       // of the order
	Replaces  string    `json:"replaces,omitempty"`  // the certificate that it renews (RFC 9773, 5)
	Challenge string    `json:"challenge,omitempty"` // the type with which it is tried
	Answers   []answer  `json:"answers,omitempty"`   // what the CA may ask for

	Failures int       `json:"failures,omitempty"` // in a row
	Error    string    `json:"error,omitempty"`    // of the latest
	Refused  string    `json:"refused,omitempty"`  // the challenge that failed last
	Next     time.Time `json:"next,omitzero"`      // not before
}

// An answer is what to show to the CA, by any node.
type answer struct {
	Type  string `json:"type"`
	Host  string `json:"host"`  // without "*."
	Token string `json:"token"` // of http-01
	Value string `json:"value"` // the key authorization
	Made  bool   `json:"made"`  // dns-01: the record may be in the DNS
}

// A certified name has a certificate.
type certified struct {
	Name      string    `json:"name"`
	Directory string    `json:"directory"`
	Key       string    `json:"key"`   // PEM
	Chain     string    `json:"chain"` // PEM
	Since     time.Time `json:"since"`
	Renewal   renewal   `json:"renewal,omitzero"`
	Forced    bool      `json:"forced,omitempty"` // an operator wants another one
}

// A renewal is when the CA wants a certificate to be renewed (RFC 9773, 4.2).
type renewal struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Selected time.Time `json:"selected"` // drawn once for a window
}

// A book is all records in clear.
type book struct {
	accounts map[string]account   // by directory
	orders   map[string]order     // by name
	certs    map[string]certified // by name
	shut     []string             // keys of records that no secret opens
}

// readBook reads every record. One that cannot be read is left out.
func readBook(v *Vault) book {
	b := book{accounts: map[string]account{}, orders: map[string]order{}, certs: map[string]certified{}}
	records, shut := v.All()
	b.shut = shut
	for key, plain := range records {
		switch {
		case strings.HasPrefix(key, accountPrefix):
			var a account
			if json.Unmarshal(plain, &a) == nil && a.Directory != "" {
				b.accounts[a.Directory] = a
			}
		case strings.HasPrefix(key, orderPrefix):
			var o order
			if json.Unmarshal(plain, &o) == nil && o.Name != "" {
				b.orders[o.Name] = o
			}
		case strings.HasPrefix(key, certPrefix):
			var c certified
			if json.Unmarshal(plain, &c) == nil && c.Name != "" {
				b.certs[c.Name] = c
			}
		}
	}
	return b
}

// forgetAfter is how long a certificate that is over is kept.
const forgetAfter = 30 * 24 * time.Hour

// expires says when a record may be forgotten; zero is never.
func expires(key string, plain []byte) time.Time {
	if !strings.HasPrefix(key, certPrefix) {
		return time.Time{}
	}
	var c certified
	if json.Unmarshal(plain, &c) != nil {
		return time.Time{}
	}
	leaf, err := leafOf(c.Chain)
	if err != nil {
		return time.Time{}
	}
	return leaf.NotAfter.Add(forgetAfter)
}

// leafOf returns the first certificate of a chain.
func leafOf(chain string) (*x509.Certificate, error) {
	b, _ := pem.Decode([]byte(chain))
	if b == nil || b.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate (PEM)")
	}
	return x509.ParseCertificate(b.Bytes)
}

// newKey makes a key, as PEM.
func newKey() (string, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// parseKey reads what newKey made.
func parseKey(text string) (*ecdsa.PrivateKey, error) {
	b, _ := pem.Decode([]byte(text))
	if b == nil {
		return nil, errors.New("a kept key is no PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("a kept key: %w", err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a kept key is a %T", k)
	}
	return ec, nil
}

// request makes the request that is signed with a certificate's key (RFC 8555, 7.4).
func request(name, key string) ([]byte, error) {
	k, err := parseKey(key)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, k)
}

// withAnswer puts a in the place of what o has for the same host.
func (o order) withAnswer(a answer) order {
	o.Answers = append(slices.DeleteFunc(slices.Clone(o.Answers), func(b answer) bool { return b.Type == a.Type && b.Host == a.Host && b.Value == a.Value }), a)
	return o
}
