package cert

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
)

// Roots are the authorities of one file, by which the certificates of others are judged.
// They never change.
type Roots struct {
	File  string
	Pool  *x509.CertPool
	Certs []*x509.Certificate

	text    []byte
	stamp   stamp
	revoked map[revocation]bool
	lists   []*x509.RevocationList // that say when the next one is due
}

// A revocation names a certificate that its authority does not stand by any more.
type revocation struct{ issuer, serial string }

// LoadRoots reads a file of authorities, PEM, and of lists of what they have revoked (CRL),
// each signed by one of them. What else is in it is passed over.
func (d Disk) LoadRoots(name string) (*Roots, error) {
	r := &Roots{File: name, Pool: x509.NewCertPool()}
	text, _, err := d.read("authorities", name, &r.stamp)
	if err != nil {
		return nil, err
	}
	r.text = text
	var lists []*pem.Block
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		switch b.Type {
		case "CERTIFICATE":
		case "X509 CRL":
			lists = append(lists, b)
			continue
		default:
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
	for i, b := range lists {
		if err := r.revoke(b.Bytes); err != nil {
			return nil, fmt.Errorf("authorities %s: list of revoked certificates %d: %w", name, i+1, err)
		}
	}
	return r, nil
}

// revoke takes a list in.
func (r *Roots) revoke(der []byte) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(r.Certs, func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(c) == nil
	}) {
		return fmt.Errorf("it is signed by none of the authorities in the file (it says: %s)", list.Issuer)
	}
	if r.revoked == nil {
		r.revoked = map[revocation]bool{}
	}
	for _, e := range list.RevokedCertificateEntries {
		r.revoked[revocation{string(list.RawIssuer), e.SerialNumber.String()}] = true
	}
	if !list.NextUpdate.IsZero() {
		r.lists = append(r.lists, list)
	}
	return nil
}

// Revoked looks for a chain that no list of the file speaks against: of which it names neither
// the certificate itself nor one above it. An authority that has signed itself is believed since it is
// in the file; one that another has signed may have been revoked by that. If there is none it returns what is revoked, else nil.
func (r *Roots) Revoked(chains [][]*x509.Certificate) (bad *x509.Certificate) {
	if len(r.revoked) == 0 {
		return nil
	}
	for _, chain := range chains {
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool {
			return !bytes.Equal(c.RawIssuer, c.RawSubject) && r.revoked[revocation{string(c.RawIssuer), c.SerialNumber.String()}]
		})
		if i < 0 {
			return nil
		}
		bad = chain[i]
	}
	return bad
}

// Digest is the same for the same authorities with the same lists.
func (r *Roots) Digest() [sha256.Size]byte { return sha256.Sum256(r.text) }

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
	for _, l := range r.lists {
		if now.After(l.NextUpdate) {
			doubts = append(doubts, fmt.Sprintf("the list in %s of what %s has revoked is old: another was due on %s", r.File, l.Issuer, l.NextUpdate.UTC().Format(layout)))
		}
	}
	return doubts
}

// layout is how a time is written for operators.
const layout = "2006-01-02 15:04 MST"
