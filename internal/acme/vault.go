package acme

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Shelf keeps records where every node has them.
type Shelf interface {
	// All returns every record by its key. The values must not be changed.
	All() map[string][]byte
	// Put writes a record. It returns when every node that can be reached has it.
	Put(ctx context.Context, key string, value []byte, expires time.Time) error
	Remove(ctx context.Context, key string) error
}

// A Vault is a Shelf whose records are sealed: with AES-256-GCM, by keys that are derived of
// secrets (HKDF), the first of which seals while all of them open. It is safe for concurrent
// use.
type Vault struct {
	shelf   Shelf
	secrets func() []string

	mu   sync.Mutex
	keys map[string]key    // by secret
	open map[string]opened // by key: records as they were last opened
}

type key struct {
	mark string
	aead cipher.AEAD
}

// opened is a record in clear. It outlives the secret that sealed it: a node that has read it
// can seal it anew.
type opened struct {
	sealed string // digest of the sealed value
	mark   string // of the secret that sealed it
	plain  []byte
}

// box is a sealed record.
type box struct {
	Mark string `json:"key"` // of the secret, derived of it one way
	Data []byte `json:"box"` // nonce and ciphertext; the key of the record is sealed along
}

// NewVault returns what is on shelf, sealed with the first of secrets.
func NewVault(shelf Shelf, secrets func() []string) *Vault {
	return &Vault{shelf: shelf, secrets: secrets, keys: map[string]key{}, open: map[string]opened{}}
}

// derive makes the key that goes with a secret. v.mu is held.
func (v *Vault) derive(secret string) (key, error) {
	if k, ok := v.keys[secret]; ok {
		return k, nil
	}
	raw, err := hkdf.Key(sha256.New, []byte(secret), []byte("proxyd acme"), "records 1", 32)
	if err != nil {
		return key{}, err
	}
	mark, err := hkdf.Key(sha256.New, []byte(secret), []byte("proxyd acme"), "mark", 6)
	if err != nil {
		return key{}, err
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return key{}, err
	}
	k := key{hex.EncodeToString(mark), aead}
	v.keys[secret] = k
	return k, nil
}

// sealing returns the key that seals now. v.mu is held.
func (v *Vault) sealing() (key, error) {
	all := v.secrets()
	if len(all) == 0 {
		return key{}, errors.New("there is no secret to seal with")
	}
	return v.derive(all[0])
}

// All returns every record that can be opened, in clear, and the keys of those that cannot.
func (v *Vault) All() (records map[string][]byte, shut []string) {
	all := v.shelf.All()
	v.mu.Lock()
	defer v.mu.Unlock()
	records = make(map[string][]byte, len(all))
	for name, sealed := range all {
		if o, ok := v.read(name, sealed); ok {
			records[name] = o.plain
		} else {
			shut = append(shut, name)
		}
	}
	for name := range v.open {
		if _, still := all[name]; !still {
			delete(v.open, name)
		}
	}
	return records, shut
}

// read opens one record. v.mu is held.
func (v *Vault) read(name string, sealed []byte) (opened, bool) {
	sum := sha256.Sum256(sealed)
	digest := string(sum[:])
	if o, ok := v.open[name]; ok && o.sealed == digest {
		return o, true
	}
	var b box
	if json.Unmarshal(sealed, &b) != nil {
		return opened{}, false
	}
	for _, secret := range v.secrets() {
		k, err := v.derive(secret)
		if err != nil || k.mark != b.Mark || len(b.Data) < k.aead.NonceSize() {
			continue
		}
		n := k.aead.NonceSize()
		plain, err := k.aead.Open(nil, b.Data[:n], b.Data[n:], []byte(name))
		if err != nil {
			continue
		}
		o := opened{digest, b.Mark, plain}
		v.open[name] = o
		return o, true
	}
	return opened{}, false
}

// Put seals a record and writes it. It returns when every node that can be reached has it.
func (v *Vault) Put(ctx context.Context, name string, plain []byte, expires time.Time) error {
	v.mu.Lock()
	k, err := v.sealing()
	v.mu.Unlock()
	if err != nil {
		return err
	}
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce) // never fails
	sealed, err := json.Marshal(box{k.mark, k.aead.Seal(nonce, nonce, plain, []byte(name))})
	if err != nil {
		return err
	}
	if err := v.shelf.Put(ctx, name, sealed, expires); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	return nil
}

// Remove takes a record away.
func (v *Vault) Remove(ctx context.Context, name string) error { return v.shelf.Remove(ctx, name) }

// Reseal writes anew what is sealed with another secret than the one that seals now. Only the
// node that may write calls it.
func (v *Vault) Reseal(ctx context.Context, expires func(name string, plain []byte) time.Time) error {
	all := v.shelf.All()
	old := map[string][]byte{}
	v.mu.Lock()
	k, err := v.sealing()
	for name, sealed := range all {
		if o, ok := v.read(name, sealed); ok && o.mark != k.mark {
			old[name] = o.plain
		}
	}
	v.mu.Unlock()
	for name, plain := range old {
		if err == nil {
			err = v.Put(ctx, name, plain, expires(name, plain))
		}
	}
	return err
}
