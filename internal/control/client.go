package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
)

// A Client is an Operator on the other side of an admin socket. It is safe for
// concurrent use.
type Client struct {
	socket string
	http   http.Client
}

var _ Operator = (*Client)(nil)

// Dial returns a client of the admin socket at path. It connects at the first call.
func Dial(path string) *Client {
	c := &Client{socket: path}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}
	return c
}

// Status implements Operator, as do the methods below.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return call[*Status](ctx, c, "GET", "/v1/status", nil)
}

func (c *Client) Pools(ctx context.Context) ([]Pool, error) {
	return call[[]Pool](ctx, c, "GET", "/v1/pools", nil)
}

func (c *Client) Certificates(ctx context.Context) ([]Certificate, error) {
	return call[[]Certificate](ctx, c, "GET", "/v1/certificates", nil)
}

func (c *Client) Config(ctx context.Context) (string, error) {
	body, err := c.do(ctx, "GET", "/v1/config", nil)
	return string(body), err
}

func (c *Client) Reload(ctx context.Context) (*Reload, error) {
	return call[*Reload](ctx, c, "POST", "/v1/reload", nil)
}

func (c *Client) Diff(ctx context.Context, f File) (*Reload, error) {
	return call[*Reload](ctx, c, "POST", "/v1/diff", f)
}

func (c *Client) Apply(ctx context.Context, a Apply) (*Applied, error) {
	return call[*Applied](ctx, c, "POST", "/v1/apply", a)
}

func (c *Client) Rollback(ctx context.Context, w Rollback) (*Applied, error) {
	return call[*Applied](ctx, c, "POST", "/v1/rollback", w)
}

func (c *Client) Member(ctx context.Context, w MemberWish) (*Applied, error) {
	return call[*Applied](ctx, c, "POST", "/v1/member", w)
}

func (c *Client) Keys(ctx context.Context) (*Keys, error) {
	return call[*Keys](ctx, c, "GET", "/v1/keys", nil)
}

// RenewCertificate implements Operator.
func (c *Client) RenewCertificate(ctx context.Context, w CertificateWish) (*CertificateRenewal, error) {
	return call[*CertificateRenewal](ctx, c, "POST", "/v1/certificates/renew", w)
}

func (c *Client) RotateKeys(ctx context.Context, w KeysWish) (*KeysRotated, error) {
	return call[*KeysRotated](ctx, c, "POST", "/v1/keys/rotate", w)
}

func (c *Client) Backup(ctx context.Context) (*Backup, error) {
	return call[*Backup](ctx, c, "GET", "/v1/backup", nil)
}

func (c *Client) Generations(ctx context.Context) ([]Generation, error) {
	return call[[]Generation](ctx, c, "GET", "/v1/generations", nil)
}

func (c *Client) Edit(ctx context.Context, e Edit) (*Reload, error) {
	return call[*Reload](ctx, c, "POST", "/v1/changes", e)
}

func (c *Client) Changes(ctx context.Context) (string, error) {
	body, err := c.do(ctx, "GET", "/v1/changes", nil)
	return string(body), err
}

func (c *Client) Failover(ctx context.Context, f Failover) (*FailoverResult, error) {
	return call[*FailoverResult](ctx, c, "POST", "/v1/failover", f)
}

func (c *Client) SteerServer(ctx context.Context, w ServerWish) (*Steered, error) {
	return call[*Steered](ctx, c, "POST", "/v1/server", w)
}

func (c *Client) SteerRoute(ctx context.Context, w RouteWish) (*Steered, error) {
	return call[*Steered](ctx, c, "POST", "/v1/route", w)
}

func (c *Client) SteerNode(ctx context.Context, w NodeWish) (*NodeSteered, error) {
	return call[*NodeSteered](ctx, c, "POST", "/v1/node", w)
}

func (c *Client) Pause(ctx context.Context, w PauseWish) (*Standing, error) {
	return call[*Standing](ctx, c, "POST", "/v1/pause", w)
}

func (c *Client) Explain(ctx context.Context, q Question) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, "POST", "/v1/explain", q)
}

func (c *Client) Version(ctx context.Context) (*Version, error) {
	return call[*Version](ctx, c, "GET", "/v1/version", nil)
}

func (c *Client) Upgrade(ctx context.Context, u Upgrade) (*Upgraded, error) {
	return call[*Upgraded](ctx, c, "POST", "/v1/upgrade", u)
}

// Metrics returns the metrics page.
func (c *Client) Metrics(ctx context.Context) (string, error) {
	body, err := c.do(ctx, "GET", "/metrics", nil)
	return string(body), err
}

func call[Out any](ctx context.Context, c *Client, method, path string, in any) (Out, error) {
	var out Out
	body, err := c.do(ctx, method, path, in)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return out, fmt.Errorf("answer of %s to %s: %w", c.socket, path, err)
	}
	return out, nil
}

// unreached says why there was no answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &Error{fmt.Sprintf("broken off: what was asked of proxyd at %s may be done all the same", c.socket), context.Canceled}
	case ctx.Err() != nil:
		return TimedOut(fmt.Sprintf("proxyd at %s: no answer in time", c.socket))
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("it ended before it answered")
	}
	if errors.Is(err, fs.ErrPermission) { // it may well be there
		return fmt.Errorf("proxyd at %s: %w", c.socket, err)
	}
	return &Error{fmt.Sprintf("proxyd at %s: %v", c.socket, err), ErrAbsent}
}

func (c *Client) do(ctx context.Context, method, path string, in any) ([]byte, error) {
	var send io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, send)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("answer of %s to %s: %w", c.socket, path, err)
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	var f failure
	if err := json.Unmarshal(body, &f); err != nil {
		return nil, fmt.Errorf("proxyd at %s answered %s to %s", c.socket, resp.Status, path)
	}
	for _, k := range kinds {
		if k.word == f.Kind {
			return nil, &Error{f.Error, k.err}
		}
	}
	return nil, errors.New(f.Error)
}
