package ha

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/ha/detect"
	"proxyd/internal/ha/election"
)

// A world is some nodes, the network between them and the LAN on which they hold
// addresses, all in virtual time: it is made inside a synctest bubble.
type world struct {
	t     *testing.T
	began time.Time
	nodes map[string]*host
	names []string

	mu     sync.Mutex
	rand   *rand.Rand
	loss   float64
	lossOf map[string]float64 // of what a host sends, besides
	delay  time.Duration
	cut    map[[2]string]bool                  // from, to: nothing goes through
	lan    map[string]map[string]clock.Instant // VIP, host: until when it answers
	adapt  func(name string, c *Config)        // what a node's configuration has beyond the usual
	away   map[string]bool                     // nodes that reach no arbiter
	slow   time.Duration                       // that it takes a host to take an address or to let it go
	twice  []string                            // instants at which two answered
	moved  []string                            // who began to answer, in order
}

// A host is one node with what the operating system does for it.
type host struct {
	*Node
	w      *world
	name   string
	id     election.ID
	mesh   *meshEnd
	cancel func()
	ended  chan struct{}
	frozen bool
	deaf   bool          // hears nothing on the LAN
	hushed clock.Instant // when it heard the last frame there
	broken error
	parked clock.Instant // until when it drains
	onward string        // whom it sends older connections on to
}

func (w *world) now() clock.Instant { return clock.Instant(time.Since(w.began)) + 1e9 }

const (
	beat  = 40 * time.Millisecond
	lease = 240 * time.Millisecond
	guard = 30 * time.Millisecond
)

func newWorld(t *testing.T, names ...string) *world {
	w := &world{t: t, began: time.Now(), nodes: map[string]*host{}, names: names, rand: rand.New(rand.NewPCG(1, 2)),
		delay: 200 * time.Microsecond, cut: map[[2]string]bool{}, lan: map[string]map[string]clock.Instant{}, away: map[string]bool{}}
	return w
}

func (w *world) id(name string) election.ID {
	return ID(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + slices.Index(w.names, name))}), 7946))
}

// start starts a node; VIPs are given as name to settings.
func (w *world) start(name string, vips map[string]*config.VIP) *host {
	w.t.Helper()
	h := &host{w: w, name: name, id: w.id(name), ended: make(chan struct{})}
	h.mesh = &meshEnd{host: h, events: make(chan MeshEvent, 1024), heard: map[string]clock.Instant{}}
	var voters []election.ID
	for _, n := range w.names {
		voters = append(voters, w.id(n))
	}
	holders := map[string]Holder{}
	for vip := range vips {
		holders[vip] = &fakeHolder{h, vip}
	}
	c := Config{
		Self: h.id, Voters: voters, Name: name, Version: "test", Hash: "abc",
		Timing: config.Timing{Heartbeat: beat, Lease: lease, Guard: guard},
		VIPs:   vips, Mesh: h.mesh, Holders: holders, Now: w.now, Log: slog.New(slog.DiscardHandler),
	}
	if w.adapt != nil {
		w.adapt(name, &c)
	}
	n, err := New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	h.Node = n
	w.mu.Lock()
	w.nodes[name] = h
	w.mu.Unlock()
	ctx, cancel := contextWithCancel(w.t)
	h.cancel = cancel
	go func() { defer close(h.ended); _ = n.Run(ctx) }()
	go h.mesh.watch(ctx.Done())
	return h
}

// kill ends the process of a node: its peers' lifelines close and are refused.
func (w *world) kill(name string) {
	w.mu.Lock()
	h := w.nodes[name]
	delete(w.nodes, name)
	for _, answers := range w.lan {
		delete(answers, name) // the fence falls with the process
	}
	for other, o := range w.nodes {
		if !w.cut[[2]string{name, other}] && !w.cut[[2]string{other, name}] {
			o.mesh.tell(MeshEvent{Kind: Gone, From: h.id, At: w.now(), Info: "lifeline closed, reconnect refused"})
			delete(o.mesh.heard, name)
		}
	}
	h.frozen = true
	w.mu.Unlock()
	h.cancel()
	<-h.ended
}

// isolate cuts a node off from all others, both ways; heal mends every cut.
func (w *world) isolate(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.names {
		if n != name {
			w.cut[[2]string{n, name}], w.cut[[2]string{name, n}] = true, true
		}
	}
}

// deafen makes a node hear nothing on the LAN, or hear again.
func (w *world) deafen(name string, deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[name].deaf, w.nodes[name].hushed = deaf, w.now()
}

// reach is how a node reaches an arbiter.
func (w *world) reach(name string) func(context.Context, netip.Addr) error {
	return func(ctx context.Context, _ netip.Addr) error {
		w.mu.Lock()
		away := w.away[name]
		w.mu.Unlock()
		if away {
			<-ctx.Done()
			return errors.New("no answer")
		}
		return nil
	}
}

// lose makes a node reach no arbiter, or reach it again.
func (w *world) lose(name string, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[name] = away
}

func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
}

// holders returns which hosts answer for a VIP now.
func (w *world) holders(vip string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answering(vip)
}

func (w *world) answering(vip string) []string {
	var out []string
	for _, n := range w.names {
		if until, there := w.lan[vip][n]; there && w.now() < until {
			out = append(out, n)
		}
	}
	return out
}

// until waits, in virtual time, for what ok reports, and returns how long it took.
func (w *world) until(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			w.t.Fatalf("%s: not within %v; lan %v", what, limit, w.lan)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(began)
}

// held waits until exactly the named host answers for vip.
func (w *world) held(vip, name string, limit time.Duration) time.Duration {
	w.t.Helper()
	return w.until(limit, vip+" held by "+name, func() bool { return slices.Equal(w.holders(vip), []string{name}) })
}

// someone waits until one host answers for vip, and returns it.
func (w *world) someone(vip string, limit time.Duration) string {
	w.t.Helper()
	w.until(limit, vip+" held", func() bool { return len(w.holders(vip)) == 1 })
	return w.holders(vip)[0]
}

func (w *world) never2(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.twice) > 0 {
		t.Errorf("two hosts answered: %v", w.twice)
	}
}

// meshEnd is one node's end of the network.
type meshEnd struct {
	host   *host
	events chan MeshEvent
	heard  map[string]clock.Instant // w.mu guards it, and sent
	sent   int                      // frames, lost ones too
}

func (m *meshEnd) Events() <-chan MeshEvent { return m.events }

func (m *meshEnd) tell(e MeshEvent) {
	select {
	case m.events <- e:
	default:
	}
}

func (m *meshEnd) Send(to election.ID, msg []byte) {
	w, from := m.host.w, m.host
	msg = slices.Clone(msg)
	w.mu.Lock()
	defer w.mu.Unlock()
	m.sent++
	if from.frozen || w.rand.Float64() < w.loss+w.lossOf[from.name] {
		return
	}
	copies := 1
	if w.loss > 0 && w.rand.IntN(20) == 0 {
		copies = 2
	}
	for range copies {
		d := w.delay + time.Duration(w.rand.Int64N(int64(w.delay)))
		time.AfterFunc(d, func() { w.deliver(from, to, msg) })
	}
}

func (w *world) deliver(from *host, to election.ID, msg []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, h := range w.nodes {
		if h.id != to || w.cut[[2]string{from.name, name}] || w.nodes[from.name] != from {
			continue
		}
		if h.mesh.heard[from.name] == 0 {
			h.mesh.tell(MeshEvent{Kind: Alive, From: from.id, At: w.now()})
		}
		h.mesh.heard[from.name] = w.now()
		h.mesh.tell(MeshEvent{Kind: Message, From: from.id, Msg: msg, At: w.now(), Newest: from.Wire.Newest})
	}
}

// watch tells of silence, as package beat does.
func (m *meshEnd) watch(done <-chan struct{}) {
	tick := time.NewTicker(beat / 2)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		w := m.host.w
		w.mu.Lock()
		for name, at := range m.heard {
			if at != 0 && w.now().Sub(at) > detect.Limit(beat) {
				m.heard[name] = 0
				m.tell(MeshEvent{Kind: Silent, From: w.id(name), At: w.now(), Info: "nothing heard"})
			}
		}
		w.mu.Unlock()
	}
}

func (m *meshEnd) Challenge(to election.ID, d time.Duration) bool {
	w := m.host.w
	w.mu.Lock()
	answers := false
	for name, h := range w.nodes {
		if h.id == to {
			answers = !h.frozen && !w.cut[[2]string{name, m.host.name}] && !w.cut[[2]string{m.host.name, name}]
		}
	}
	w.mu.Unlock()
	if !answers {
		m.host.pause(d)
	}
	return answers
}

// pause waits for d, or until the node has ended.
func (h *host) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-h.ended:
	}
}

func (m *meshEnd) Signs(election.ID) Signs { return Signs{} }

// fakeHolder is one VIP on one host of the LAN.
type fakeHolder struct {
	host *host
	vip  string
}

// drainTime is how long a parked address goes on accepting.
const drainTime = 30 * time.Second

func (f *fakeHolder) Hold(until clock.Instant) error {
	w := f.host.w
	time.Sleep(w.slow)
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.host.broken != nil {
		return f.host.broken
	}
	if w.nodes[f.host.name] != f.host {
		return nil
	}
	if w.lan[f.vip] == nil {
		w.lan[f.vip] = map[string]clock.Instant{}
	}
	f.host.parked = 0
	if w.now() >= w.lan[f.vip][f.host.name] {
		w.moved = append(w.moved, f.host.name)
	}
	w.lan[f.vip][f.host.name] = until
	if now := w.answering(f.vip); len(now) > 1 {
		w.twice = append(w.twice, f.vip+" at "+time.Since(w.began).String())
	}
	return nil
}

// Yield parks the address for drainTime, if it is held.
func (f *fakeHolder) Yield(netip.Addr) error {
	w := f.host.w
	time.Sleep(w.slow)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, held := w.lan[f.vip][f.host.name]; held {
		f.host.parked = w.now().Add(drainTime)
		delete(w.lan[f.vip], f.host.name)
	}
	return nil
}

func (f *fakeHolder) Drop() error {
	f.host.w.mu.Lock()
	defer f.host.w.mu.Unlock()
	delete(f.host.w.lan[f.vip], f.host.name)
	f.host.parked = 0
	return nil
}

func (f *fakeHolder) Announce() error { return nil }

func (f *fakeHolder) Draining() (clock.Instant, int) {
	f.host.w.mu.Lock()
	defer f.host.w.mu.Unlock()
	if f.host.parked <= f.host.w.now() {
		return 0, 0
	}
	return f.host.parked, 3
}

// Seat names the host by the last byte of its hardware address.
func (f *fakeHolder) Seat() ([6]byte, netip.Addr) {
	return [6]byte{2, 0, 0, 0, 0, f.host.name[0]}, netip.Addr{}
}

func (f *fakeHolder) SendOn(mac [6]byte, _ netip.Addr, until clock.Instant) error {
	f.host.w.mu.Lock()
	defer f.host.w.mu.Unlock()
	if f.host.onward = ""; until != 0 {
		f.host.onward = string(mac[5:])
	}
	return nil
}

func (f *fakeHolder) Probe(since clock.Instant, d time.Duration) (taken, heard bool, err error) {
	w := f.host.w
	f.host.pause(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.host.deaf {
		return false, f.host.hushed >= since, nil
	}
	for _, n := range w.answering(f.vip) {
		taken = taken || n != f.host.name && !w.cut[[2]string{n, f.host.name}]
	}
	return taken, true, nil
}
