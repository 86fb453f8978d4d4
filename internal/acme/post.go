package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// What the library sends again by itself when a connection breaks must do no harm when it is
// done twice. A new order is not like that: asked for twice it is two. So new orders, and
// the look for one of which nobody heard, are asked for here.

// errUnknown is wrapped by an error after which it is not known whether the CA has done what
// it was asked for.
var errUnknown = errors.New("it is not known whether the CA has done it")

const (
	// maxReply bounds what is read of an answer.
	maxReply = 1 << 20
	// maxNonces is how often a nonce may be refused (RFC 8555, 6.5).
	maxNonces = 8
)

// post sends one signed request as the account. A nil payload is a POST-as-GET. Nothing is
// sent twice, except after the CA has refused the nonce, and so did nothing.
func (c *ca) post(ctx context.Context, url string, payload any) (http.Header, []byte, error) {
	for range maxNonces {
		nonce, err := c.nonce(ctx)
		if err != nil {
			return nil, nil, err
		}
		body, err := sign(c.key, c.account.Location, nonce, url, payload)
		if err != nil {
			return nil, nil, err
		}
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return nil, nil, err
		}
		q.GetBody = nil // else the transport sends it again by itself
		q.Header.Set("Content-Type", "application/jose+json")
		q.Header.Set("User-Agent", c.client.UserAgent)
		header, text, err := c.send(q)
		if p := (acme.Problem{}); errors.As(err, &p) && p.Type == acme.ProblemTypeBadNonce {
			continue
		}
		return header, text, err
	}
	return nil, nil, fmt.Errorf("%s: the CA refuses every nonce that it gives", url)
}

// send sends q and reads the answer.
func (c *ca) send(q *http.Request) (http.Header, []byte, error) {
	r, err := c.client.HTTPClient.Do(q)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (%w)", err, errUnknown)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, maxReply))
	switch {
	case err != nil && r.StatusCode < 300 && r.Header.Get("Location") == "":
		return nil, nil, fmt.Errorf("%s: %w (%w)", q.URL, err, errUnknown)
	case r.StatusCode < 300:
		return r.Header, text, nil
	}
	p := acme.Problem{}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(text, &p) == nil {
		p.Status = r.StatusCode
		return r.Header, nil, fmt.Errorf("%s: %w", q.URL, p)
	}
	err = fmt.Errorf("%s: HTTP %d", q.URL, r.StatusCode)
	if r.StatusCode >= 500 { // it may be the answer of something in between
		err = fmt.Errorf("%w (%w)", err, errUnknown)
	}
	return r.Header, nil, err
}

// nonce asks for a nonce (RFC 8555, 7.2).
func (c *ca) nonce(ctx context.Context) (string, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodHead, c.directory.NewNonce, nil)
	if err != nil {
		return "", err
	}
	r, err := c.client.HTTPClient.Do(q)
	if err != nil {
		return "", err
	}
	r.Body.Close()
	if n := r.Header.Get("Replay-Nonce"); n != "" {
		return n, nil
	}
	return "", fmt.Errorf("%s: HTTP %d without a nonce", q.URL, r.StatusCode)
}

// sign makes a flattened JWS (RFC 8555, 6.2) with ES256 (RFC 7518, 3.4).
func sign(key *ecdsa.PrivateKey, kid, nonce, url string, payload any) ([]byte, error) {
	head, err := json.Marshal(map[string]string{"alg": "ES256", "kid": kid, "nonce": nonce, "url": url})
	if err != nil {
		return nil, err
	}
	var body []byte
	if payload != nil {
		if body, err = json.Marshal(payload); err != nil {
			return nil, err
		}
	}
	enc := base64.RawURLEncoding.EncodeToString
	out := struct {
		Protected string `json:"protected"`
		Payload   string `json:"payload"`
		Signature string `json:"signature"`
	}{Protected: enc(head), Payload: enc(body)}
	sum := sha256.Sum256([]byte(out.Protected + "." + out.Payload))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return nil, err
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	out.Signature = enc(sig[:])
	return json.Marshal(out)
}

// newOrderTime bounds the request for a new order. After it a request of a node that died is
// not on its way any more.
const newOrderTime = 15 * time.Second

// newOrder asks for an order and returns its URL.
func (c *ca) newOrder(ctx context.Context, o order) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, newOrderTime)
	defer cancel()
	payload := struct {
		Identifiers []acme.Identifier `json:"identifiers"`
		Replaces    string            `json:"replaces,omitempty"`
	}{[]acme.Identifier{{Type: "dns", Value: o.Name}}, o.Replaces}
	header, _, err := c.post(ctx, c.directory.NewOrder, payload)
	if err != nil {
		return "", fmt.Errorf("new order: %w", err)
	}
	if url := header.Get("Location"); url != "" {
		return url, nil
	}
	return "", errors.New("new order: the CA made one and does not say where")
}

// chain fetches a certificate. The library asks for its renewal window and for other chains as
// well, and as long as the CA does not answer that there would be no certificate.
func (c *ca) chain(ctx context.Context, url string) (string, error) {
	header, text, err := c.post(ctx, url, nil)
	if err != nil {
		return "", err
	}
	if kind, _, _ := mime.ParseMediaType(header.Get("Content-Type")); kind != "application/pem-certificate-chain" {
		return "", fmt.Errorf("%s: the CA sends %q, not a chain of certificates", url, kind)
	}
	return string(text), nil
}

// maxListed bounds how many orders are looked at.
const maxListed = 100

var nextPage = regexp.MustCompile(`<([^>]+)>\s*;[^,]*rel="?next"?`)

// findOrder looks in the account's list of orders (RFC 8555, 7.1.2.1) for one for name that
// goes on. It returns "" if there is none, or the CA has no list.
func (c *ca) findOrder(ctx context.Context, name string) (string, error) {
	looked := 0
	for page := c.account.Orders; page != "" && looked < maxListed; {
		header, text, err := c.post(ctx, page, nil)
		if err != nil {
			return "", fmt.Errorf("list of orders: %w", err)
		}
		var list struct {
			Orders []string `json:"orders"`
		}
		if err := json.Unmarshal(text, &list); err != nil {
			return "", fmt.Errorf("list of orders: %w", err)
		}
		for _, url := range list.Orders {
			if looked++; looked > maxListed {
				break
			}
			o, err := c.client.GetOrder(ctx, c.account, acme.Order{Location: url})
			if err != nil {
				return "", fmt.Errorf("list of orders: %w", err)
			}
			if (o.Status == acme.StatusPending || o.Status == acme.StatusReady) && len(o.Identifiers) == 1 && o.Identifiers[0].Value == name {
				return url, nil
			}
		}
		page = ""
		for _, link := range header.Values("Link") {
			if m := nextPage.FindStringSubmatch(link); m != nil {
				page = m[1]
			}
		}
	}
	return "", nil
}
