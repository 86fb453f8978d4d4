package backup

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Secrets are sealed with a key made of a passphrase: PBKDF2 with SHA-256, then AES-256-GCM
// over all of them as one text of JSON. The file is version 1 | salt 16 | nonce 12 | sealed.
const (
	sealVersion = 1
	saltSize    = 16
	nonceSize   = 12
	rounds      = 600_000
)

// MinPassphrase is the least length of a passphrase.
const MinPassphrase = 12

// ErrPassphrase is returned for a passphrase with which the secrets were not sealed.
var ErrPassphrase = errors.New("the secrets cannot be opened: another passphrase, or a damaged file")

// AddSecrets puts secrets in by their paths: sealed with the passphrase, or in clear if it
// is "".
func (a *Archive) AddSecrets(secrets map[string][]byte, passphrase string) error {
	have := "clear"
	if passphrase == "" {
		for name, text := range secrets {
			a.Add(SecretsDir+"/"+strings.TrimPrefix(name, "/"), text)
		}
	} else {
		have = "sealed"
		b, err := seal(secrets, passphrase)
		if err != nil {
			return err
		}
		a.Add(sealedName, b)
	}
	for i, s := range a.Manifest.Secrets {
		if _, there := secrets[strings.TrimPrefix(s.Ref, "file:")]; there {
			a.Manifest.Secrets[i].Have = have
		}
	}
	return nil
}

// Sealed reports whether a passphrase is needed for the secrets.
func (a *Archive) Sealed() bool { return a.Data[sealedName] != nil }

// Secrets returns the secrets by their paths.
func (a *Archive) OpenSecrets(passphrase string) (map[string][]byte, error) {
	if a.Sealed() {
		return open(a.Data[sealedName], passphrase)
	}
	out := map[string][]byte{}
	for name, text := range a.In(SecretsDir) {
		out["/"+name] = text
	}
	return out, nil
}

func seal(secrets map[string][]byte, passphrase string) ([]byte, error) {
	if len(passphrase) < MinPassphrase {
		return nil, fmt.Errorf("the passphrase has %d characters; at least %d are needed", len(passphrase), MinPassphrase)
	}
	text, err := json.Marshal(secrets)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 1+saltSize+nonceSize)
	head[0] = sealVersion
	if _, err := rand.Read(head[1:]); err != nil {
		return nil, err
	}
	c, err := sealCipher(passphrase, head[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	return c.Seal(head, head[1+saltSize:], text, head[:1]), nil
}

func open(b []byte, passphrase string) (map[string][]byte, error) {
	const size = 1 + saltSize + nonceSize
	if len(b) < size || b[0] != sealVersion {
		return nil, ErrPassphrase
	}
	c, err := sealCipher(passphrase, b[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	text, err := c.Open(nil, b[1+saltSize:size], b[size:], b[:1])
	if err != nil {
		return nil, ErrPassphrase
	}
	var secrets map[string][]byte
	return secrets, json.Unmarshal(text, &secrets)
}

func sealCipher(passphrase string, salt []byte) (cipher.AEAD, error) {
	key, err := pbkdf2.Key(sha256.New, passphrase, salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
