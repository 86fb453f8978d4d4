// Package relay keeps connections of another node alive after a virtual address came to
// this one: packets that belong to no connection here are sent on, as they are, to the
// node that had the address before and still serves the connections that it had then. That
// node answers the clients itself.
//
//	client --- ACK to the VIP ---> new holder --- same packet, other MAC ---> old holder
//	   ^-------------------------- answer from the VIP ---------------------------'
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"proxyd/internal/clock"
	"proxyd/internal/vip/gather"
)

// A Way is by which means packets are sent on; the values are those of cluster.handover.
type Way string

const (
	Auto     Way = "auto"     // the best one that this host has
	EBPF     Way = "ebpf"     // a program where packets come in (TCX): Linux 6.6
	Nftables Way = "nftables" // rules in a table of our own
	Plain    Way = "plain"    // not at all: the address moves, and connections are reset
)

// A Target is the node that packets for one address are sent on to.
type Target struct {
	MAC   [6]byte
	Addr  netip.Addr    // its own, of the family of the virtual address
	Until clock.Instant // nothing is sent on from then; the zero Target sends nothing on
}

// A Mark is how the connection ids begin that this node gives to clients of QUIC: the length of
// what follows, two bytes that the cluster's nodes have in common, three of this node's own. The
// zero Mark is of a node that gives none: then no datagram is sent on.
type Mark [markLen]byte

const (
	markLen    = 6
	markCommon = 3    // bytes of it that all nodes of the cluster have
	datagram   = 8    // bytes of the head of UDP, before a datagram
	longBit    = 0x80 // in its first byte: the header is a long one
	markLong   = 6    // where the id is behind a long header (RFC 9000, 17.2)
	markShort  = 1    // likewise a short one (17.3)
)

// idLength is the length of ids that begin so.
func (m Mark) idLength() byte { return m[0] + 1 }

// A Place is the interface that packets come in by and are sent on through.
type Place struct {
	Index int
	Name  string
	MAC   [6]byte
}

// A Relay sends packets on, for the virtual addresses of one interface. It may be used by
// several goroutines at once.
type Relay struct {
	way Way
	why error // why it is not a better one
	log *slog.Logger

	queue gather.Queue[setting]

	mu      sync.Mutex // guards what follows
	means   means
	targets map[netip.Addr]Target
	said    bool // somebody has said where packets go
}

// Config is what a Relay must know.
type Config struct {
	Way   Way
	Place Place
	Mark  Mark
	// State is the node's state directory: by it the next life finds what this one left.
	State string
	// Keep leaves what another process of this node sends on, until EndOthers is called: this
	// one takes its place. Without it all that an earlier life left is taken away, on every
	// interface.
	Keep bool
	Log  *slog.Logger // nil: no log
}

// means is how a Way does it. Only a Relay uses it, one call at a time.
type means interface {
	// move makes the place the one that is used.
	move(Place) error
	// set sends on for these addresses, and for no others. changed names those that are not as
	// they were when set last returned nil.
	set(targets map[netip.Addr]Target, changed []netip.Addr) error
	// sent returns how many packets were sent on for an address.
	sent(netip.Addr) (uint64, error)
	close() error
}

// Open gets all that a way needs ready, so that Set has little to do. Auto takes the first
// of the others that can be had, and Why says what was wrong with those before it; any
// other that cannot be had is an error.
func Open(c Config) (*Relay, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{log: c.Log, targets: map[netip.Addr]Target{}}
	ways := []Way{c.Way}
	if c.Way == Auto {
		ways = []Way{EBPF, Nftables, Plain}
	}
	for _, w := range ways {
		m, err := open(w, c)
		if err != nil {
			r.why = errors.Join(r.why, fmt.Errorf("%s: %w", w, err))
			continue
		}
		r.way, r.means = w, m
		if !c.Keep {
			// Programs end with their process; tables do not.
			if err := Remove(c.State); err != nil {
				return nil, errors.Join(err, m.close())
			}
		}
		return r, nil
	}
	return nil, fmt.Errorf("send packets of older connections on: %w", r.why)
}

func open(way Way, c Config) (means, error) {
	switch way {
	case EBPF:
		return openProgram(c.Place, c.Mark)
	case Nftables:
		return openTables(c)
	case Plain:
		return plain{}, nil
	}
	return nil, errors.New("no such way")
}

// Way returns the way that is used.
func (r *Relay) Way() Way { return r.way }

// Why returns why the way is not a better one; nil if it is the best, or was asked for.
func (r *Relay) Why() error { return r.why }

// A setting is a Set that is under way.
type setting struct {
	vip netip.Addr
	to  Target
	err error
}

// Set sends packets for the virtual address on to the target from now on: those of
// connections that this host does not have, of TCP and of QUIC. The zero Target ends it. What
// several say at once is done in one step: that of nftables writes the tables of all addresses.
func (r *Relay) Set(vip netip.Addr, to Target) error {
	s := &setting{vip: vip, to: to}
	r.queue.Do(s, r.setAll)
	return s.err
}

// setAll does what several said.
func (r *Relay) setAll(all []*setting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.write(all)
	if err == nil {
		return
	}
	for _, s := range all {
		if s.err = err; len(all) > 1 { // what is wrong with one must not be the others' fault
			s.err = r.write([]*setting{s})
		}
		if s.err != nil {
			s.err = fmt.Errorf("send packets for %s on: %w", s.vip, s.err)
		}
	}
}

// write makes targets what several said, all of it or nothing. r.mu is held.
func (r *Relay) write(all []*setting) error {
	next := maps.Clone(r.targets)
	for _, s := range all {
		if s.to.Until == 0 {
			delete(next, s.vip)
		} else {
			next[s.vip] = s.to
		}
	}
	var changed []netip.Addr
	for _, s := range all {
		if next[s.vip] != r.targets[s.vip] {
			changed = append(changed, s.vip)
		}
	}
	if len(changed) == 0 && r.said {
		return nil
	}
	if err := r.means.set(next, changed); err != nil {
		return err
	}
	r.said = true
	for _, vip := range changed {
		if to := next[vip]; to.MAC != r.targets[vip].MAC {
			r.log.Info("older connections", "vip", vip, "to", to.Addr, "way", r.way)
		}
	}
	r.targets = next
	return nil
}

// Move says that the interface is another, or has another hardware address.
func (r *Relay) Move(to Place) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.means.move(to)
	if err == nil {
		err = r.means.set(r.targets, slices.Collect(maps.Keys(r.targets)))
	}
	if err != nil {
		return fmt.Errorf("send packets on through %s: %w", to.Name, err)
	}
	return nil
}

// EndOthers ends what other processes of a node send on: those of the relays stay. It is for who
// takes another's place, once every relay was told of every address. An end before would leave
// those without that were not told of yet.
func EndOthers(state string, relays []*Relay) error {
	var stay []string
	for _, r := range relays {
		if n, is := r.means.(*rules); is {
			stay = append(stay, n.name)
		}
	}
	return removeBut(state, stay)
}

// Sent returns how many packets were sent on for an address since Open.
func (r *Relay) Sent(vip netip.Addr) (uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.means.sent(vip)
}

// Close ends sending on.
func (r *Relay) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.means.close()
}

// plain sends nothing on.
type plain struct{}

func (plain) move(Place) error                              { return nil }
func (plain) set(map[netip.Addr]Target, []netip.Addr) error { return nil }
func (plain) sent(netip.Addr) (uint64, error)               { return 0, nil }
func (plain) close() error                                  { return nil }

// slots gives each address a small number, so that counts outlive their targets.
type slots []netip.Addr

// of returns the number of an address, a new one if it has none.
func (s *slots) of(vip netip.Addr) uint32 {
	if i := slices.Index(*s, vip); i >= 0 {
		return uint32(i)
	}
	*s = append(*s, vip)
	return uint32(len(*s) - 1)
}
