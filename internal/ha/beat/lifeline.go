package beat

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
	"proxyd/internal/ha"
	"proxyd/internal/ha/election"
)

// A lifeline is dialled by each node to each other and kept open. The dialler sends
//
//	version 1 | sender 1 | nonce 16 | MAC 32
//
// and the other side answers version 1 | MAC 32 over the nonce, in the version of the call,
// which only a living process with the cluster's secret can. From then on nothing is sent; the kernel closes
// the connection when the process is gone.
//
// A call that was recorded is not answered again, and one that is not known to be of now (its
// caller has not been heard yet, or has another life) is answered and given its place for
// handshakeTime: if it is a node's, that calls again.
const (
	nonceOfCall = 16
	callSize    = 1 + 1 + nonceOfCall + sha256.Size
	answerSize  = 1 + sha256.Size
)

// handshakeTime bounds how long a lifeline's handshake may take.
const handshakeTime = 2 * time.Second

func (k keys) mac(purpose string, parts ...[]byte) ([]byte, error) {
	key, err := k.derive("lifeline " + purpose)
	if err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil), nil
}

// call is what a caller sends to a voter.
func (k keys) call(version, self uint8, nonce [nonceOfCall]byte, to election.ID) ([]byte, error) {
	msg := append([]byte{version, self}, nonce[:]...)
	sum, err := k.mac("call", msg, []byte(to))
	return append(msg, sum...), err
}

// answer is what the voter answers.
func (k keys) answer(version uint8, nonce [nonceOfCall]byte, self election.ID) ([]byte, error) {
	sum, err := k.mac("answer", nonce[:], []byte(self))
	return append([]byte{version}, sum...), err
}

// call makes the handshake as the one who dialled p.
func (m *Mesh) call(c net.Conn, p *peer) error {
	p.mu.Lock()
	version := m.Wire.To(p.newest)
	p.mu.Unlock()
	nonce := m.stamp.next(m.epoch, m.Now())
	k := (*m.ring.Load())[0]
	msg, err := k.call(version, m.self, nonce, p.id)
	if err != nil {
		return err
	}
	if _, err := c.Write(msg); err != nil {
		return err
	}
	var got [answerSize]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return err
	}
	want, err := k.answer(version, nonce, p.id)
	if err != nil {
		return err
	}
	if !hmac.Equal(got[:], want) {
		return errors.New("wrong answer: another secret or version")
	}
	return nil
}

// answer makes the handshake as the one who was dialled. stays reports whether the call is known
// to be one of now.
func (m *Mesh) answer(c net.Conn) (stays func() bool, err error) {
	var got [callSize]byte
	if _, err := io.ReadFull(c, got[:]); err != nil {
		return nil, err
	}
	if !m.Wire.Knows(got[0]) {
		return nil, errVersion
	}
	callers := m.marked(got[1])
	if len(callers) == 0 {
		return nil, errStranger
	}
	nonce := [nonceOfCall]byte(got[2:])
	for _, k := range *m.ring.Load() {
		want, err := k.call(got[0], got[1], nonce, m.Self)
		if err != nil {
			return nil, err
		}
		if !hmac.Equal(got[:], want) {
			continue
		}
		if !m.calls.take(nonce) {
			return nil, errReplay
		}
		if !m.turns() {
			// A process whose election loop stands still must be replaced.
			return nil, errStuck
		}
		answer, err := k.answer(got[0], nonce, m.Self)
		if err != nil {
			return nil, err
		}
		_, err = c.Write(answer)
		return func() bool { return m.ofNow(callers, nonce) }, err
	}
	return nil, errStranger
}

// errStuck is why a call is not answered though it is a node's.
var errStuck = errors.New("the election loop stands still")

// serveLifelines answers who dials until ctx ends.
func (m *Mesh) serveLifelines(ctx context.Context) {
	var open places
	for {
		c, err := m.tcp.Accept()
		if err != nil {
			if isClosed(err) {
				return
			}
			m.Log.Warn("lifeline", "error", err)
			if !wait(ctx, 100*time.Millisecond) {
				return
			}
			continue
		}
		from := addrOf(c)
		voter := m.known(from)
		if !open.take(from, voter) {
			m.dropped.busy.Add(1)
			c.Close()
			continue
		}
		go func() { // ends with the connection, or with ctx
			defer open.leave(from, voter)
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			_ = c.SetDeadline(time.Now().Add(handshakeTime))
			stays, err := m.answer(c)
			switch {
			case errors.Is(err, errReplay):
				m.dropped.recorded.Add(1)
				return
			case errors.Is(err, errStuck):
				return
			case err != nil:
				m.dropped.lifeline.Add(1)
				return
			}
			// The other side never sends; this waits for its end.
			var one [1]byte
			if !stays() { // until the deadline, and then it may be known
				if _, err := c.Read(one[:]); !errors.Is(err, os.ErrDeadlineExceeded) || !stays() {
					return
				}
			}
			_ = c.SetDeadline(time.Time{})
			_, _ = c.Read(one[:])
		}()
	}
}

// addrOf returns the address that a connection came from.
func addrOf(c net.Conn) netip.Addr {
	a, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return a.Addr().Unmap()
}

// known reports whether an address is that of another voter.
func (m *Mesh) known(a netip.Addr) bool {
	return slices.ContainsFunc(m.peers, func(p *peer) bool { return p != nil && p.addr.Addr() == a })
}

// keepLifeline keeps a lifeline to p until ctx ends, and tells when its end means that
// p's process is gone.
func (m *Mesh) keepLifeline(ctx context.Context, p *peer) {
	pause := m.Heartbeat
	for {
		c, err := m.dial(ctx, p, handshakeTime, "")
		if err != nil {
			if !wait(ctx, pause) {
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = m.Heartbeat
		err = m.hang(ctx, p, c)
		if ctx.Err() != nil {
			return
		}
		if at, gone := m.gone(ctx, p); gone && m.believe(ctx, p, at, err) {
			m.tell(ha.MeshEvent{Kind: ha.Gone, From: p.id, At: at, Info: fmt.Sprintf("its lifeline closed (%v) and a new one is refused", err)})
		}
	}
}

// hang waits for the end of a lifeline and returns what ended it.
func (m *Mesh) hang(ctx context.Context, p *peer, c net.Conn) error {
	p.mu.Lock()
	p.line = c
	p.mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	var one [1]byte
	_, err := c.Read(one[:])
	stop()
	p.mu.Lock()
	p.line = nil
	p.mu.Unlock()
	c.Close()
	return err
}

// believe reports whether the end of a lifeline and the refusal of a new one, begun at
// at, are the end of the process. A kernel that ends a process closes its idle
// connections in order, which nobody on the way can imitate without their sequence
// numbers. A reset may come from a firewall that was loaded just now, as the refusal
// then does: so it is believed only after two beats in which nothing was heard.
func (m *Mesh) believe(ctx context.Context, p *peer, at clock.Instant, end error) bool {
	if errors.Is(end, io.EOF) {
		return true
	}
	if !wait(ctx, 2*m.Heartbeat) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	heard, _ := p.signs.Heard()
	return heard <= at
}

// gone reports whether p's port refuses, and when that was asked. While a process dies
// its kernel may still accept for a moment, and cut that off: so it is asked again, briefly.
func (m *Mesh) gone(ctx context.Context, p *peer) (at clock.Instant, gone bool) {
	for try := range 10 {
		at = m.Now()
		c, err := m.dial(ctx, p, m.Heartbeat, "")
		switch {
		case err == nil:
			c.Close()
			return at, false // it lives, or lives again: then its datagrams tell of a new life
		case errors.Is(err, syscall.ECONNREFUSED):
			return at, true
		case !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF):
			return at, false // no answer: the network, or a frozen process
		}
		if !wait(ctx, time.Duration(try)*time.Millisecond) {
			return at, false
		}
	}
	return at, false
}

// dial makes a new lifeline to p within d, on one interface if device is not "".
func (m *Mesh) dial(ctx context.Context, p *peer, d time.Duration, device string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) {
			// A peer whose host is gone must not hold a dead connection for hours.
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000)
			if err == nil && device != "" {
				err = unix.BindToDevice(int(fd), device)
			}
		})
		return errors.Join(cerr, err)
	}}
	c, err := dialer.DialContext(ctx, "tcp", p.addr.String())
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(d))
	if err := m.call(c, p); err != nil {
		c.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// Challenge implements ha.Mesh. A frozen process does not answer, though its kernel
// still accepts.
func (m *Mesh) Challenge(to election.ID, d time.Duration) bool {
	p := m.peer(to)
	if p == nil {
		return false
	}
	// It goes the way of the heartbeat, which may be the one that is broken, and by each
	// interface of a virtual address. One answer is enough.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ways := append([]string{""}, m.Devices...)
	answers := make(chan bool, len(ways))
	for _, device := range ways {
		go func() { // ends within d, or with the first answer
			c, err := m.dial(ctx, p, d, device)
			if err == nil {
				c.Close()
			}
			// A process with another key hangs up on us. It may be the holder.
			answers <- err == nil || hungUp(err) && m.speaksForeign(p)
		}()
	}
	for range ways {
		if <-answers {
			return true
		}
	}
	return false
}

// hungUp reports whether a call was taken and ended by the other side.
func hungUp(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// wait waits for d and reports whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
