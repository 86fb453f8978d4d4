package gossip

import (
	"slices"

	"github.com/hashicorp/memberlist"
)

// What a user message of memberlist is, by its first byte. A datagram of the mesh begins
// with the version of its format, which stays below these.
const (
	deltaMark    = 0xE1 // news of the shared state, as State.Encode writes them
	questionMark = 0xE2
	answerMark   = 0xE3
)

// maxPacket is how much news goes in one packet; more goes by a stream.
const maxPacket = 1000

// maxStreams is how many pieces of large news are on their way at once. What finds no
// place is repaired when the nodes meet next.
const maxStreams = 8

// news is a small piece of news in memberlist's queue. Later news of the same name take
// its place.
type news struct {
	name string
	msg  []byte
}

func (n *news) Name() string    { return n.name }
func (n *news) Message() []byte { return n.msg }
func (n *news) Finished()       {}
func (n *news) Invalidates(b memberlist.Broadcast) bool {
	o, ok := b.(*news)
	return ok && o.name == n.name
}

// Tell gives news of the shared state to every member: small ones at once by packet, and
// again a few times with memberlist's own gossip, for packets are lost; larger ones by a
// stream to each. name is what the news are about, and encode writes them in a version of
// the wire. It does not wait.
func (g *Gossip) Tell(name string, encode func(version uint8) []byte) {
	msg := append([]byte{deltaMark}, encode(g.common())...)
	if len(msg) <= maxPacket {
		g.queue.QueueBroadcast(&news{name, msg})
		for _, v := range g.Alive() {
			if a, known := g.address[v]; known && v != g.Self {
				_ = g.list.SendToAddress(a, msg) // lost ones are sent again by the queue
			}
		}
		return
	}
	for _, n := range g.list.Members() {
		if n.Name == string(g.Self) {
			continue
		}
		select {
		case g.streams <- struct{}{}:
		default:
			g.Log.Debug("news wait until the nodes meet", "about", name, "node", n.Name)
			continue
		}
		go func() { // ends within memberlist's time-out
			defer func() { <-g.streams }()
			if err := g.list.SendReliable(n, msg); err != nil {
				g.Log.Debug("news were not delivered; the nodes give them to each other when they meet", "about", name, "node", n.Name, "error", err)
			}
		}()
	}
}

// receive takes in a user message of memberlist, which uses b again.
func (g *Gossip) receive(b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] {
	case deltaMark:
		g.merge(b[1:])
	case questionMark:
		g.asked(slices.Clone(b[1:]))
	case answerMark:
		g.answered(slices.Clone(b[1:]))
	default:
		if g.Receive != nil {
			g.Receive(slices.Clone(b)) // it decrypts in place
		}
	}
}

// merge takes in state of a peer, whole or news of it.
func (g *Gossip) merge(b []byte) {
	if g.State == nil || len(b) == 0 {
		return
	}
	if err := g.State.Merge(b); err != nil {
		g.refused.Add(1)
		g.Log.Debug("cluster state of a peer", "error", err)
	}
}
