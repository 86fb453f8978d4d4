package cert

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"
)

// Roots are the authorities of one file, by which the certificates of others are judged.
// They never change.
type Roots struct {
	File  string
	Pool  *x509.CertPool
	Certs []*x509.Certificate

	text  []byte
	stamp stamp
}

// LoadRoots reads a file of authorities, PEM. What else is in it (keys, lists of what was
// revoked) is passed over.
func (d Disk) LoadRoots(name string) (*Roots, error) {
	r := &Roots{File: name, Pool: x509.NewCertPool()}
	text, _, err := d.read("authorities", name, &r.stamp)
	if err != nil {
		return nil, err
	}
	r.text = text
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("authorities %s: certificate %d: %w", name, len(r.Certs)+1, err)
		}
		r.Pool.AddCert(c)
		r.Certs = append(r.Certs, c)
	}
	if len(r.Certs) == 0 {
		return nil, fmt.Errorf("authorities %s holds no certificate (PEM)", name)
	}
	return r, nil
}

// Same reports whether both are the same authorities.
func (r *Roots) Same(o *Roots) bool {
	return r == o || r != nil && o != nil && bytes.Equal(r.text, o.text)
}

// Doubts says what of the authorities proves nothing at now, or will not for long.
func (r *Roots) Doubts(now time.Time) (doubts []string) {
	for _, c := range r.Certs {
		name := c.Subject.CommonName
		if name == "" {
			name = c.Subject.String()
		}
		switch {
		case now.After(c.NotAfter):
			doubts = append(doubts, fmt.Sprintf("authority %s in %s has expired on %s: what it signed is refused", name, r.File, c.NotAfter.UTC().Format(layout)))
		case now.Add(soon).After(c.NotAfter):
			doubts = append(doubts, fmt.Sprintf("authority %s in %s expires on %s", name, r.File, c.NotAfter.UTC().Format(layout)))
		}
	}
	return doubts
}

// layout is how a time is written for operators.
const layout = "2006-01-02 15:04 MST"
