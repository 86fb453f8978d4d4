package acme

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"proxyd/internal/cert"
)

// A pursuit takes one order to its end. Each step is kept before the next one is made, so that
// another node can go on wherever this one stops.
type pursuit struct {
	*Manager
	s  Settings
	ca *ca
	o  order
}

// errEnded is wrapped when the order is over and the next try begins with a new one.
var errEnded = errors.New("the order has failed")

// pursue goes on with o until its certificate is kept. It returns the challenge that was
// answered, "" if the CA asked for none.
func (m *Manager) pursue(ctx context.Context, s Settings, c *ca, o order) (challenge string, err error) {
	p := &pursuit{m, s, c, o}
	if err := p.open(ctx); err != nil {
		return p.o.Challenge, err
	}
	err = p.follow(ctx)
	return p.o.Challenge, err
}

// mostLooks is how often an order is looked at that stays as it is. The CA is left alone for a
// while then, and other orders have their turn.
const mostLooks = 180

// follow does what the order asks for, until it is over.
func (p *pursuit) follow(ctx context.Context) error {
	c := p.ca
	was := ""
	for looks := 1; ; looks++ {
		at, err := c.client.GetOrder(ctx, c.account, acme.Order{Location: p.o.URL})
		if problem := (acme.Problem{}); errors.As(err, &problem) && (problem.Status == 404 || problem.Status == 403 || problem.Type == acme.ProblemTypeMalformed) {
			return fmt.Errorf("%w: the CA knows it no more: %w", errEnded, err)
		} else if err != nil {
			return fmt.Errorf("order: %w", err)
		}
		at.Location = p.o.URL
		if at.Status != was {
			was, looks = at.Status, 1
		} else if looks > mostLooks {
			return fmt.Errorf("order: the CA does not come to an end with it: it is %s", at.Status)
		}
		switch at.Status {
		case acme.StatusPending:
			err = p.prove(ctx, at)
		case acme.StatusReady:
			err = p.finalize(ctx, at)
		case acme.StatusProcessing:
			err = pause(ctx, pollEvery)
		case acme.StatusValid:
			return p.collect(ctx, at)
		case acme.StatusInvalid:
			err = fmt.Errorf("%w: %w", errEnded, refusal(at.Error))
		default:
			err = fmt.Errorf("%w: the CA says that it is %q", errEnded, at.Status)
		}
		if err != nil {
			return err
		}
	}
}

// refusal is why the CA says no.
func refusal(p *acme.Problem) error {
	if p == nil {
		return errors.New("the CA does not say why")
	}
	return *p
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// open finds the order, or asks for one. That it is asked for is kept first: whoever finds
// that, and no URL, knows that there may be one.
func (p *pursuit) open(ctx context.Context) error {
	if p.o.URL != "" {
		return nil
	}
	if !p.o.Asked.IsZero() {
		if err := p.recover(ctx); err != nil || p.o.URL != "" {
			return err
		}
	}
	if p.o.Key == "" {
		key, err := newKey()
		if err != nil {
			return err
		}
		p.o.Key = key
	}
	p.o.Asked = p.now().UTC()
	if err := p.keep(ctx); err != nil {
		return err
	}
	url, err := p.ca.newOrder(ctx, p.o)
	if problem := (acme.Problem{}); errors.As(err, &problem) && p.o.Replaces != "" && (problem.Status == 409 || problem.Type == acme.ProblemTypeMalformed) {
		// Another order replaces that certificate already, or the CA does not know it (RFC 9773, 5).
		p.o.Replaces = ""
		url, err = p.ca.newOrder(ctx, p.o)
	}
	switch {
	case err == nil:
	case errors.Is(err, errUnknown) || ctx.Err() != nil:
		return err // it may have been made: what is kept says so
	default:
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	return p.found(ctx, url)
}

// recover looks for an order that was asked for, by this node or by one before it, and of
// which nobody heard. A request that is still on its way is waited for.
func (p *pursuit) recover(ctx context.Context) error {
	if left := p.o.Asked.Add(newOrderTime).Sub(p.now()); left > 0 {
		p.opt.Log.Info("acme: an order may be on its way; it is looked for when it must have come", "name", p.o.Name, "in", left.Round(time.Second))
		if err := pause(ctx, min(left, newOrderTime)); err != nil {
			return err
		}
	}
	url, err := p.ca.findOrder(ctx, p.o.Name)
	if err != nil || url == "" {
		return err
	}
	p.opt.Log.Info("acme: found the order that was asked for", "name", p.o.Name, "order", url)
	return p.found(ctx, url)
}

func (p *pursuit) found(ctx context.Context, url string) error {
	p.o.URL, p.o.Asked = url, time.Time{}
	return p.keep(ctx)
}

// keep keeps what the order has come to.
func (p *pursuit) keep(ctx context.Context) error {
	return p.put(ctx, orderPrefix+mark(p.o.Name), p.o)
}

// prove shows the CA that the names are ours.
func (p *pursuit) prove(ctx context.Context, at acme.Order) error {
	for _, url := range at.Authorizations {
		authz, err := p.ca.client.GetAuthorization(ctx, p.ca.account, url)
		if err != nil {
			return fmt.Errorf("authorization: %w", err)
		}
		if authz.Status != acme.StatusPending {
			continue // valid, from an earlier order; or the order says why not
		}
		if err := p.answer(ctx, authz); err != nil {
			return err
		}
	}
	// The order follows its authorizations, sooner or later.
	return pause(ctx, pollEvery/4)
}

// answer answers the challenge of an authorization and waits for what comes of it.
func (p *pursuit) answer(ctx context.Context, authz acme.Authorization) error {
	challenge, err := p.choose(authz.Challenges)
	if err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	host := strings.TrimPrefix(authz.IdentifierValue(), "*.")
	a := answer{Type: challenge.Type, Host: host, Token: challenge.Token, Value: challenge.KeyAuthorization}
	if a.Type == DNS01 {
		a.Made = true
	}
	p.o.Challenge = challenge.Type
	p.o = p.o.withAnswer(a)
	if err := p.keep(ctx); err != nil { // now every node answers
		return err
	}
	if a.Type == DNS01 {
		if err := p.s.DNS.Present(ctx, recordName(host), recordValue(a.Value)); err != nil {
			return fmt.Errorf("dns-01: record %s: %w", recordName(host), err)
		}
	}
	if challenge.Status == acme.StatusPending {
		if _, err := p.ca.client.InitiateChallenge(ctx, p.ca.account, challenge); err != nil {
			return fmt.Errorf("%s: %w", challenge.Type, err)
		}
	}
	within, cancel := context.WithTimeout(ctx, waitTime)
	done, err := p.ca.client.PollAuthorization(within, p.ca.account, authz)
	cancel()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if done.Status == acme.StatusPending || done.Status == "" { // it stands, only nobody heard
		return fmt.Errorf("%s: %w", challenge.Type, err)
	}
	p.o.Refused = challenge.Type
	for _, c := range done.Challenges {
		if c.Error != nil {
			return fmt.Errorf("%w: %s: %w", errEnded, c.Type, *c.Error)
		}
	}
	return fmt.Errorf("%w: %s: %w", errEnded, challenge.Type, err)
}

// recordName and recordValue are of the TXT record of dns-01 (RFC 8555, 8.4).
func recordName(host string) string { return "_acme-challenge." + host }

func recordValue(keyAuthorization string) string {
	sum := sha256.Sum256([]byte(keyAuthorization))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// choose returns the challenge that is answered.
func (p *pursuit) choose(offered []acme.Challenge) (acme.Challenge, error) {
	var kinds []string
	for _, c := range offered {
		kinds = append(kinds, c.Type)
	}
	for _, kind := range p.preferred() {
		if i := slices.Index(kinds, kind); i >= 0 {
			return offered[i], nil
		}
	}
	return acme.Challenge{}, fmt.Errorf("the CA offers %s, of which none can be answered here (acme.challenge is %q)", strings.Join(kinds, ", "), p.s.Challenge)
}

// preferred are the types of challenges that can be answered, the best first. With auto, the
// one that failed last comes last.
func (p *pursuit) preferred() []string {
	switch {
	case p.s.Challenge != "auto":
		return []string{p.s.Challenge}
	case p.s.DNS != nil:
		return []string{DNS01}
	case p.o.Refused == HTTP01 || !p.s.Clear && p.o.Refused != TLSALPN01:
		return []string{TLSALPN01, HTTP01}
	}
	return []string{HTTP01, TLSALPN01}
}

// finalize asks for the certificate. Asked for twice it is the same one.
func (p *pursuit) finalize(ctx context.Context, at acme.Order) error {
	if p.o.Key == "" {
		return fmt.Errorf("%w: its key is lost", errEnded)
	}
	csr, err := request(p.o.Name, p.o.Key)
	if err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	within, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	if _, err := p.ca.client.FinalizeOrder(within, p.ca.account, at, csr); err != nil {
		var problem acme.Problem
		if errors.As(err, &problem) && problem.Status >= 400 && problem.Status < 500 && problem.Status != 429 {
			return fmt.Errorf("%w: finalize: %w", errEnded, err)
		}
		return fmt.Errorf("finalize: %w", err)
	}
	return nil
}

// collect fetches the certificate and keeps it.
func (p *pursuit) collect(ctx context.Context, at acme.Order) error {
	chain, err := p.ca.chain(ctx, at.Certificate)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c := certified{Name: p.o.Name, Directory: p.o.Directory, Key: p.o.Key, Chain: chain, Since: p.now().UTC()}
	parsed, err := cert.Parse([]byte(c.Chain), []byte(c.Key))
	switch {
	case err != nil:
		return fmt.Errorf("%w: the CA sends what is of no use: %w", errEnded, err)
	case !slices.Contains(parsed.Names, c.Name):
		return fmt.Errorf("%w: the CA sends a certificate for %s", errEnded, strings.Join(parsed.Names, ", "))
	}
	if err := p.put(ctx, certPrefix+mark(c.Name), c); err != nil {
		return err
	}
	p.tidy(ctx)
	err = p.opt.Vault.Remove(ctx, orderPrefix+mark(c.Name))
	p.Refresh() // nothing is answered any more
	return err
}

// tidy takes back what was made in the DNS.
func (p *pursuit) tidy(ctx context.Context) {
	for i, a := range p.o.Answers {
		if !a.Made || p.s.DNS == nil {
			continue
		}
		if err := p.s.DNS.Remove(ctx, recordName(a.Host), recordValue(a.Value)); err != nil {
			p.opt.Log.Warn("acme: a TXT record stays in the DNS", "record", recordName(a.Host), "error", err)
			continue
		}
		p.o.Answers[i].Made = false
	}
}
