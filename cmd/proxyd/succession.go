package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/ha/wire"
)

// A succession is what a node knows of the processes before and after it.
type succession struct {
	from     *predecessor    // whose place this process took; nil: nobody's
	binary   string          // the file of this program, for the next process
	life     context.Context // of what is not traffic
	end      func()          // ends it
	lives    *lives          // how the lives before this one ended
	handed   chan *successor // to whom all was given: this process has only to end
	upgrades upgrades

	succeeding bool // another process is about to take this one's place; node.mu guards it
}

func newSuccession(from *predecessor) succession {
	return succession{from: from, handed: make(chan *successor, 1)}
}

// Two processes change places in this conversation; those marked < are said by the one
// that comes.
//
//	hello  <  who it is
//	sockets   every listening socket. It holds them and takes nobody in yet
//	ready  <  it could serve: the file is read, the first round of checks is done
//	state     what the cluster part knows. From here on the one that goes decides nothing
//	set    <  that is taken over
//	yours     from here on the one that comes decides; there is no way back
//	up     <  it serves. The one that goes takes nobody in any more
//	left      every second: how many connections that one still has, and those before it. It
//	          ends with its end
//	part   <  those at an address are to end, or are cut: its drain is over
//
// In the place of each of its words the one that comes may say failed, and why; the other
// goes on then as if nothing had happened. Words and fields that are not known are passed
// over: the two may be of two releases, either of which is the newer one.
const (
	sayHello   = "hello"
	saySockets = "sockets"
	sayReady   = "ready"
	sayState   = "state"
	saySet     = "set"
	sayYours   = "yours"
	sayUp      = "up"
	sayLeft    = "left"
	sayPart    = "part"
	sayFailed  = "failed"
)

// The versions of the conversation that this program speaks. The one that comes names them,
// the one that goes chooses the newest that both have, and says which it is with the sockets.
const (
	oldestSuccession = 1
	newestSuccession = 1
)

// successions returns the versions that this program speaks; a drill's program pretends to speak
// more.
func successions() (oldest, newest int) {
	return oldestSuccession, newestSuccession + int(speaks().Newest-wire.Newest)
}

// agree returns the version of the conversation between this program and one that says hello.
func agree(h helloWords) (int, error) {
	oldest, newest := successions()
	theirs := max(h.Newest, h.Succession)
	chosen := min(newest, theirs)
	if chosen < oldest || chosen < h.Succession {
		older, than := "older", "newer"
		if h.Succession > newest {
			older, than = than, older
		}
		return 0, fmt.Errorf("proxyd %s is too much %s than %s for one to take the other's place: the hand-over between processes has the versions %s there, and %s here; "+
			"upgrade to a release in between first, or restart this node (its VIPs are handed over)",
			h.Version.Version, older, version, span(h.Succession, theirs), span(oldest, newest))
	}
	return chosen, nil
}

// span writes a range of versions.
func span(oldest, newest int) string {
	if oldest == newest {
		return fmt.Sprint(oldest)
	}
	return fmt.Sprintf("%d to %d", oldest, newest)
}

// Names of the sockets on their way; what is behind a prefix is the address.
const (
	listenerPrefix = "listener "
	adminPrefix    = "admin "
	memberPrefix   = "member "  // then tcp or udp, and the address
	packetPrefix   = "packet "  // then the number among the sockets of the address, and the address
	processPrefix  = "process " // then the process's number: what tells when it has ended
	adminSocket    = adminPrefix + "socket"
)

const (
	// answerTime is how long the other process may take for a word that costs it nothing.
	answerTime = 5 * time.Second
	// readyTime is how long the one that comes may take to be ready: it looks names up and
	// checks every server.
	readyTime = 30 * time.Second
)

type helloWords struct {
	Succession int             `json:"succession"` // the oldest version that it speaks: the first release wants it to be its own
	Newest     int             `json:"newest"`     // 0: as Succession
	PID        int             `json:"pid"`
	Version    control.Version `json:"version"`
}

type socketsWords struct {
	Succession int             `json:"succession"` // the version that is spoken; 0: the first
	Version    control.Version `json:"version"`
	PID        int             `json:"pid"`
	// Packets are the UDP sockets of the listeners, by address, as the kernel numbers them.
	Packets map[string][]packetWords `json:"packets,omitempty"`
}

// packetWords say whose a socket is: the connections' whose ids have the tag.
type packetWords struct {
	Tag [2]byte `json:"tag"`
	PID int     `json:"pid"`
}

// stateWords is what a process knows that no file has.
type stateWords struct {
	Shared  []byte          `json:"shared"` // entries of the shared state, as gossip has them
	Done    uint64          `json:"upgrades_done"`
	Failed  uint64          `json:"upgrades_failed"`
	Cluster json.RawMessage `json:"cluster,omitempty"` // a clusterState; nothing without VIPs and cluster
}

type leftWords struct {
	Connections int64 `json:"connections"`
	// At is how many came in at each address of this host; nil in a release that does not say so.
	At map[netip.Addr]int `json:"at"`
}

type partWords struct {
	Address netip.Addr `json:"address"`
	Force   bool       `json:"force"`
}

type failedWords struct {
	Error string `json:"error"`
}
