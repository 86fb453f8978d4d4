package acme

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// An Update makes TXT records by dynamic updates (RFC 2136) that are signed (RFC 8945). It
// implements DNS.
type Update struct {
	Server    string // address and port
	Algorithm string // such as hmac-sha256
	Name      string // of the key; "": updates are not signed
	Secret    string // base64
}

const (
	// recordTTL is how long others may keep the record.
	recordTTL = 60
	// dnsTime bounds one question.
	dnsTime = 10 * time.Second
	// signedWithin is how far the clocks may differ.
	signedWithin = 300
)

// Present implements DNS.
func (u *Update) Present(ctx context.Context, name, value string) error {
	return u.change(ctx, name, value, (*dns.Msg).Insert)
}

// Remove implements DNS.
func (u *Update) Remove(ctx context.Context, name, value string) error {
	return u.change(ctx, name, value, (*dns.Msg).Remove)
}

func (u *Update) change(ctx context.Context, name, value string, how func(*dns.Msg, []dns.RR)) error {
	name = dns.Fqdn(name)
	zone, err := u.zone(ctx, name)
	if err != nil {
		return err
	}
	m := new(dns.Msg)
	m.SetUpdate(zone)
	how(m, []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: recordTTL}, Txt: []string{value}}})
	r, err := u.ask(ctx, m, true)
	if err != nil {
		return fmt.Errorf("update of zone %s at %s: %w", zone, u.Server, err)
	}
	if r.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("update of zone %s at %s: the server says %s", zone, u.Server, dns.RcodeToString[r.Rcode])
	}
	return nil
}

// zone finds the zone that a name is in, as the server has it.
func (u *Update) zone(ctx context.Context, name string) (string, error) {
	for at := name; at != "" && at != "."; {
		m := new(dns.Msg)
		m.SetQuestion(at, dns.TypeSOA)
		r, err := u.ask(ctx, m, false)
		if err != nil {
			return "", fmt.Errorf("zone of %s at %s: %w", name, u.Server, err)
		}
		for _, rr := range append(r.Answer, r.Ns...) {
			if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
				return soa.Hdr.Name, nil
			}
		}
		_, at, _ = strings.Cut(at, ".")
	}
	return "", fmt.Errorf("%s has no zone for %s", u.Server, name)
}

// ask sends m by TCP: an answer cannot be forged by who does not see the question.
func (u *Update) ask(ctx context.Context, m *dns.Msg, signed bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, dnsTime)
	defer cancel()
	c := &dns.Client{Net: "tcp", Timeout: dnsTime}
	if signed && u.Name != "" {
		key := dns.Fqdn(strings.ToLower(u.Name))
		c.TsigSecret = map[string]string{key: u.Secret}
		m.SetTsig(key, dns.Fqdn(u.Algorithm), signedWithin, time.Now().Unix())
	}
	r, _, err := c.ExchangeContext(ctx, m, u.Server)
	if err != nil && r != nil && r.Rcode == dns.RcodeNotAuth {
		return nil, fmt.Errorf("the server does not take what is signed with the key %q: its name, secret and algorithm (%s) must be those that the server has: %w", u.Name, u.Algorithm, err)
	}
	if err == nil && r == nil {
		err = errors.New("no answer")
	}
	return r, err
}
