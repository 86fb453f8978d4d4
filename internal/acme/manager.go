package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"proxyd/internal/cert"
)

// Options are what a Manager needs of the world.
type Options struct {
	Vault   *Vault
	Log     *slog.Logger
	Version string
	Now     func() time.Time // nil: time.Now
	// Duty says whether this node orders now. Two nodes must not be told so at once.
	Duty func(ctx context.Context) bool
	// Publish takes what is served from now on. It does not block.
	Publish func(Served)
	// Note is told what came of an order here. It does not block.
	Note func(Event)
	// Transport carries what is said to the CA; nil: the network.
	Transport http.RoundTripper
}

// Served is what a node serves clients with, and answers the CA.
type Served struct {
	Certificates []*cert.Certificate
	Pending      map[string]bool             // names that have no certificate yet
	Tokens       map[string][]byte           // http-01: by token
	Handshakes   map[string]*tls.Certificate // tls-alpn-01: by name
}

// A Manager sees to it that every name has a certificate. Make one with New, give it Settings
// with Use, then Run it. Its methods are safe for concurrent use.
type Manager struct {
	opt      Options
	wake     chan struct{} // has one value when there is something to look at
	entering sync.Mutex    // one at a time makes the account
	showing  sync.Mutex    // one at a time reads the records and publishes what they say

	mu       sync.Mutex // guards what follows
	settings Settings
	running  map[string]context.CancelFunc // what is under way here, by name: who is in it alone changes records of that name
	asked    map[string]time.Time          // when the CA is next asked for a renewal window
	said     map[string]bool               // what is logged once
	unkept   map[string]order              // orders that failed where that could not be kept, by name
	quiet    map[string]time.Time          // until when a CA wants to be left alone, by directory
	served   Served
	shown    map[string]string          // what each part of served was made of
	alpn     map[string]tls.Certificate // by name and value
	parsed   map[string]parsed          // by name
	orders   sync.WaitGroup
}

const (
	// maxOrders is how many orders are under way at once.
	maxOrders = 4
	// maxWindows is how many there may be for the CA to be asked for a renewal window as well: it
	// may not answer, and orders are not to wait for that.
	maxWindows = maxOrders / 2
)

const (
	// lookEvery is how often it is looked whether this node has the duty.
	lookEvery = time.Second
	// readEvery is how often all records are read to see what is due, if nothing calls for it.
	readEvery = 5 * time.Second
)

// New returns a Manager without names.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{opt: o, wake: make(chan struct{}, 1), running: map[string]context.CancelFunc{}, asked: map[string]time.Time{},
		said: map[string]bool{}, unkept: map[string]order{}, quiet: map[string]time.Time{}, shown: map[string]string{}, alpn: map[string]tls.Certificate{}, parsed: map[string]parsed{}}
}

func (m *Manager) now() time.Time { return m.opt.Now() }

// Use puts other settings in force.
func (m *Manager) Use(s Settings) {
	m.mu.Lock()
	m.settings = s
	for name, stop := range m.running {
		if !slices.Contains(s.Names, name) {
			stop()
		}
	}
	m.mu.Unlock()
	m.Look()
}

// Look has the records looked at now: some have changed.
func (m *Manager) Look() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *Manager) using() Settings {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settings
}

// Run orders and renews while this node has the duty, and publishes what any node has got,
// until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer m.orders.Wait()
	had, read := false, time.Time{}
	for woken := true; ; {
		s := m.using()
		here := len(s.Names) > 0 && m.opt.Duty(ctx)
		if !here {
			m.stop()
		}
		if woken || here != had || time.Since(read) >= readEvery {
			b := m.Refresh()
			if here {
				m.work(ctx, s, b)
			}
			had, read = here, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
			woken = true
		case <-tick.C:
			woken = false
		}
	}
}

// stop ends the orders under way here: another node goes on with them.
func (m *Manager) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, end := range m.running {
		end()
	}
}

// once reports whether something has not been said yet.
func (m *Manager) once(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.said[what]
	m.said[what] = true
	return !was
}

// put keeps a record. When it returns, this node serves by it, and so does every other that
// can be reached.
func (m *Manager) put(ctx context.Context, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := m.opt.Vault.Put(ctx, key, text, expires(key, text)); err != nil {
		return err
	}
	m.Refresh()
	return nil
}

// Refresh publishes what the records say now.
func (m *Manager) Refresh() book {
	m.showing.Lock()
	defer m.showing.Unlock()
	b := readBook(m.opt.Vault)
	m.publish(b)
	return b
}

// work does what is due.
func (m *Manager) work(ctx context.Context, s Settings, b book) {
	if err := m.opt.Vault.Reseal(ctx, expires); err != nil {
		m.opt.Log.Warn("acme: seal records anew", "error", err)
	}
	for _, key := range b.shut {
		if m.once("shut " + key) {
			m.opt.Log.Error("acme: a record is sealed with a secret that this node has not; what it held is ordered anew", "record", key)
		}
	}
	var rest []certified
	for _, name := range s.Names {
		if _, _, ok := m.due(s, b, name); ok {
			m.begin(ctx, s, name)
		} else if c, has := b.certs[name]; has {
			rest = append(rest, c)
		}
	}
	for _, c := range rest { // which is not urgent
		m.askWindow(ctx, s, c)
	}
}

// due returns the order that name needs now, whether there is a certificate to renew, and
// whether it needs one.
func (m *Manager) due(s Settings, b book, name string) (o order, renewal, ok bool) {
	o = m.orderOf(s, b, name)
	c, renewal := b.certs[name]
	renewal = renewal && m.usable(c)
	under, now := o.URL != "" || !o.Asked.IsZero(), m.now()
	switch {
	case now.Before(o.Next):
		return o, renewal, false
	case under, !renewal:
		return o, renewal, true
	case c.Directory == s.Directory && !c.Forced && now.Before(m.renewAt(c)):
		return o, renewal, false
	}
	if c.Directory == s.Directory {
		o.Replaces = replaces(c)
	}
	return o, renewal, true
}

// orderOf returns how the order for name stands.
func (m *Manager) orderOf(s Settings, b book, name string) order {
	o, kept := b.orders[name]
	if !kept || o.Directory != s.Directory { // or of another CA
		o = order{Name: name, Directory: s.Directory}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if u, ok := m.unkept[name]; ok && u.Directory == s.Directory {
		o.Failures, o.Error, o.Refused, o.Next = u.Failures, u.Error, u.Refused, u.Next
	}
	return o
}

// usable reports whether clients can be served with a record.
func (m *Manager) usable(c certified) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.parse(c)
	return err == nil
}

// claim has nobody else change the records of name until it is given back; it reports whether
// nobody does already. id is what it is claimed by: name, or what is no order. m.mu is held.
func (m *Manager) claim(id string, stop context.CancelFunc) bool {
	if m.running[id] != nil {
		return false
	}
	m.running[id] = stop
	return true
}

func (m *Manager) giveBack(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running[id]()
	delete(m.running, id)
}

// begin starts or resumes an order, unless it is under way or too many are.
func (m *Manager) begin(ctx context.Context, s Settings, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.running) >= maxOrders || m.now().Before(m.quiet[s.Directory]) {
		return
	}
	life, end := context.WithCancel(ctx)
	if !m.claim(name, end) {
		end()
		return
	}
	m.orders.Go(func() { // ends with the order, or with life
		defer m.Look()
		defer m.giveBack(name)
		// An order that ended a moment ago has kept what it came to by now.
		if o, renewal, ok := m.due(s, readBook(m.opt.Vault), name); ok {
			m.order(life, s, o, renewal)
		}
	})
}

// order takes one order to its end, or notes why it did not come to it.
func (m *Manager) order(ctx context.Context, s Settings, o order, renewal bool) {
	if o.URL != "" || !o.Asked.IsZero() {
		m.opt.Log.Info("acme: an order goes on", "name", o.Name, "order", o.URL)
	} else {
		m.opt.Log.Info("acme: a certificate is ordered", "name", o.Name, "directory", s.Directory, "renewal", renewal)
	}
	client, patience := m.client(s)
	defer client.HTTPClient.CloseIdleConnections()
	c, err := m.enter(ctx, s, client)
	challenge := o.Challenge
	if err == nil {
		challenge, err = m.pursue(ctx, s, c, o)
	}
	if ctx.Err() != nil {
		return // another node goes on, or this one when it is back
	}
	until, all := patience.take()
	m.mu.Lock()
	if all.After(m.quiet[s.Directory]) {
		m.quiet[s.Directory] = all
	}
	if err == nil {
		delete(m.unkept, o.Name)
	}
	m.mu.Unlock()
	b := readBook(m.opt.Vault)
	e := Event{Name: o.Name, Issued: err == nil, Renewal: renewal, Issuer: hostOf(s.Directory), Challenge: usedChallenge(s, challenge)}
	if err == nil {
		end := ""
		if leaf, bad := leafOf(b.certs[o.Name].Chain); bad == nil {
			end = leaf.NotAfter.UTC().Format(time.RFC3339)
		}
		e.Text = "until " + end
		m.opt.Log.Info("acme: certificate issued", "name", o.Name, "until", end)
		m.opt.Note(e)
		return
	}
	o = m.failed(ctx, s, o, b, err, until)
	e.Text, e.Failures = o.Error, o.Failures
	level := slog.LevelWarn
	if !renewal {
		level = slog.LevelError
	}
	m.opt.Log.Log(ctx, level, "acme: no certificate yet", "name", o.Name, "failures", o.Failures, "next_try", o.Next.Format(time.RFC3339), "error", o.Error,
		"served", map[bool]string{true: "the certificate before", false: "http alone"}[renewal])
	m.opt.Note(e)
}

// failed keeps that an order failed, and until when to wait. Where that cannot be kept it is
// remembered here, so that the CA is not asked without end.
func (m *Manager) failed(ctx context.Context, s Settings, was order, b book, err error, until time.Time) order {
	o := m.orderOf(s, b, was.Name)
	o.Failures++
	o.Error = describe(err)
	var problem acme.Problem
	answered := errors.As(err, &problem) && problem.Status < 500 // else it has a fault, and judges nothing
	lost := unknownAccount(err)
	if lost {
		if err := m.enterAnew(ctx, s); err != nil {
			m.opt.Log.Warn("acme", "error", err)
		}
	}
	if lost || errors.Is(err, errEnded) {
		p := &pursuit{m, s, nil, o}
		p.tidy(ctx)
		if o.Answers != nil && o.Challenge != "" {
			o.Refused = o.Challenge
		}
		o.URL, o.Asked, o.Key, o.Answers = "", time.Time{}, "", nil
	}
	o.Next = m.now().Add(backOff(o.Failures, answered, o.Name)).UTC()
	if until.After(o.Next) {
		o.Next = until.UTC()
	}
	kept := m.put(ctx, orderPrefix+mark(o.Name), o)
	if kept != nil {
		m.opt.Log.Warn("acme", "error", kept)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if kept == nil {
		delete(m.unkept, o.Name)
	} else {
		m.unkept[o.Name] = o
	}
	return o
}

// usedChallenge is how the CA was shown that a name is ours, or would have been: it may have
// known it already, or not come to ask.
func usedChallenge(s Settings, answered string) string {
	if answered != "" {
		return answered
	}
	return (&pursuit{s: s}).preferred()[0]
}

// describe is what an operator is told of an error.
func describe(err error) string {
	const most = 600
	text := err.Error()
	if len(text) > most {
		text = text[:most] + " ..."
	}
	return text
}

// Renew has a certificate ordered now, whatever it has left and however often it failed. One
// that is on its way already is not ordered again.
func (m *Manager) Renew(ctx context.Context, name string) error {
	s := m.using()
	if !slices.Contains(s.Names, name) {
		return fmt.Errorf("%s is not a name that has its certificate by ACME; there are %v", name, s.Names)
	}
	m.mu.Lock()
	ours := m.claim(name, func() {})
	delete(m.unkept, name)
	delete(m.quiet, s.Directory)
	m.mu.Unlock()
	if !ours {
		return nil
	}
	defer m.Look()
	defer m.giveBack(name)
	b := readBook(m.opt.Vault)
	if o, ok := b.orders[name]; ok && !o.Next.IsZero() {
		o.Next = time.Time{}
		if err := m.put(ctx, orderPrefix+mark(name), o); err != nil {
			return err
		}
	}
	if c, ok := b.certs[name]; ok && !c.Forced {
		c.Forced = true
		if err := m.put(ctx, certPrefix+mark(name), c); err != nil {
			return err
		}
	}
	return nil
}

// Names returns the names that have a certificate by ACME.
func (m *Manager) Names() []string { return m.using().Names }

// Views returns how each name stands, in the order of the settings.
func (m *Manager) Views() []View {
	s, b := m.using(), readBook(m.opt.Vault)
	var all []View
	for _, name := range s.Names {
		v := View{Name: name, Directory: s.Directory}
		if c, ok := b.certs[name]; ok && m.usable(c) {
			if leaf, err := leafOf(c.Chain); err == nil {
				v.NotAfter, v.Renew = leaf.NotAfter, m.renewAt(c)
			}
		}
		o := m.orderOf(s, b, name)
		v.Ordering = o.URL != "" || !o.Asked.IsZero()
		v.Failures, v.Error = o.Failures, o.Error
		if o.Failures > 0 {
			v.Next = o.Next
		}
		all = append(all, v)
	}
	return all
}

// publish makes what is served of the records, where they have changed. m.showing is held.
func (m *Manager) publish(b book) {
	s := m.using()
	next := Served{Pending: map[string]bool{}, Tokens: map[string][]byte{}, Handshakes: map[string]*tls.Certificate{}}
	m.mu.Lock()
	defer m.mu.Unlock()
	shown := map[string]string{}
	for _, name := range s.Names {
		c, ok := b.certs[name]
		if !ok {
			next.Pending[name] = true
			shown["pending "+name] = ""
			continue
		}
		parsed, err := m.parse(c)
		if err != nil {
			if what := "useless " + name + " " + mark(c.Chain+c.Key); !m.said[what] {
				m.said[what] = true
				m.opt.Log.Error("acme: a kept certificate is of no use, and is ordered anew", "name", name, "error", err)
			}
			next.Pending[name] = true
			shown["pending "+name] = ""
			continue
		}
		next.Certificates = append(next.Certificates, parsed)
		shown["cert "+name] = parsed.Serial
	}
	for _, o := range b.orders {
		for _, a := range o.Answers {
			shown[a.Type+" "+a.Host+" "+a.Token] = a.Value
			switch a.Type {
			case HTTP01:
				next.Tokens[a.Token] = []byte(a.Value)
			case TLSALPN01:
				if c, err := m.handshake(a); err == nil {
					next.Handshakes[a.Host] = c
				}
			}
		}
	}
	same := len(shown) == len(m.shown)
	for k, v := range shown {
		if was, ok := m.shown[k]; !ok || was != v {
			same = false
		}
	}
	if same && m.served.Pending != nil {
		return
	}
	m.shown, m.served = shown, next
	m.opt.Publish(next)
}

// A parsed certificate is kept with the text that it was made of.
type parsed struct {
	chain string
	cert  *cert.Certificate
}

// parse returns the certificate of a record. m.mu is held.
func (m *Manager) parse(c certified) (*cert.Certificate, error) {
	if p, ok := m.parsed[c.Name]; ok && p.chain == c.Chain {
		return p.cert, nil
	}
	made, err := cert.Parse([]byte(c.Chain), []byte(c.Key))
	if err != nil {
		return nil, err
	}
	m.parsed[c.Name] = parsed{c.Chain, made}
	return made, nil
}

// handshake returns the certificate that answers tls-alpn-01 (RFC 8737). m.mu is held.
func (m *Manager) handshake(a answer) (*tls.Certificate, error) {
	id := a.Host + " " + a.Value
	if c, ok := m.alpn[id]; ok {
		return &c, nil
	}
	c, err := acmez.TLSALPN01ChallengeCert(acme.Challenge{Identifier: acme.Identifier{Type: "dns", Value: a.Host}, KeyAuthorization: a.Value})
	if err != nil {
		return nil, err
	}
	clear(m.alpn) // those before are over, or are made again
	m.alpn[id] = *c
	return c, nil
}
