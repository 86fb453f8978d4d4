package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// An office is a CA in memory that believes everybody: no challenge is asked for. It is a
// transport, so that the time may be that of a bubble.
type office struct {
	t         *testing.T
	directory string
	life      time.Duration // of its certificates

	mu       sync.Mutex
	root     *x509.Certificate
	key      *ecdsa.PrivateKey
	accounts map[string]string // URL by key
	orders   map[string]*officeOrder
	made     []officeOrder // in the order in which they were asked for
	requests int
	windows  int // how often one was asked for
	stuck    bool
	later    string       // Retry-After of what is stuck
	window   [2]time.Time // zero: there is no ARI
	again    string       // Retry-After beside it
	before   func(*http.Request) (*http.Response, error)
}

type officeOrder struct {
	name, replaces string
	at             time.Time
	status         string
	chain          []byte
}

func newOffice(t *testing.T, life time.Duration) *office {
	t.Helper()
	o := &office{t: t, life: life, accounts: map[string]string{}, orders: map[string]*officeOrder{}}
	// The library remembers directories by their URL, for all tests.
	o.directory = fmt.Sprintf("https://ca.example/%x/dir", t.Name())
	var err error
	if o.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Office"}, SubjectKeyId: []byte{1, 2, 3}, NotBefore: time.Now(), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, form, form, o.key.Public(), o.key)
	if err != nil {
		t.Fatal(err)
	}
	if o.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return o
}

// asks has f asked about every request; it answers it, or says nil for the office to do so.
func (o *office) asks(f func(*http.Request) (*http.Response, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before = f
}

// asked returns the orders that were asked for, and how many requests there were.
func (o *office) asked() ([]officeOrder, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]officeOrder(nil), o.made...), o.requests
}

// says is an answer.
func says(status int, kind, body string, fields ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}, "Replay-Nonce": {"once"}}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	return r
}

func problem(status int, kind string, fields ...string) *http.Response {
	return says(status, "application/problem+json", fmt.Sprintf(`{"type":"urn:ietf:params:acme:error:%s","detail":"no","status":%d}`, kind, status), fields...)
}

func (o *office) RoundTrip(q *http.Request) (*http.Response, error) {
	o.mu.Lock()
	o.requests++
	before := o.before
	o.mu.Unlock()
	if before != nil {
		if r, err := before(q); r != nil || err != nil {
			return r, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.answer(q)
	r.Request = q
	return r, nil
}

// answer does what is asked for. o.mu is held.
func (o *office) answer(q *http.Request) *http.Response {
	at := func(path string) string { return strings.TrimSuffix(o.directory, "dir") + path }
	what := strings.TrimPrefix(q.URL.String(), at(""))
	what, id, _ := strings.Cut(what, "/")
	head, payload := o.opened(q)
	if by, ok := head["kid"].(string); ok && !o.knows(by) {
		return problem(400, "accountDoesNotExist")
	}
	order := o.orders[id]
	if id != "" && order == nil && what != "ari" {
		return problem(404, "malformed")
	}
	switch what {
	case "dir":
		d := map[string]string{"newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("new"), "revokeCert": at("revoke"), "keyChange": at("change")}
		if !o.window[0].IsZero() {
			d["renewalInfo"] = at("ari")
		}
		text, _ := json.Marshal(d)
		return says(200, "application/json", string(text))
	case "nonce":
		return says(200, "", "")
	case "account":
		key, _ := json.Marshal(head["jwk"])
		if o.accounts[string(key)] == "" {
			o.accounts[string(key)] = at(fmt.Sprintf("accounts-%d", len(o.accounts)))
		}
		return says(201, "application/json", `{"status":"valid"}`, "Location", o.accounts[string(key)])
	case "new":
		x := &officeOrder{status: "ready", at: time.Now()}
		x.replaces, _ = payload["replaces"].(string)
		if all, ok := payload["identifiers"].([]any); ok && len(all) == 1 {
			x.name, _ = all[0].(map[string]any)["value"].(string)
		}
		id = fmt.Sprint(len(o.made) + 1)
		o.made = append(o.made, *x)
		o.orders[id] = x
		return says(201, "application/json", o.text(at, id, x), "Location", at("order/"+id))
	case "finalize":
		der, _ := base64.RawURLEncoding.DecodeString(fmt.Sprint(payload["csr"]))
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil {
			return problem(400, "badCSR")
		}
		x := &x509.Certificate{SerialNumber: big.NewInt(int64(100 + len(o.made))), DNSNames: csr.DNSNames, NotBefore: time.Now(), NotAfter: time.Now().Add(o.life)}
		if der, err = x509.CreateCertificate(rand.Reader, x, o.root, csr.PublicKey, o.key); err != nil {
			return problem(500, "serverInternal")
		}
		order.chain, order.status = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "valid"
		if o.stuck {
			order.status = "processing"
		}
		return says(200, "application/json", o.text(at, id, order), "Location", at("order/"+id), "Retry-After", o.later)
	case "order":
		if order.status == "processing" && !o.stuck {
			order.status = "valid"
		}
		return says(200, "application/json", o.text(at, id, order), "Retry-After", o.later)
	case "cert":
		return says(200, "application/pem-certificate-chain", string(order.chain))
	case "ari":
		o.windows++
		text, _ := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": o.window[0], "end": o.window[1]}})
		return says(200, "application/json", string(text), "Retry-After", o.again)
	}
	return problem(404, "malformed")
}

func (o *office) text(at func(string) string, id string, x *officeOrder) string {
	return fmt.Sprintf(`{"status":%q,"identifiers":[{"type":"dns","value":%q}],"authorizations":[],"finalize":%q,"certificate":%q}`, x.status, x.name, at("finalize/"+id), at("cert/"+id))
}

func (o *office) knows(account string) bool {
	for _, url := range o.accounts {
		if url == account {
			return true
		}
	}
	return false
}

// opened returns the two parts of what is signed in a request.
func (o *office) opened(q *http.Request) (head, payload map[string]any) {
	if q.Body == nil {
		return nil, nil
	}
	var signed struct{ Protected, Payload string }
	if json.NewDecoder(q.Body).Decode(&signed) != nil {
		return nil, nil
	}
	for into, text := range map[*map[string]any]string{&head: signed.Protected, &payload: signed.Payload} {
		plain, _ := base64.RawURLEncoding.DecodeString(text)
		_ = json.Unmarshal(plain, into)
	}
	return head, payload
}

// A till is a Manager before an office, with what it serves.
type till struct {
	*Manager
	web *web
	log *syncLog
	end func()
}

type syncLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncLog) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// openTill runs a Manager with the duty in a bubble, until end is called.
func openTill(o *office, shelf Shelf, now func() time.Time, names ...string) *till {
	t := &till{web: &web{}, log: &syncLog{}}
	t.Manager = New(Options{Vault: NewVault(shelf, func() []string { return []string{"a secret"} }), Log: slog.New(slog.NewTextHandler(t.log, nil)), Now: now,
		Duty: func(context.Context) bool { return true }, Publish: t.web.publish, Note: t.web.note, Transport: o})
	t.Use(Settings{Names: names, Email: "ops@example.com", Directory: o.directory, Challenge: HTTP01, Clear: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		t.Run(ctx)
	}()
	t.end = func() {
		cancel()
		<-done
	}
	return t
}

// serials are of the certificates that are served.
func (t *till) serials() (all []string) {
	t.web.mu.Lock()
	defer t.web.mu.Unlock()
	for _, c := range t.web.served.Certificates {
		all = append(all, c.Serial)
	}
	return all
}

// failures returns how many orders failed, by what was told of them.
func (t *till) failures() (n int) {
	t.web.mu.Lock()
	defer t.web.mu.Unlock()
	for _, e := range t.web.events {
		if !e.Issued {
			n++
		}
	}
	return n
}

var errRefused = errors.New("connection refused")
