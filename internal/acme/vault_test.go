package acme

import (
	"bytes"
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a shelf without other nodes.
type memory struct {
	mu  sync.Mutex
	all map[string][]byte
}

func (m *memory) All() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.all)
}

func (m *memory) Put(_ context.Context, key string, value []byte, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all[key] = value
	return nil
}

func (m *memory) Remove(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, key)
	return nil
}

func never(string, []byte) time.Time { return time.Time{} }

func TestAVaultOutlivesARotation(t *testing.T) {
	shelf := &memory{all: map[string][]byte{}}
	secrets := []string{"the first secret"}
	v := NewVault(shelf, func() []string { return secrets })
	if err := v.Put(t.Context(), "cert/a", []byte("a private key"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if text := shelf.all["cert/a"]; bytes.Contains(text, []byte("private")) || !bytes.Contains(text, []byte(`"box"`)) {
		t.Errorf("a sealed record is %s", text)
	}
	secrets = []string{"the second secret", "the first secret"}
	if got, shut := v.All(); string(got["cert/a"]) != "a private key" || len(shut) != 0 {
		t.Errorf("while both are believed: %q, %v", got, shut)
	}
	sealed := string(shelf.all["cert/a"])
	if err := v.Reseal(t.Context(), never); err != nil || string(shelf.all["cert/a"]) == sealed {
		t.Errorf("it is not sealed anew (%v)", err)
	}
	sealed = string(shelf.all["cert/a"])
	if err := v.Reseal(t.Context(), never); err != nil || string(shelf.all["cert/a"]) != sealed {
		t.Errorf("it is sealed anew twice (%v)", err)
	}
	secrets = secrets[:1]
	fresh := NewVault(shelf, func() []string { return secrets })
	if got, shut := fresh.All(); string(got["cert/a"]) != "a private key" || len(shut) != 0 {
		t.Errorf("with the second alone: %q, %v", got, shut)
	}
	secrets = []string{"yet another"}
	if got, shut := NewVault(shelf, func() []string { return secrets }).All(); len(got) != 0 || len(shut) != 1 || shut[0] != "cert/a" {
		t.Errorf("with another secret: %q, %v", got, shut)
	}
	// Who has read it goes on when its secret is gone, and may seal it anew.
	if got, _ := v.All(); string(got["cert/a"]) != "a private key" {
		t.Errorf("what was open is lost: %q", got)
	}
}

func TestARecordIsOfItsKey(t *testing.T) {
	shelf := &memory{all: map[string][]byte{}}
	v := NewVault(shelf, func() []string { return []string{"a secret"} })
	if err := v.Put(t.Context(), "cert/a", []byte("text"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	shelf.all["cert/b"] = shelf.all["cert/a"]
	shelf.all["cert/c"] = []byte(strings.ReplaceAll(string(shelf.all["cert/a"]), `"box":"`, `"box":"AAAA`))
	shelf.all["cert/d"] = []byte("no JSON")
	got, shut := v.All()
	if len(got) != 1 || len(shut) != 3 {
		t.Errorf("moved and changed records: %q, %v", got, shut)
	}
	if err := NewVault(shelf, func() []string { return nil }).Put(t.Context(), "k", nil, time.Time{}); err == nil {
		t.Error("sealed without a secret")
	}
}
