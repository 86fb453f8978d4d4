package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"testing"
	"time"
)

// G9: what another node sealed is judged as what this one made: a record that is not good is
// left out, whatever is wrong with it, and the good ones beside it are served.
func TestG9RecordsOfPeersAreNotBelievedUnseen(t *testing.T) {
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	chain := selfSigned(t, key, "good.example")
	for name, c := range map[string]certified{
		"no chain":                  {Key: key},
		"a chain that is no PEM":    {Key: key, Chain: "-----BEGIN CERTIFICATE-----\nAAAA"},
		"a chain that is no DER":    {Key: key, Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("garbage")}))},
		"no key":                    {Chain: chain},
		"a key that is no PEM":      {Chain: chain, Key: "AAAA"},
		"a key that is another's":   {Chain: chain, Key: other},
		"key and chain in exchange": {Chain: key, Key: chain},
		"no text at all":            {},
	} {
		t.Run(name, func(t *testing.T) {
			shelf := &memory{all: map[string][]byte{}}
			peer := NewVault(shelf, func() []string { return []string{"a secret"} })
			put := func(at string, v any) {
				t.Helper()
				text, ok := v.([]byte)
				if !ok {
					text, _ = json.Marshal(v)
				}
				if err := peer.Put(t.Context(), at, text, expires(at, text)); err != nil {
					t.Fatal(err)
				}
			}
			c.Name = "bad.example"
			put(certPrefix+"bad", c)
			put(certPrefix+"good", certified{Name: "good.example", Key: key, Chain: chain})
			put(certPrefix+"garbage", []byte("{"))
			put(orderPrefix+"garbage", []byte(`{"name":7}`))
			put(orderPrefix+"bad", order{Name: "bad.example", Key: "no key", Answers: []answer{{Type: TLSALPN01, Host: "bad.example"}, {Type: "?"}}})
			put(accountPrefix+"garbage", []byte("[]"))
			var served Served
			m := New(Options{Vault: NewVault(shelf, func() []string { return []string{"a secret"} }), Log: slog.New(slog.DiscardHandler), Now: time.Now,
				Duty: func(context.Context) bool { return false }, Publish: func(s Served) { served = s }, Note: func(Event) {}})
			m.Use(Settings{Names: []string{"bad.example", "good.example"}})
			m.Refresh()
			if len(served.Certificates) != 1 || served.Certificates[0].Names[0] != "good.example" || !served.Pending["bad.example"] {
				t.Errorf("served are %v, pending %v", served.Certificates, served.Pending)
			}
		})
	}
}

// selfSigned returns a certificate for name, as PEM.
func selfSigned(t *testing.T, key, name string) string {
	t.Helper()
	k, err := parseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, k.Public().(*ecdsa.PublicKey), k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
