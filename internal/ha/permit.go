package ha

import (
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha/election"
)

// A permit answers election.WantPermit. One without a peer only says what was heard.
type permit struct {
	elector  *elector
	peer     *peer
	round    uint64
	asked    clock.Instant
	keep     bool  // the machine holds, and asks to go on
	taken    bool  // somebody answers for the address
	heard    bool  // anything was heard on its network since the silence began
	answered bool  // the peer's process answered a challenge
	reached  bool  // an arbiter answered, or there is none
	lost     error // why this host has not its own address any more
	err      error
}

// wantPermit finds out, beside the loop, whether this node may hold alone. It takes two
// beats at the most: the machine asks when so much of the wait is left.
func (n *Node) wantPermit(e *elector, w election.WantPermit) {
	p := n.peer(w.Peer)
	if p == nil || len(e.holders) == 0 {
		return
	}
	n.note(Fact{Kind: FactAsk, VIP: e.name, Peer: n.nameOf(p.id)})
	n.probe(e, w.Since, permit{elector: e, peer: p, round: w.Round, asked: n.Now(), keep: w.Keep})
}

// listen finds out whether a network that was silent is so still.
func (n *Node) listen(now clock.Instant, e *elector) {
	if e.deaf && !e.asking && len(e.holders) > 0 {
		e.asking = true
		n.probe(e, now, permit{elector: e})
	}
}

// probe asks e's network, and the peer if there is one, and tells the loop.
func (n *Node) probe(e *elector, since clock.Instant, answer permit) {
	d := n.askTime()
	holder := e.holders[0]
	answer.reached = true
	go func() { // ends after d, or when the loop has ended
		var both sync.WaitGroup
		if answer.peer != nil {
			both.Go(func() { answer.reached = n.anyArbiter(d) })
		}
		both.Go(func() { answer.taken, answer.heard, answer.err = holder.Probe(since, d) })
		if answer.peer != nil && n.Lost != nil {
			both.Go(func() { answer.lost = n.Lost() })
		}
		if p := answer.peer; p != nil && !answer.keep {
			both.Go(func() { answer.answered = n.Mesh.Challenge(p.id, d) })
		}
		both.Wait()
		select {
		case n.permits <- answer:
		case <-n.done:
		}
	}()
}

// warnEvery is how often a lasting refusal to hold is worth a warning.
const warnEvery = 10 * time.Second

// permit gives the machine its answer.
func (n *Node) permit(now clock.Instant, a permit) {
	e := a.elector
	e.deaf = a.err == nil && !a.heard
	if a.peer == nil {
		e.asking = false
		return // judge tells the machine what came out
	}
	ok := a.heard && !a.answered && a.reached && a.err == nil && a.lost == nil
	log := n.Log.Debug
	// One that is heard has only just been; that is how every start begins.
	if !ok && !a.peer.alive && (e.warned == 0 || now.Sub(e.warned) > warnEvery) {
		e.warned, log = now, n.Log.Warn
	}
	switch {
	case a.lost != nil:
		log("no right to hold alone: this node is the one that cannot be heard", "vip", e.name, "error", a.lost)
	case a.err != nil:
		log("no right to hold alone: the network of the address cannot be asked", "vip", e.name, "error", a.err)
	case !a.heard:
		log("no right to hold alone: nothing at all is heard on the network of the address", "vip", e.name)
	case a.answered && a.peer.foreign != 0:
		log("no right to hold alone: the other node lives and is not understood: "+a.peer.alien, "vip", e.name, "node", n.nameOf(a.peer.id))
	case a.answered:
		log("no right to hold alone: the other node's process answers; only the heartbeat's path is broken",
			"vip", e.name, "node", n.nameOf(a.peer.id))
	case !a.reached:
		log("no right to hold alone: no arbiter answers; this node may be the one that is cut off", "vip", e.name)
	case a.taken && !a.keep:
		n.Log.Info("the other node's kernel answers for the address, its process does not: it is frozen or dead",
			"vip", e.name, "node", n.nameOf(a.peer.id))
	}
	n.notePermit(now, a, ok)
	n.step(now, e, election.Permit{Round: a.round, Ok: ok})
}
