package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"slices"
	"sync"
	"testing/fstest"
	"time"
)

// testHost is a machine named "edge-1" with a good secret at /etc/proxyd/cluster.key,
// some bad ones beside it, and the variables KEY and SHORT.
func testHost() Host {
	pairs := testPairs()
	shop, blog, old := pairs[0], pairs[1], pairs[2]
	files := fstest.MapFS{
		"etc/proxyd/cluster.key": {Data: []byte("  correct horse battery staple\n"), Mode: 0o600},
		"etc/proxyd/group.key":   {Data: []byte("correct horse battery staple"), Mode: 0o640},
		"etc/proxyd/open.key":    {Data: []byte("correct horse battery staple"), Mode: 0o644},
		"etc/proxyd/short.key":   {Data: []byte("fifteen chars..   \n"), Mode: 0o600},
		"etc/proxyd/sorry.html":  {Data: []byte("<p>Sorry."), Mode: 0o644},
		"etc/proxyd/huge.txt":    {Data: make([]byte, 1<<20+1), Mode: 0o644},
		"etc/proxyd/dir.key":     {Mode: fs.ModeDir | 0o700},
		"etc/proxyd/dir.html":    {Mode: fs.ModeDir | 0o700},
		"etc/proxyd/tsig":        {Data: []byte("key \"acme\" {\n\talgorithm hmac-sha256;\n\tsecret \"c2VjcmV0IG9mIHRoZSBkbnM=\";\n};\n"), Mode: 0o640},
		"etc/proxyd/md5.tsig":    {Data: []byte("hmac-md5:acme:c2VjcmV0IG9mIHRoZSBkbnM="), Mode: 0o640},
		"etc/proxyd/eab.key":     {Data: []byte("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n"), Mode: 0o640},
		"etc/proxyd/dns-hook":    {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"etc/ssl/ca.pem":         {Data: shop.cert, Mode: 0o644},
		"etc/ssl/shop.crt":       {Data: shop.cert, Mode: 0o644},
		"etc/ssl/shop.key":       {Data: shop.key, Mode: 0o640},
		"etc/ssl/blog.crt":       {Data: blog.cert, Mode: 0o644},
		"etc/ssl/blog.key":       {Data: blog.key, Mode: 0o640},
		"etc/ssl/both.pem":       {Data: append(slices.Clone(blog.cert), blog.key...), Mode: 0o600},
		"etc/ssl/open.key":       {Data: shop.key, Mode: 0o644},
		"etc/ssl/old.crt":        {Data: old.cert, Mode: 0o644},
		"etc/ssl/old.key":        {Data: old.key, Mode: 0o600},
		"etc/ssl/empty.crt":      {Data: []byte("nothing\n"), Mode: 0o644},
		"etc/ssl/locked.key":     {Data: []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n"), Mode: 0o640},
	}
	for name, text := range map[string][]byte{"internal-ca.pem": shop.cert, "clients.pem": blog.cert, "edge.crt": blog.cert, "edge.key": blog.key} {
		files["etc/proxyd/"+name] = &fstest.MapFile{Data: text, Mode: 0o640}
	}
	files["etc/ssl/example.com.crt"], files["etc/ssl/example.com.key"] = files["etc/ssl/shop.crt"], files["etc/ssl/shop.key"]
	env := map[string]string{"KEY": " correct horse battery staple ", "SHORT": "short"}
	name := func(s string) string { return s[1:] }
	return Host{
		Hostname: func() (string, error) { return "edge-1", nil },
		Getenv:   func(s string) string { return env[s] },
		Stat:     func(s string) (fs.FileInfo, error) { return files.Stat(name(s)) },
		ReadFile: func(s string) ([]byte, error) { return files.ReadFile(name(s)) },
		Glob:     func(string) ([]string, error) { return nil, nil },
	}
}

// A testPair is the text of a certificate and of its key.
type testPair struct{ cert, key []byte }

// testPairs are two certificates that last and one that does not.
var testPairs = sync.OnceValue(func() (all [3]testPair) {
	year := time.Now().AddDate(1, 0, 0)
	return [3]testPair{newTestPair("shop.example.com", year), newTestPair("blog.example.com", year), newTestPair("old.example.com", time.Date(2020, 1, 2, 3, 4, 0, 0, time.UTC))}
})

func newTestPair(name string, until time.Time) testPair {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: until.AddDate(-2, 0, 0), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		panic(err)
	}
	text, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return testPair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: text})}
}

func mustRead(name string) []byte {
	data, err := os.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return data
}
