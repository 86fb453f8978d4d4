package proxy

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"proxyd/internal/config"
)

// ticketTurn is how long one key seals session tickets.
const ticketTurn = 12 * time.Hour

// tickets are the keys that seal the sessions which clients bring back. Each turn of the
// clock has a key of its own, derived from the secret of the cluster: every node knows the
// same without a word about it, so that a session outlives a failover. A node alone derives
// them from what it made up at its start.
type tickets struct {
	mu     sync.Mutex // guards what follows
	seed   []byte
	alone  []byte // the seed of a node without a cluster
	number int64  // of the turn whose keys are in use; 0: none
}

// use takes the seed from the configuration.
func (t *tickets) use(c *config.Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.alone == nil {
		t.alone = make([]byte, 32)
		rand.Read(t.alone) // never fails
	}
	t.seed = t.alone
	if c.Cluster.Secret != "" {
		t.seed = []byte(c.Cluster.Secret)
	}
}

// root returns the seed by a configuration.
func (t *tickets) root(c *config.Config) []byte {
	t.use(c)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seed
}

// at returns the keys at a time, and has turn count from then.
func (t *tickets) at(now time.Time) [][32]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys(turnOf(now))
}

// turn returns new keys if it is time for them.
func (t *tickets) turn(now time.Time) (keys [][32]byte, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := turnOf(now)
	if n == t.number {
		return nil, false
	}
	return t.keys(n), true
}

func turnOf(now time.Time) int64 { return now.Unix() / int64(ticketTurn/time.Second) }

// of returns keys of their own for those who believe others than the rest. They turn with
// the rest.
func (t *tickets) of(label string) [][32]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.derive(t.number, " of "+label)
}

// keys returns the key of turn n, which seals, and those of its neighbours: of the past,
// and of another node whose clock is ahead. t.mu is held.
func (t *tickets) keys(n int64) [][32]byte {
	t.number = n
	return t.derive(n, "")
}

// derive makes keys for turn n and those around it. t.mu is held.
func (t *tickets) derive(n int64, label string) [][32]byte {
	all := make([][32]byte, 3)
	for i, of := range []int64{n, n - 1, n + 1} {
		key, err := hkdf.Key(sha256.New, t.seed, nil, fmt.Sprintf("proxyd session tickets 1 %d%s", of, label), len(all[i]))
		if err != nil {
			panic("proxy: a key of 32 bytes cannot be derived: " + err.Error())
		}
		copy(all[i][:], key)
	}
	return all
}
