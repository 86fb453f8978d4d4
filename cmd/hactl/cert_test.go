package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"proxyd/internal/control"
)

func (f *fake) Certificates(context.Context) ([]control.Certificate, error) {
	until := time.Now().Add(61*24*time.Hour + time.Hour)
	return []control.Certificate{
		{Subject: "shop.example.com", Names: []string{"shop.example.com", "www.shop.example.com"}, Serial: "1f", Issuer: "CA", Kind: "ECDSA P-256", Source: "file", Until: until, Default: true},
		{Subject: "old.example.com", Names: []string{"old.example.com"}, Serial: "2", Kind: "RSA 2048", Source: "file", Until: time.Now().Add(-time.Hour), Fault: "key k does not exist"},
	}, f.err
}

func TestCertificatesAreListed(t *testing.T) {
	out, code := hactl(t, &fake{}, "cert", "ls")
	for _, want := range []string{"shop.example.com,www.shop.example.com", "ECDSA P-256", "61d", "default", "expired", "changed files are not in use: key k does not exist"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("hactl cert ls = code %d without %q:\n%s", code, want, out)
		}
	}
	if out, code := hactl(t, &fake{}, "cert", "ls", "-o", "json"); code != 0 || !strings.Contains(out, `"serial": "1f"`) {
		t.Errorf("hactl cert ls -o json = code %d:\n%s", code, out)
	}
	if _, code := hactl(t, &fake{}, "cert", "ls", "-o", "xml"); code != exitUsage {
		t.Errorf("hactl cert ls -o xml = code %d, want %d", code, exitUsage)
	}
}
