package config

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// On says whether the cluster gets certificates by itself.
func (a *ACME) On() bool { return a.Email != "" }

// challenges are what acme.challenge may be.
func challenges() []string { return []string{"auto", "http-01", "tls-alpn-01", "dns-01"} }

// completeACME fills in defaults that mean something only with an email.
func (d *decoder) completeACME(a *ACME) {
	if !a.On() {
		return
	}
	if a.Directory == "" {
		a.Directory = defaultDirectory
	}
	if a.Challenge == "" {
		a.Challenge = "auto"
	}
	if a.DNS != nil && a.DNS.RFC2136 != "" {
		if server, err := parseDNSServer(a.DNS.RFC2136); err == nil {
			a.DNS.RFC2136 = server
		}
	}
}

// checkACME judges [acme], and finds the names that have a certificate by it.
func (d *decoder) checkACME(c *Config) {
	a, p := &c.ACME, to("acme")
	if !a.On() {
		if _, there := d.places.get(p); there && !d.spoilt(p) {
			d.bad(p, `needs an email beside it, such as email = "ops@example.com": the CA writes there when something is wrong with a certificate`)
		}
		return
	}
	if q := p.key("email"); !d.spoilt(q) && !mailAddress(a.Email) {
		d.bad(q, "%q is not the address of a mailbox", a.Email)
	}
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		d.bad(p.key("directory"), "%q is not the https URL of a CA's directory", a.Directory)
	}
	if q := p.key("ca"); a.CA != "" && !d.spoilt(q) {
		if err := d.host.roots(a.CA); err != nil {
			d.bad(q, "%v", err)
		}
	}
	if q := p.key("challenge"); !slices.Contains(challenges(), a.Challenge) && !d.spoilt(q) {
		d.bad(q, "%q is not one of %s", a.Challenge, join(challenges()))
	}
	d.checkEAB(a.EAB)
	d.checkACMEDNS(a)
	d.checkACMEHosts(c)
	if !d.spoilt(to("listener")) && !c.Cluster.Witness {
		d.checkChallengeable(c)
	}
}

func (d *decoder) checkEAB(e *EAB) {
	p := to("acme", "eab")
	if e == nil || d.spoilt(p) {
		return
	}
	if e.ID == "" || e.Key == "" {
		d.bad(p, `needs both of what the CA gives out: { id = "...", key = "file:/etc/proxyd/eab.key" }`)
		return
	}
	text, err := d.host.secret(e.Key)
	if err != nil {
		d.bad(p.key("key"), "%v", err)
	} else if _, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(string(text), "=")); err != nil {
		d.bad(p.key("key"), "%s holds no base64url, in which a CA gives out such keys", e.Key)
	}
}

func (d *decoder) checkACMEDNS(a *ACME) {
	p := to("acme", "dns")
	if a.DNS == nil || d.spoilt(p) {
		if a.Challenge == "dns-01" && a.DNS == nil && !d.spoilt(p) {
			d.bad(to("acme", "challenge"), `is dns-01, which needs dns = { rfc2136 = "10.0.0.53", key = "file:/etc/proxyd/tsig" } or dns = { command = "/etc/proxyd/dns-hook" }`)
		}
		return
	}
	n := a.DNS
	switch {
	case (n.RFC2136 == "") == (n.Command == ""):
		d.bad(p, "needs exactly one of rfc2136 and command")
	case n.RFC2136 != "":
		if _, err := parseDNSServer(n.RFC2136); err != nil {
			d.bad(p.key("rfc2136"), "%v", err)
		}
	case !filepath.IsAbs(n.Command):
		d.bad(p.key("command"), "needs an absolute path, not %q", n.Command)
	case n.Key != "":
		d.bad(p.key("key"), "is for rfc2136; a command has secrets of its own")
	default:
		if info, err := d.host.Stat(n.Command); err != nil {
			d.bad(p.key("command"), "%s: %v", n.Command, cause(err))
		} else if info.IsDir() || info.Mode().Perm()&0o111 == 0 {
			d.bad(p.key("command"), "%s is no program; run: chmod +x %s", n.Command, n.Command)
		}
	}
	if a.Challenge == "http-01" || a.Challenge == "tls-alpn-01" {
		d.bad(p, "has no meaning with challenge = %q; take one of the two out", a.Challenge)
	}
	if q := p.key("key"); n.Key != "" && n.RFC2136 != "" && !d.spoilt(q) {
		if text, err := d.host.secret(n.Key); err != nil {
			d.bad(q, "%v", err)
		} else if _, err := ParseTSIG(string(text)); err != nil {
			d.bad(q, "%s %v", n.Key, err)
		}
	}
}

// checkACMEHosts finds the names that are ordered.
func (d *decoder) checkACMEHosts(c *Config) {
	a, p := &c.ACME, to("acme", "hosts")
	for i, h := range a.Hosts {
		q := p.at(i)
		host, err := canonicalHost(h)
		_, notName := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case d.spoilt(q):
			continue
		case err != nil:
			d.bad(q, "%q %v", h, err)
			continue
		case notName == nil:
			d.bad(q, "%s is an address; certificates are for names here", h)
			continue
		case slices.Contains(a.Hosts[:i], host):
			d.bad(q, "%q is there twice", host)
			continue
		}
		if strings.HasPrefix(host, "*.") && (a.DNS == nil || a.Challenge == "http-01" || a.Challenge == "tls-alpn-01") && !d.spoilt(to("acme", "dns")) && !d.spoilt(to("acme", "challenge")) {
			d.bad(q, `%q is a wildcard, which a CA gives for dns-01 alone: add dns = { rfc2136 = "10.0.0.53", key = "file:/etc/proxyd/tsig" } or dns = { command = "/etc/proxyd/dns-hook" }`, host)
		}
		a.Hosts[i] = host
	}
	c.Ordered = slices.Clone(a.Hosts)
	if len(a.Hosts) > 0 || d.spoilt(p) {
		return
	}
	for _, r := range c.Route {
		for _, h := range r.Host {
			if !slices.Contains(c.Ordered, h) && !slices.Contains(d.certified, h) && orderable(h, a.Directory == defaultDirectory) {
				c.Ordered = append(c.Ordered, h)
			}
		}
	}
	if len(c.Ordered) == 0 && len(d.problems) == 0 {
		d.warn(c, to("acme"), `gets no certificate: no [[route]] has a host for which one can be ordered; give hosts = ["example.com"]`)
	}
}

// orderable says whether a host of a route is a name that a CA may know. A public one knows
// no name that is set aside for other uses (RFC 6761, 6762, 8375, 9476).
func orderable(host string, public bool) bool {
	if strings.HasPrefix(host, "*.") || strings.HasPrefix(host, "[") || !strings.Contains(host, ".") {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	if !public {
		return true
	}
	for _, end := range []string{".localhost", ".local", ".internal", ".test", ".invalid", ".example", ".onion", ".alt", ".home.arpa"} {
		if strings.HasSuffix(host, end) {
			return false
		}
	}
	return true
}

// checkChallengeable warns of challenges that no listener of this node can answer.
func (d *decoder) checkChallengeable(c *Config) {
	a, p := &c.ACME, to("acme", "challenge")
	clear, secure := c.listensOn(80, false), c.listensOn(443, true)
	const at80 = `port 80, where the CA asks, is open on no listener in clear; unless something in front of this node sends it on, give challenge = "tls-alpn-01"`
	const at443 = `port 443, where the CA asks, is open on no listener with tls; unless something in front of this node sends it on, give challenge = "http-01"`
	switch {
	case a.Challenge == "http-01" && !clear:
		d.warn(c, p, "is http-01, but "+at80)
	case a.Challenge == "tls-alpn-01" && !secure:
		d.warn(c, p, "is tls-alpn-01, but "+at443)
	case a.Challenge == "auto" && a.DNS == nil && !clear && !secure:
		d.warn(c, to("acme"), "neither port 80 in clear nor port 443 with tls, where the CA asks, is open on a listener; unless something in front of this node sends them on, no certificate comes")
	}
}

// ListensInClear says whether a listener without TLS has port 80, to which a CA turns.
func (c *Config) ListensInClear() bool { return c.listensOn(80, false) }

func (c *Config) listensOn(port uint16, secure bool) bool {
	for _, l := range c.Listener {
		for _, a := range l.Address {
			if at, err := parseListenAddr(a); err == nil && at.port == port && l.TLS == secure {
				return true
			}
		}
	}
	return false
}

// ACMESecrets are the references of secrets in [acme], for a backup.
func (c *Config) ACMESecrets() (refs []string) {
	a := &c.ACME
	if a.EAB != nil && a.EAB.Key != "" {
		refs = append(refs, a.EAB.Key)
	}
	if a.DNS != nil && a.DNS.Key != "" {
		refs = append(refs, a.DNS.Key)
	}
	return refs
}

// ReadSecret reads what a reference of a checked configuration points to, as it is now.
func ReadSecret(ref string) (string, error) {
	s, err := thisHost().secret(ref)
	return string(s), err
}

// mailAddress says whether a text can be the address of a mailbox, of ASCII alone as ACME
// wants it (RFC 8555, 7.3).
func mailAddress(s string) bool {
	local, host, ok := strings.Cut(s, "@")
	return ok && local != "" && hostName(host) && strings.IndexFunc(local, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`,;<>()"?@`, r) }) < 0
}

// roots says why a file holds no roots by which to trust a CA.
func (h Host) roots(name string) error {
	if !filepath.IsAbs(name) {
		return fmt.Errorf("needs an absolute path, not %q", name)
	}
	data, err := h.ReadFile(name)
	if err != nil {
		return fmt.Errorf("file %s: %w", name, cause(err))
	}
	if b, _ := pem.Decode(data); b == nil || !bytes.Contains(data, []byte("-----BEGIN CERTIFICATE-----")) {
		return fmt.Errorf("file %s holds no certificate (PEM)", name)
	}
	return nil
}

// parseDNSServer reads an address, with port 53 if it has none.
func parseDNSServer(s string) (string, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53).String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return "", fmt.Errorf(`needs an address such as "10.0.0.53" or "10.0.0.53:5353", not %q`, s)
	}
	return ap.String(), nil
}

// A TSIG is a key that signs DNS updates (RFC 8945).
type TSIG struct {
	Algorithm string // in lower case, such as hmac-sha256
	Name      string
	Secret    string // base64
}

// tsigAlgorithms are those that are safe.
func tsigAlgorithms() []string {
	return []string{"hmac-sha256", "hmac-sha224", "hmac-sha384", "hmac-sha512"}
}

// ParseTSIG reads a key as tsig-keygen writes it (key "name" { algorithm ...; secret "..."; };)
// or as nsupdate takes it (hmac-sha256:name:secret). The error follows the name of what was
// read, and does not hold the key.
func ParseTSIG(text string) (TSIG, error) {
	t := TSIG{Algorithm: "hmac-sha256"}
	if strings.HasPrefix(strings.TrimSpace(text), "key") && strings.Contains(text, "{") {
		words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n;{}\"", r) })
		for i := 0; i+1 < len(words); i += 2 {
			switch words[i] {
			case "key":
				t.Name = words[i+1]
			case "algorithm":
				t.Algorithm = strings.ToLower(words[i+1])
			case "secret":
				t.Secret = words[i+1]
			}
		}
	} else {
		switch parts := strings.Split(strings.TrimSpace(text), ":"); len(parts) {
		case 2:
			t.Name, t.Secret = parts[0], parts[1]
		case 3:
			t.Algorithm, t.Name, t.Secret = strings.ToLower(parts[0]), parts[1], parts[2]
		}
	}
	t.Algorithm = strings.TrimSuffix(t.Algorithm, ".")
	switch raw, err := base64.StdEncoding.DecodeString(t.Secret); {
	case t.Name == "" || t.Secret == "":
		return TSIG{}, fmt.Errorf(`holds no TSIG key: write "hmac-sha256:NAME:BASE64", or what tsig-keygen prints`)
	case !slices.Contains(tsigAlgorithms(), t.Algorithm):
		return TSIG{}, fmt.Errorf("holds a TSIG key of algorithm %q; use one of %s", t.Algorithm, join(tsigAlgorithms()))
	case err != nil || len(raw) == 0:
		return TSIG{}, fmt.Errorf("holds a TSIG key whose secret is no base64")
	}
	return t, nil
}
