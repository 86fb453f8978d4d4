package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"proxyd/internal/ha/election"
	"proxyd/internal/ha/state"
	"proxyd/internal/ha/wire"
)

// acmeKind is the kind of the shared entries with the account, the orders and the
// certificates of ACME. Their values are sealed by acme.Vault.
const acmeKind = "acme"

// An acmeShelf keeps the records of ACME in the shared state and on this node's disk. It
// implements acme.Shelf.
type acmeShelf struct {
	node *node
	dir  string // mode 0700

	mu    sync.Mutex // one at a time writes the file
	saved error      // why it is not up to date

	keyMu sync.Mutex // guards what follows
	own   string     // what seals without a cluster; "": it was not read yet, or there is none
	kept  bool       // it is on the disk
	fault string     // what was said of it
}

// file is where the records are; key is what seals them on a node without a cluster.
func (s *acmeShelf) file() string { return filepath.Join(s.dir, "state.json") }
func (s *acmeShelf) key() string  { return filepath.Join(s.dir, "key") }

// All implements acme.Shelf.
func (s *acmeShelf) All() map[string][]byte {
	all := map[string][]byte{}
	for _, e := range s.node.shared.kind(acmeKind) {
		all[e.Key] = e.Value
	}
	return all
}

// Put implements acme.Shelf. The disk comes first: what this node was about to do is known
// to its next life.
func (s *acmeShelf) Put(ctx context.Context, key string, value []byte, expires time.Time) error {
	e, err := s.node.shared.write(s.term(ctx, key), acmeKind, key, value, expires)
	if err != nil {
		return err
	}
	s.save()
	s.node.deliver(ctx, e)
	return nil
}

// Remove implements acme.Shelf.
func (s *acmeShelf) Remove(ctx context.Context, key string) error {
	e, err := s.node.shared.erase(s.term(ctx, key), acmeKind, key, time.Now().Add(forgetAfter))
	if err != nil {
		return err
	}
	s.save()
	s.node.deliver(ctx, e)
	return nil
}

// term is that under which this node has the duty, by which its writes win over those of a
// node that had it before. It is never below that of what it has seen.
func (s *acmeShelf) term(ctx context.Context, key string) uint64 {
	term := s.node.duty(ctx).term
	if e, ok := s.node.shared.entry(acmeKind, key); ok {
		term = max(term, e.Stamp.Term)
	}
	return term
}

// behind returns why the file is not up to date; nil if it is.
func (s *acmeShelf) behind() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved
}

// save writes the file. A disk that fails costs what a restart would need it for.
func (s *acmeShelf) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.write()
	switch {
	case err != nil && s.saved == nil:
		s.node.log.Error("acme: keys and certificates are not kept over a restart of this node", "error", err)
	case err == nil && s.saved != nil:
		s.node.log.Info("acme: keys and certificates are kept again")
	}
	s.saved = err
}

func (s *acmeShelf) write() error {
	if err := s.makeDir(); err != nil {
		return err
	}
	if err := s.keepKey(); err != nil { // first: what it has sealed is of no use without it
		return err
	}
	text, err := json.Marshal(s.node.shared.entries(acmeKind))
	if err != nil {
		return err
	}
	return replaceFile(s.file(), text, 0o600)
}

func (s *acmeShelf) makeDir() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(s.dir, 0o700)
}

// restore takes in what an earlier life kept.
func (s *acmeShelf) restore() error {
	text, err := os.ReadFile(s.file())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var all []keptEntry
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		aside := s.file() + ".bad"
		return fmt.Errorf("what this node had of ACME is lost, and comes from the other nodes or anew (the file is moved to %s): %w", aside, errors.Join(err, os.Rename(s.file(), aside)))
	}
	s.node.shared.take(all)
	return nil
}

// localKey returns what seals where there is no cluster, and makes it if make says so. What was
// read or made once holds for this life: another one would open nothing of what is sealed.
func (s *acmeShelf) localKey(make bool) (string, error) {
	s.keyMu.Lock()
	defer s.keyMu.Unlock()
	if s.own != "" {
		return s.own, nil
	}
	text, err := os.ReadFile(s.key())
	if key := strings.TrimSpace(string(text)); err == nil && key != "" {
		s.own, s.kept = key, true
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if !make {
		return "", nil
	}
	var random [32]byte
	rand.Read(random[:]) // never fails
	s.own = base64.RawStdEncoding.EncodeToString(random[:])
	return s.own, s.writeKey()
}

// writeKey writes the key. s.keyMu is held.
func (s *acmeShelf) writeKey() error {
	err := s.makeDir()
	if err == nil {
		err = replaceFile(s.key(), []byte(s.own+"\n"), 0o600)
	}
	s.kept = err == nil
	return err
}

// keepKey writes the key if it could not be written when it was made.
func (s *acmeShelf) keepKey() error {
	s.keyMu.Lock()
	defer s.keyMu.Unlock()
	if s.own == "" || s.kept {
		return nil
	}
	return s.writeKey()
}

// news reports whether a fault of the key is another one than the last.
func (s *acmeShelf) news(err error) bool {
	s.keyMu.Lock()
	defer s.keyMu.Unlock()
	if was := s.fault; err == nil {
		s.fault = ""
	} else if s.fault = err.Error(); s.fault != was {
		return true
	}
	return false
}

// acmeSecrets are what the records are sealed with: the keys of the cluster, or one of this
// node's own where there is none. What was sealed alone opens in a cluster, too.
func (n *node) acmeSecrets() []string {
	n.mu.Lock()
	k, c := n.cluster, n.config
	n.mu.Unlock()
	var all []string
	switch {
	case k != nil && k.keys != nil:
		all = k.keys.Secrets()
	case c.Cluster.Secret != "":
		all = []string{string(c.Cluster.Secret)}
	}
	own, err := n.acme.shelf.localKey(len(all) == 0)
	if n.acme.shelf.news(err) {
		n.log.Error("acme: the key that seals on this node", "error", err)
	}
	if own != "" {
		all = append(all, own)
	}
	return all
}

const (
	// askTake gives a node an entry of the shared state; the body is what state.Append makes.
	askTake = "take"
	// takeTime bounds how long one node may take for it, and twice as long is tried.
	takeTime = 3 * time.Second
)

// deliver returns when every node that can be reached has taken an entry in, and has it on
// its disk. One that does not answer gets it when the nodes meet.
func (n *node) deliver(ctx context.Context, e state.Entry) {
	k, _, _ := n.part()
	if k == nil || k.gossip == nil {
		return
	}
	body := state.Append(nil, wire.Oldest, []state.Entry{e}) // which every release knows
	var all sync.WaitGroup
	for _, id := range k.gossip.Alive() {
		if id == k.node.Self {
			continue
		}
		all.Go(func() { n.deliverTo(ctx, id, e.Key, body) })
	}
	all.Wait()
}

func (n *node) deliverTo(ctx context.Context, id election.ID, key string, body []byte) {
	var err error
	for range 2 {
		ask, cancel := context.WithTimeout(ctx, takeTime)
		_, err = askPeer[struct{}](ask, n, id, askTake, body)
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
	}
	n.log.Warn("acme: a node does not take a record in; it gets it when the nodes meet", "node", id, "record", key, "error", err)
}

// serveTake takes in entries that another node gives, before it goes on.
func (n *node) serveTake(body []byte) error {
	if err := n.shared.Merge(body); err != nil {
		return err
	}
	n.acme.shelf.save()
	n.acme.Refresh()
	return nil
}

// saveAgain is how soon a disk is tried again that did not take the records.
const saveAgain = time.Minute

// followACME keeps and serves what other nodes have written, until ctx ends.
func (n *node) followACME(ctx context.Context) {
	tick := time.NewTicker(saveAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n.acme.shelf.behind() != nil {
				n.acme.shelf.save()
			}
			continue
		case <-n.shared.certified:
		}
		n.acme.shelf.save()
		n.acme.Refresh()
		n.acme.Look()
	}
}
