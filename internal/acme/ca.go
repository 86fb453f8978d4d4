package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// A ca is the CA as an account sees it.
type ca struct {
	client    *acme.Client
	directory acme.Directory
	account   acme.Account
	key       *ecdsa.PrivateKey // of the account
}

const (
	// pollEvery is how often the CA is asked how something stands, unless it says when.
	pollEvery = time.Second
	// pollTime is for how long.
	pollTime = 3 * time.Minute
	// waitTime is for how long whatever the CA says: it may say a day, and other orders wait.
	waitTime = pollTime + time.Minute
	// replyTime bounds one request to the CA, until the head of its answer.
	replyTime = time.Minute
)

// A patience notes until when a CA wants to be left alone: of its Retry-After at 429 (RFC 8555,
// 6.6), and where the CA itself has a fault. It is a transport, for the library does not say.
type patience struct {
	http.RoundTripper
	now func() time.Time

	mu    sync.Mutex
	until time.Time
	all   time.Time // likewise, whatever is asked for: it is the CA that cannot, not this order
}

// maxPatience bounds what is believed of a CA.
const maxPatience = 7 * 24 * time.Hour

func (p *patience) RoundTrip(q *http.Request) (*http.Response, error) {
	r, err := p.RoundTripper.RoundTrip(q)
	if err != nil || r.StatusCode != http.StatusTooManyRequests && r.StatusCode < 500 {
		return r, err
	}
	now := p.now()
	var until time.Time
	text := r.Header.Get("Retry-After")
	if n, bad := strconv.Atoi(text); bad == nil && n > 0 {
		until = now.Add(time.Duration(min(n, int(maxPatience/time.Second))) * time.Second)
	} else if at, bad := http.ParseTime(text); bad == nil {
		until = at
	}
	if most := now.Add(maxPatience); until.After(most) {
		until = most
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until.After(p.until) {
		p.until = until
	}
	if r.StatusCode >= 500 && until.After(p.all) {
		p.all = until
	}
	return r, nil
}

// take returns until when the CA wants to be left alone with what was asked for, and with
// everything, once.
func (p *patience) take() (until, all time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, all = p.until, p.all
	p.until, p.all = time.Time{}, time.Time{}
	return until, all
}

// client makes what speaks with the CA of s.
func (m *Manager) client(s Settings) (*acme.Client, *patience) {
	by := m.opt.Transport
	if by == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = &tls.Config{RootCAs: s.Roots, MinVersion: tls.VersionTLS12}
		t.ResponseHeaderTimeout = replyTime
		t.MaxIdleConnsPerHost = 1
		t.IdleConnTimeout = 10 * time.Second
		by = t
	}
	p := &patience{RoundTripper: by, now: m.now}
	return &acme.Client{
		Directory: s.Directory, HTTPClient: &http.Client{Transport: p, Timeout: 2 * replyTime},
		UserAgent: "proxyd/" + m.opt.Version, PollInterval: pollEvery, PollTimeout: pollTime,
	}, p
}

// enter comes to the CA with the cluster's account there, which it makes if there is none.
func (m *Manager) enter(ctx context.Context, s Settings, client *acme.Client) (*ca, error) {
	m.entering.Lock() // of several orders at once one makes the account
	defer m.entering.Unlock()
	dir, err := client.GetDirectory(ctx)
	if err != nil {
		return nil, fmt.Errorf("directory of the CA: %w", err)
	}
	a := readBook(m.opt.Vault).accounts[s.Directory]
	if a.Key == "" {
		if a.Key, err = newKey(); err != nil {
			return nil, err
		}
		a.Directory = s.Directory
		if err := m.put(ctx, accountPrefix+mark(s.Directory), a); err != nil {
			return nil, err
		}
	}
	key, err := parseKey(a.Key)
	if err != nil {
		return nil, err
	}
	c := &ca{client: client, directory: dir, key: key}
	c.account = acme.Account{PrivateKey: key, Location: a.URL, Orders: a.Orders, Contact: []string{"mailto:" + s.Email}, TermsOfServiceAgreed: true}
	if a.URL != "" && a.Email == s.Email {
		return c, nil
	}
	if a.URL == "" {
		err = c.register(ctx, s)
	} else {
		var updated acme.Account
		if updated, err = client.UpdateAccount(ctx, acme.Account{PrivateKey: key, Location: a.URL, Contact: c.account.Contact}); err == nil {
			err = valid(updated)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("account at the CA: %w", err)
	}
	a.URL, a.Orders, a.Email = c.account.Location, c.account.Orders, s.Email
	return c, m.put(ctx, accountPrefix+mark(s.Directory), a)
}

// register makes the account, or finds the one that goes with the key (RFC 8555, 7.3).
func (c *ca) register(ctx context.Context, s Settings) error {
	if s.EABID != "" {
		if err := c.account.SetExternalAccountBinding(ctx, c.client, acme.EAB{KeyID: s.EABID, MACKey: s.EABKey}); err != nil {
			return err
		}
	} else if m := c.directory.Meta; m != nil && m.ExternalAccountRequired {
		return errors.New("this CA wants an account of its own beside that of ACME: give acme.eab")
	}
	made, err := c.client.NewAccount(ctx, c.account)
	if err != nil {
		return err
	}
	made.PrivateKey = c.key
	c.account = made
	return valid(made)
}

// unknownAccount reports whether the CA knows the account no more: it has lost what it had.
func unknownAccount(err error) bool {
	var p acme.Problem
	return errors.As(err, &p) && p.Type == acme.ProblemTypeAccountDoesNotExist
}

// enterAnew has the account made anew at the next order, of the same key.
func (m *Manager) enterAnew(ctx context.Context, s Settings) error {
	m.entering.Lock()
	defer m.entering.Unlock()
	a, ok := readBook(m.opt.Vault).accounts[s.Directory]
	if !ok || a.URL == "" {
		return nil
	}
	a.URL, a.Orders = "", ""
	return m.put(ctx, accountPrefix+mark(s.Directory), a)
}

func valid(a acme.Account) error {
	if a.Status != "" && a.Status != acme.StatusValid {
		return fmt.Errorf("the CA says that it is %s", a.Status)
	}
	return nil
}
