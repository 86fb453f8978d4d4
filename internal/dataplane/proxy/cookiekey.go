package proxy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"proxyd/internal/config"
)

const (
	cookieKeyBytes = 32
	cookieKeyFile  = "cookie.key" // in node.state
)

// cookieKey returns the key that signs sticky cookies. Nodes of a cluster derive it from
// their secret, so that each knows the cookies of the others; a node alone makes one and
// keeps it. It is nil if no pool is sticky.
func (p *Plane) cookieKey(c *config.Config) ([]byte, error) {
	needed := false
	for _, pool := range c.Pool {
		needed = needed || pool.Sticky != nil
	}
	switch {
	case !needed:
		return nil, nil
	case c.Cluster.Secret != "":
		return hkdf.Key(sha256.New, []byte(c.Cluster.Secret), nil, "proxyd sticky cookie 1", cookieKeyBytes)
	}
	if p.madeKey == nil {
		key, err := keptKey(filepath.Join(c.Node.State, cookieKeyFile))
		if err != nil {
			p.opt.Logger.Warn("the key of sticky cookies is lost with the process: clients will get new ones", "error", err)
		}
		p.madeKey = key
	}
	return p.madeKey, nil
}

// keptKey reads the key from a file, or makes one and keeps it there. A key with an error
// is one that could not be kept.
func keptKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	switch {
	case err == nil && len(key) == cookieKeyBytes:
		return key, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return newKey(), err
	}
	key = newKey()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return key, err
	}
	next := path + ".new"
	if err := os.WriteFile(next, key, 0o600); err != nil {
		return key, err
	}
	return key, os.Rename(next, path)
}

func newKey() []byte {
	key := make([]byte, cookieKeyBytes)
	rand.Read(key) // never fails
	return key
}
