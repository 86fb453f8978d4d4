package ha

import (
	"encoding/binary"
	"time"

	"proxyd/internal/clock"
)

// pulse is what two nodes tell each other with every beat in order to measure the path
// between them. It decides nothing.
type pulse struct {
	Beat uint64        // number of the beat, of those to this receiver
	Got  uint64        // beats that came from the receiver since it was heard again
	Wall int64         // the sender's wall clock, in microseconds since 1970
	Sent clock.Instant // by the sender's own clock
	Echo clock.Instant // Sent of the receiver's latest pulse; 0 if there was none
	Kept time.Duration // how long the sender has had that
}

func (p *pulse) append(b []byte) []byte {
	b = binary.AppendUvarint(b, p.Beat)
	b = binary.AppendUvarint(b, p.Got)
	b = binary.AppendVarint(b, p.Wall)
	b = binary.AppendUvarint(b, uint64(p.Sent))
	b = binary.AppendUvarint(b, uint64(p.Echo))
	return binary.AppendUvarint(b, uint64(max(p.Kept, 0)))
}

func (p *pulse) read(r *reader) error {
	*p = pulse{Beat: r.uvarint(), Got: r.uvarint(), Wall: r.varint(), Sent: clock.Instant(r.uvarint()), Echo: clock.Instant(r.uvarint()), Kept: r.duration()}
	return r.err
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// A path is what was measured between this node and a peer.
type path struct {
	beat    uint64 // of the latest that was sent
	got     uint64 // beats that came since the peer was heard again
	echo    clock.Instant
	echoAt  clock.Instant
	rtt     time.Duration // smoothed; 0: none yet
	rttAt   clock.Instant // of the latest answer: until then the peer heard us
	skew    time.Duration // the peer's wall clock is ahead by that; smoothed
	in, out losses
}

// losses counts what came of what was sent, over a minute or two.
type losses struct {
	sent, got   uint64 // latest
	from        [2]mark
	turned      clock.Instant
	everStarted bool
}

// mark is what was counted at an instant.
type mark struct{ sent, got uint64 }

// lossTime is after how long what was counted is begun anew: the figure is of the last
// one to two of them.
const lossTime = time.Minute

// count takes in that got of sent came. Less than before is another life.
func (l *losses) count(now clock.Instant, sent, got uint64) {
	if !l.everStarted || sent < l.sent || got < l.got {
		*l = losses{from: [2]mark{{sent, got}, {sent, got}}, turned: now, everStarted: true}
	}
	l.sent, l.got = sent, got
	if now.Sub(l.turned) >= lossTime {
		l.from = [2]mark{l.from[1], {sent, got}}
		l.turned = now
	}
}

// leastBeats is of how many beats a share means something.
const leastBeats = 100

// share returns the part that was lost, 0 to 1, and whether enough was counted.
func (l *losses) share() (float64, bool) {
	sent, got := l.sent-l.from[0].sent, l.got-l.from[0].got
	if sent < leastBeats {
		return 0, false
	}
	return max(1-float64(got)/float64(sent), 0), true
}

// pulse makes the next one to p.
func (n *Node) pulse(now clock.Instant, p *peer) pulse {
	w := &p.path
	w.beat++
	u := pulse{Beat: w.beat, Got: w.got, Wall: time.Now().UnixMicro(), Sent: now, Echo: w.echo}
	if w.echo != 0 {
		u.Kept = now.Sub(w.echoAt)
	}
	return u
}

// pulsed takes one in.
func (n *Node) pulsed(now clock.Instant, p *peer, u pulse) {
	w := &p.path
	w.got++
	w.echo, w.echoAt = u.Sent, now
	w.in.count(now, u.Beat, w.got)
	rtt := now.Sub(u.Echo) - u.Kept
	if u.Echo == 0 || rtt < 0 || rtt > time.Minute {
		return
	}
	w.out.count(now, w.beat, u.Got)
	skew := time.Duration(u.Wall-time.Now().UnixMicro())*time.Microsecond + rtt/2
	if w.rtt == 0 || (skew-w.skew).Abs() > time.Second {
		w.rtt, w.skew = max(rtt, 1), skew
	} else {
		// A turn of either loop that came late is no property of the path: fall quickly,
		// rise slowly.
		if rtt < w.rtt {
			w.rtt += (rtt - w.rtt) / 4
			w.skew += (skew - w.skew) / 4
		} else {
			w.rtt += (rtt - w.rtt) / 32
		}
		w.rtt = max(w.rtt, 1)
	}
	w.rttAt = now
}

// PathView is what was measured between this node and another.
type PathView struct {
	RTT     time.Duration // 0: not known
	Skew    time.Duration // the other's wall clock is ahead by that; known if RTT is
	HearsUs time.Duration // since it last answered a beat of ours; -1 never
	// LossIn and LossOut are the parts of beats that did not come, from it and to it, on
	// all carriers together; -1 is not known.
	LossIn, LossOut float64
}

func (p *peer) pathView(now clock.Instant) PathView {
	w := &p.path
	v := PathView{RTT: w.rtt, Skew: w.skew, HearsUs: -1, LossIn: -1, LossOut: -1}
	if w.rttAt != 0 {
		v.HearsUs = max(now.Sub(w.rttAt), 0)
	}
	if s, ok := w.in.share(); ok {
		v.LossIn = s
	}
	if s, ok := w.out.share(); ok {
		v.LossOut = s
	}
	return v
}
