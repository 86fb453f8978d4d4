package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"proxyd/internal/ondisk"
)

// File is where a node keeps its ring, in node.state, from its first rotation on.
const File = "keys.json"

// lockTime is how long a node waits to hear of a rotation that it takes part in.
const lockTime = 10 * time.Second

// Config is what a Keeper must know.
type Config struct {
	Dir    string // node.state
	Secret string // cluster.secret
	Voters []string
	Now    func() time.Time
	Log    *slog.Logger
	// Force puts secrets in force, the one that seals first. It may be set after Open.
	Force func(secrets []string) error
}

// A Keeper has the ring of one node: on its disk and in force. It is safe for concurrent use.
//
// The file goes before cluster.secret as long as that is a key that the ring has or had. Any
// other is the will of whoever put it there: then the ring is laid aside.
type Keeper struct {
	Config

	mu    sync.Mutex
	ring  ring
	id    string // of the rotation that the node takes part in, until a time
	by    string
	until time.Time
}

// Open reads the ring of a node, or makes one of its secret.
func Open(c Config) (*Keeper, error) {
	k := &Keeper{Config: c}
	return k, k.read()
}

func (k *Keeper) path() string { return filepath.Join(k.Dir, File) }

// read reads the ring from the disk.
func (k *Keeper) read() error {
	k.ring = ring{Keys: []Key{{Secret: k.Secret}}}
	text, err := os.ReadFile(k.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r ring
	if err == nil {
		if newer := ondisk.Check(text, version); newer != nil {
			return fmt.Errorf("the keys of the cluster in %s: %w", k.path(), newer)
		}
		if err = json.Unmarshal(text, &r); err == nil {
			err = r.check()
		}
	}
	if err != nil {
		return fmt.Errorf("the keys of the cluster in %s: %w; copy the file from another node, or remove it to go by cluster.secret alone", k.path(), err)
	}
	if !r.knows(k.Secret) {
		aside := k.path() + ".aside"
		if err := os.Rename(k.path(), aside); err != nil {
			return fmt.Errorf("the keys of the cluster: %w", err)
		}
		k.Log.Warn("cluster.secret is none of the keys that this node had: it is in force, and the ring is laid aside", "secret", Mark(k.Secret), "ring", aside)
		return nil
	}
	k.ring = r
	k.former()
	return nil
}

// former says so if the secret of the configuration is out of use.
func (k *Keeper) former() {
	if k.ring.find(Mark(k.Secret)) < 0 {
		k.Log.Info("cluster.secret is an earlier key of the cluster; a later one is in force", "secret", Mark(k.Secret), "key", k.ring.Keys[0].Mark(), "ring", k.path())
	}
}

// Reread takes the ring from the disk again, where another process wrote it.
func (k *Keeper) Reread() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.read(); err != nil {
		return err
	}
	return k.Force(k.ring.secrets())
}

// Secrets returns what is in force, the one that seals first.
func (k *Keeper) Secrets() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ring.secrets()
}

// Knows reports whether another cluster.secret leaves the ring as it is.
func (k *Keeper) Knows(secret string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return secret == k.Secret || k.ring.knows(secret)
}

// Reconfigure notes what cluster.secret is now, which the ring knows.
func (k *Keeper) Reconfigure(secret string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Secret != secret {
		k.Secret = secret
		k.former()
	}
}

// What a node is asked in a rotation.
const (
	Look   = "look"   // what keys it has
	Lock   = "lock"   // to take part, and in no other
	Give   = "give"   // a key, for a node that has it not yet
	Accept = "accept" // to believe a further key
	Use    = "use"    // to seal with a key that it believes
	Keep   = "keep"   // to believe no other than the one that it seals with
	Unlock = "unlock"
)

// A Question is what one node asks another.
type Question struct {
	Do   string `json:"do"`
	ID   string `json:"id,omitempty"`   // of the rotation
	By   string `json:"by,omitempty"`   // who asked for it, and where
	Key  *Key   `json:"key,omitempty"`  // of Accept
	Mark string `json:"mark,omitempty"` // of Give, Use and Keep
}

// An Answer is what keys a node has once it has done what it was asked.
type Answer struct {
	Keys   []Held   `json:"keys"`          // the one that seals first
	Secret string   `json:"secret"`        // mark of cluster.secret
	Voters []string `json:"voters"`        // as it knows them
	Key    *Key     `json:"key,omitempty"` // of Give
}

// Held is one of them.
type Held struct {
	Mark   string    `json:"mark"`
	Number uint64    `json:"number"`
	Since  time.Time `json:"since,omitzero"`
}

// Answer does what this node is asked. What it changes is on the disk before it is in force.
// On error nothing has changed.
func (k *Keeper) Answer(q Question) (Answer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.Now()
	if q.Do != Look {
		if err := k.admit(q, now); err != nil {
			return Answer{}, err
		}
	}
	next, err := k.ring, error(nil)
	var given *Key
	switch q.Do {
	case Look, Lock:
	case Unlock:
		k.id = ""
	case Give:
		i := k.ring.find(q.Mark)
		if i < 0 {
			return Answer{}, fmt.Errorf("the key %s is not in the ring", q.Mark)
		}
		given = &k.ring.Keys[i]
	case Accept:
		if q.Key == nil {
			return Answer{}, errors.New("no key is given")
		}
		next, err = k.ring.accept(*q.Key)
	case Use:
		next, err = k.ring.use(q.Mark)
	case Keep:
		next, err = k.ring.keep(q.Mark)
	default:
		return Answer{}, fmt.Errorf("%q is not known here", q.Do)
	}
	if err == nil {
		err = k.change(next)
	}
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Secret: Mark(k.Secret), Voters: k.Voters, Key: given}
	for _, key := range k.ring.Keys {
		a.Keys = append(a.Keys, Held{key.Mark(), key.Number, key.Since})
	}
	return a, nil
}

// admit lets one rotation at a time change the ring.
func (k *Keeper) admit(q Question, now time.Time) error {
	taken := k.id != "" && now.Before(k.until)
	switch {
	case q.ID == "":
		return errors.New("a rotation without an id")
	case taken && k.id != q.ID:
		return fmt.Errorf("a rotation asked for by %s is on its way, or broke off less than %v ago", k.by, lockTime)
	case q.Do == Lock:
		k.id, k.by = q.ID, q.By
	case q.Do == Unlock && k.id != q.ID:
		return nil
	case !taken:
		return errors.New("this node has waited too long for the rotation")
	}
	k.until = now.Add(lockTime)
	return nil
}

// change puts another ring on the disk and in force.
func (k *Keeper) change(next ring) error {
	was := k.ring
	same := func(a, b Key) bool { return a.Secret == b.Secret }
	if slices.EqualFunc(was.Keys, next.Keys, same) {
		return nil
	}
	mark := Mark(k.Secret)
	if next.find(mark) < 0 && !slices.Contains(next.Past, mark) {
		next.Past = append(slices.Clone(next.Past), mark)
	}
	if err := save(k.path(), next); err != nil {
		return fmt.Errorf("keep the keys of the cluster: %w", err)
	}
	if err := k.Force(next.secrets()); err != nil {
		return errors.Join(err, save(k.path(), was), k.Force(was.secrets()))
	}
	k.ring = next
	return nil
}

// version is that of the file.
const version = 1

// encode returns a ring as it is in the file.
func encode(r ring) ([]byte, error) {
	text, err := json.MarshalIndent(struct {
		Version int `json:"version"`
		ring
	}{version, r}, "", "  ")
	return append(text, '\n'), err
}

// save writes a ring whole or not at all, readable by this user alone.
func save(path string, r ring) error {
	text, err := encode(r)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+File+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
