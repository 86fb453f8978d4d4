package beat

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/datagram"
	"proxyd/internal/ha/detect"
)

// A thread is what the heartbeat's own thread tells of itself.
type thread struct {
	priority atomic.Pointer[string] // why it does not run in real time; nil if it does
	late     atomic.Int64           // the longest that it came too late, in nanoseconds
	stalls   atomic.Uint64          // times that it came more than two beats late
	ending   uint32                 // not 0: it need not go on; a place as in lately
}

// lately is what has happened to one peer since the heartbeat's thread last looked: places
// that are not 0. They are set by whoever sends and receives, and cleared by the thread.
type lately []uint32

const (
	latelyTold  = iota // it was told something
	latelyHeard        // it was heard, and its election loop turns
	latelyPaths        // it was heard on the first path; those of the others follow
)

func (l lately) note(what int) {
	if what < len(l) {
		atomic.StoreUint32(&l[what], 1)
	}
}

// looksAtMost is after how many beats at the most the thread does its work though all is
// well: whether the carriers' path is silent depends on its looking.
const looksAtMost = 8

// beat says that this node lives where the election's loop has not said it in time, and
// judges who is silent, until ctx ends. It does this on a thread of its own, which the
// kernel wakes and runs before others: whatever else this process has to do, it is on time,
// and it knows when it was not. It allocates nothing.
//
// Where everybody was told and heard since its last beat there is nothing to do, and it
// sleeps on without having come back to the runtime: that would cost an idle node more than
// all else that it does.
//
// What arrives is read by a goroutine for each path, which costs less; before anyone is
// judged the thread itself takes what still waits.
func (m *Mesh) beat(ctx context.Context) {
	runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
	if err := realtime(); err != nil {
		why := err.Error()
		m.thread.priority.Store(&why)
		m.Log.Warn(why)
	}
	in, room := make([]byte, maxDatagram+1), make([]byte, 0, maxDatagram)
	defer context.AfterFunc(ctx, func() { atomic.StoreUint32(&m.thread.ending, 1) })()
	var peers []lately
	for _, p := range m.peers {
		if p != nil {
			peers = append(peers, p.lately)
		}
	}
	next := m.Now()
	for ctx.Err() == nil {
		m.lateBy(m.thread.sleep(next, m.Heartbeat, peers))
		now := m.Now()
		m.drain(in, room)
		m.pulse(now, &room)
		m.judge(m.Now())
		b := clock.Instant(m.Heartbeat)
		next = (now/b+1)*b + b/4 // a little after the election's machines beat
	}
}

// drain takes what has arrived on the paths. It is bounded: a flood must not keep the beat
// from its turn.
func (m *Mesh) drain(in, room []byte) {
	var from datagram.Endpoint
	for i, s := range m.sockets {
		for range 256 {
			n := datagram.Receive(s.fd, in, &from)
			if n < 0 {
				break
			}
			m.take(in[:n], i, from.Addr(), room)
		}
	}
}

// read takes what arrives on one path until its socket is closed.
func (m *Mesh) read(path int) {
	room := make([]byte, 0, maxDatagram)
	m.sockets[path].await(make([]byte, maxDatagram+1), func(b []byte, from netip.AddrPort) { m.take(b, path, from, room) })
}

func (m *Mesh) lateBy(d time.Duration) {
	if int64(d) > m.thread.late.Load() {
		m.thread.late.Store(int64(d))
	}
	if d > 2*m.Heartbeat {
		m.thread.stalls.Add(1)
	}
}

// pulse says to each peer that was not told anything for more than a beat that this
// process lives, and for how long its election's loop has stood still: that is no word of
// the loop, and renews nothing.
func (m *Mesh) pulse(now clock.Instant, room *[]byte) {
	turned := clock.Instant(m.turned.Load())
	if turned == 0 {
		return // it has not begun
	}
	stood := uint8(min(now.Sub(turned)/m.Heartbeat, 255))
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.mu.Lock()
		if now.Sub(p.sent) > m.Heartbeat*5/4 {
			*room = m.say(p, now, *room, stood, nil)
			m.send(p.aimed, *room)
		}
		p.mu.Unlock()
	}
}

// judge tells of peers that fell silent.
func (m *Mesh) judge(now clock.Instant) {
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		p.mu.Lock()
		p.signs.Tick(now)
		for i := range p.ways {
			p.ways[i].seen.Tick(now)
		}
		if p.alive && p.signs.Silent(now) {
			p.alive = !m.tell(ha.MeshEvent{Kind: ha.Silent, From: p.id, At: now, Info: m.silence(p, now)})
			select {
			case m.unheard <- struct{}{}:
			default:
			}
		}
		p.mu.Unlock()
	}
}

// silence says what a peer's silence is.
func (m *Mesh) silence(p *peer, now clock.Instant) string {
	if d := time.Duration(p.stood) * m.Heartbeat; d >= detect.Limit(m.Heartbeat)/2 {
		return fmt.Sprintf("its process lives, and its election loop stands still for %v", d)
	}
	heard, _ := p.signs.Heard()
	return fmt.Sprintf("nothing heard for %v", now.Sub(heard).Round(time.Millisecond))
}
