// Package keyring is the secrets of the cluster: with which one a node seals, which others it
// believes, and how all nodes come to another one without losing each other.
package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Key is a secret of which the keys of the cluster are derived.
type Key struct {
	Number uint64    `json:"number"`         // 0: the one of cluster.secret; the one of each rotation is one more
	Since  time.Time `json:"since,omitzero"` // when it was made; zero if nobody knows
	Secret string    `json:"secret"`
}

// NewKey makes a key.
func NewKey(number uint64, now time.Time) (Key, error) {
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return Key{}, err
	}
	return Key{Number: number, Since: now.UTC().Truncate(time.Second), Secret: base64.RawStdEncoding.EncodeToString(random[:])}, nil
}

// Mark is what a secret is called where it must not be shown: derived of it one way, as its
// keys are.
func Mark(secret string) string {
	b, err := hkdf.Key(sha256.New, []byte(secret), []byte("proxyd"), "mark of a key", 6)
	if err != nil {
		return "" // its length is a constant that HKDF can give
	}
	return hex.EncodeToString(b)
}

// Mark is what the key is called where it must not be shown.
func (k Key) Mark() string { return Mark(k.Secret) }

// Bounds of a ring.
const (
	maxKeys = 8
	maxPast = 64
	// maxSecret is how long a secret may be that another node gives.
	maxSecret = 64 << 10
)

// A ring is the keys that a node believes, the one it seals with first. It never changes;
// what changes it makes another.
type ring struct {
	Keys []Key    `json:"keys"`
	Past []string `json:"past,omitempty"` // marks of keys that it had
}

func (r ring) find(mark string) int {
	return slices.IndexFunc(r.Keys, func(k Key) bool { return k.Mark() == mark })
}

// knows reports whether a secret is in the ring, or was.
func (r ring) knows(secret string) bool {
	mark := Mark(secret)
	return r.find(mark) >= 0 || slices.Contains(r.Past, mark)
}

// secrets returns the secrets, the one that seals first.
func (r ring) secrets() (out []string) {
	for _, k := range r.Keys {
		out = append(out, k.Secret)
	}
	return out
}

// check reports why a ring that came from a file can be in no use.
func (r ring) check() error {
	if len(r.Keys) == 0 || len(r.Keys) > maxKeys {
		return fmt.Errorf("it has %d keys", len(r.Keys))
	}
	for _, k := range r.Keys {
		if k.Secret == "" {
			return errors.New("one of its keys is empty")
		}
	}
	return nil
}

// accept believes a further key.
func (r ring) accept(k Key) (ring, error) {
	switch {
	case k.Secret == "" || len(k.Secret) > maxSecret:
		return r, errors.New("this is no key")
	case r.find(k.Mark()) >= 0:
		return r, nil
	case len(r.Keys) >= maxKeys:
		return r, fmt.Errorf("there are %d keys already", len(r.Keys))
	}
	r.Keys = append(slices.Clone(r.Keys), k)
	return r, nil
}

// use seals with a key that is believed already.
func (r ring) use(mark string) (ring, error) {
	i := r.find(mark)
	if i < 0 {
		return r, fmt.Errorf("the key %s is not in the ring", mark)
	}
	keys := []Key{r.Keys[i]}
	for j, k := range r.Keys {
		if j != i {
			keys = append(keys, k)
		}
	}
	r.Keys = keys
	return r, nil
}

// keep believes no key but the one that seals.
func (r ring) keep(mark string) (ring, error) {
	if r.find(mark) != 0 {
		return r, fmt.Errorf("the key %s does not seal here", mark)
	}
	r.Past = slices.Clone(r.Past)
	for _, k := range r.Keys[1:] {
		r.Past = append(r.Past, k.Mark())
	}
	r.Past = r.Past[max(0, len(r.Past)-maxPast):]
	r.Keys = r.Keys[:1:1]
	return r, nil
}
