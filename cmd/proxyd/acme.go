package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/acme"
	"proxyd/internal/config"
	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/doctor"
	"proxyd/internal/history"
)

// certifier is this node's part in certificates that the cluster gets by itself.
type certifier struct {
	*acme.Manager
	shelf  *acmeShelf
	orders *prometheus.CounterVec // by how they went
}

// newCertifier opens what this node has of certificates and orders. It serves what is there
// from the first request on; nothing is ordered before Run.
func (n *node) newCertifier() *certifier {
	c := &certifier{shelf: &acmeShelf{node: n, dir: filepath.Join(n.config.Node.State, "acme")}, orders: newOrders()}
	c.Manager = acme.New(acme.Options{
		Vault: acme.NewVault(c.shelf, n.acmeSecrets), Log: n.log, Version: version,
		Duty:    func(ctx context.Context) bool { return n.duty(ctx).here },
		Publish: n.publishCertificates,
		Note:    n.noteOrder,
	})
	return c
}

// publishCertificates gives the data plane what it serves and answers with.
func (n *node) publishCertificates(s acme.Served) { n.plane.Manage(proxy.Managed(s)) }

// noteOrder writes down what came of an order.
func (n *node) noteOrder(e acme.Event) {
	result := map[bool]string{true: "ok", false: "error"}[e.Issued]
	n.acme.orders.WithLabelValues(e.Issuer, e.Challenge, result).Inc()
	if e.Failures&(e.Failures-1) != 0 { // the first, second, fourth ...: a CA that is down leaves room for the rest
		return
	}
	h := history.Entry{Kind: history.Certificate, Reason: map[bool]string{true: "issued", false: "failed"}[e.Issued], Text: e.Name + ": " + e.Text}
	if e.Renewal && e.Issued {
		h.Reason = "renewed"
	}
	n.record.note(h)
}

// newOrders makes the counter of orders.
func newOrders() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "proxyd_acme_orders_total",
		Help: "Certificates that this node ordered by ACME, by how that went: ok or error.",
	}, []string{"issuer", "challenge", "result"})
}

// useACME puts what c says of ACME in force. n.mu is held, or nobody else is there yet.
func (n *node) useACME(c *config.Config) {
	s, err := acmeSettings(c)
	if err != nil {
		// The file was checked a moment ago: somebody has just changed what it refers to.
		n.log.Error("acme: certificates are served as they are, and none is ordered before the next reload", "error", err)
		s = acme.Settings{}
	}
	if c.ACME.On() {
		for _, challenge := range []string{acme.HTTP01, acme.TLSALPN01, acme.DNS01} {
			if c.ACME.Challenge == "auto" || c.ACME.Challenge == challenge {
				for _, result := range []string{"ok", "error"} {
					n.acme.orders.WithLabelValues(acme.Issuer(c.ACME.Directory), challenge, result) // the alert sees the first
				}
			}
		}
	}
	n.acme.Use(s)
}

// acmeSettings reads what the configuration refers to. A witness serves nobody.
func acmeSettings(c *config.Config) (acme.Settings, error) {
	a := c.ACME
	if !a.On() || c.Cluster.Witness {
		return acme.Settings{}, nil
	}
	s := acme.Settings{Names: c.Ordered, Email: a.Email, Directory: a.Directory, Challenge: a.Challenge, Clear: c.ListensInClear()}
	if a.CA != "" {
		text, err := os.ReadFile(a.CA)
		if err != nil {
			return s, fmt.Errorf("acme.ca: %w", err)
		}
		if s.Roots, err = x509.SystemCertPool(); err != nil {
			s.Roots = x509.NewCertPool()
		}
		if !s.Roots.AppendCertsFromPEM(text) {
			return s, fmt.Errorf("acme.ca: %s holds no certificate", a.CA)
		}
	}
	if a.EAB != nil {
		key, err := config.ReadSecret(a.EAB.Key)
		if err != nil {
			return s, fmt.Errorf("acme.eab: %w", err)
		}
		s.EABID, s.EABKey = a.EAB.ID, key
	}
	if a.DNS != nil {
		d, err := acmeDNS(a.DNS)
		if err != nil {
			return s, fmt.Errorf("acme.dns: %w", err)
		}
		s.DNS = d
	}
	return s, nil
}

// acmeDNS makes what writes TXT records.
func acmeDNS(d *config.ACMEDNS) (acme.DNS, error) {
	if d.Command != "" {
		return &acme.Hook{Command: d.Command}, nil
	}
	u := &acme.Update{Server: d.RFC2136}
	if d.Key == "" {
		return u, nil
	}
	text, err := config.ReadSecret(d.Key)
	if err != nil {
		return nil, err
	}
	key, err := config.ParseTSIG(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", d.Key, err)
	}
	u.Algorithm, u.Name, u.Secret = key.Algorithm, key.Name, key.Secret
	return u, nil
}

// askRenew is what a node asks the others when an operator wants a certificate renewed; the
// body is its name. The one with the duty does it.
const askRenew = "acme renew"

// A renewed says what a node did about it.
type renewed struct {
	Here bool `json:"here"` // it has the duty
}

// serveRenew orders a certificate anew if this node orders.
func (n *node) serveRenew(ctx context.Context, name string) (renewed, error) {
	if !n.duty(ctx).here {
		return renewed{}, nil
	}
	if err := n.acme.Renew(ctx, name); err != nil {
		return renewed{}, control.Refuse(err.Error())
	}
	return renewed{Here: true}, nil
}

// RenewCertificate implements control.Operator.
func (n *node) RenewCertificate(ctx context.Context, w control.CertificateWish) (*control.CertificateRenewal, error) {
	names := n.acme.Names()
	w.Name = strings.ToLower(strings.TrimSuffix(w.Name, "."))
	if !slices.Contains(names, w.Name) {
		for _, c := range n.plane.Certificates() {
			if c.Source() == "file" && slices.Contains(c.Names, w.Name) {
				return nil, control.Refuse(fmt.Sprintf("the certificate for %s is in the file %s: whoever writes that renews it, and it is in use soon after", w.Name, c.Cert))
			}
		}
		if len(names) == 0 {
			return nil, control.Refuse("no certificate of this node comes by ACME")
		}
		return nil, control.Refuse(fmt.Sprintf("%s is no name with a certificate by ACME; there are %v", w.Name, names))
	}
	n.log.Info("acme: a certificate is to be renewed", "name", w.Name, "by", w.By)
	if r, err := n.serveRenew(ctx, w.Name); err != nil || r.Here {
		return &control.CertificateRenewal{Name: w.Name, Node: n.nodeName()}, err
	}
	k, _, _ := n.part()
	if k == nil {
		return nil, control.Refuse("an upgrade is under way: ask again when it is done")
	}
	v, err := k.node.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, nv := range v.Nodes[1:] {
		r, err := askPeer[renewed](ctx, n, nv.ID, askRenew, w.Name)
		if err == nil && r.Here {
			return &control.CertificateRenewal{Name: w.Name, Node: nv.Name}, nil
		}
	}
	return nil, control.Refuse("no node orders certificates now: " + n.duty(ctx).why)
}

// examineCertificates says which certificates by ACME do not come.
func (n *node) examineCertificates(now time.Time) []doctor.Finding {
	var out []doctor.Finding
	views := n.acme.Views()
	for _, v := range views {
		f := doctor.Finding{Check: "acme", About: v.Name, Level: doctor.Warn, Why: "the certificate before is served until it ends",
			Cure: "what the CA says; hactl cert renew " + v.Name + " tries at once (docs/ACME.md)"}
		switch left := v.NotAfter.Sub(now); {
		case v.Failures == 0:
			continue
		case v.NotAfter.IsZero():
			f.Level, f.Why = doctor.Fail, "there is no certificate: clients have http alone"
		case left <= 0:
			f.Level, f.Why = doctor.Fail, "the certificate has expired: clients refuse it"
		case left < 3*24*time.Hour:
			f.Level = doctor.Fail
			f.Why = fmt.Sprintf("the certificate ends in %d h", int(left.Hours()))
		}
		f.What = fmt.Sprintf("%d orders in a row failed, the latest: %s", v.Failures, v.Error)
		out = append(out, f)
	}
	if err := n.acme.shelf.behind(); err != nil {
		out = append(out, doctor.Finding{Check: "acme", Level: doctor.Warn, What: "keys and certificates are not kept on this disk: " + err.Error(),
			Why: "after a restart this node has what the other nodes have, and orders the rest anew", Cure: "room and rights in " + n.acme.shelf.dir + "; it is tried again every minute"})
	}
	if len(views) > 0 && len(out) == 0 {
		out = append(out, doctor.Finding{Check: "acme", Level: doctor.OK, What: fmt.Sprintf("no order of the %d names fails", len(views))})
	}
	return out
}
