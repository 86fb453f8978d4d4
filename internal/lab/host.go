package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// hostInterface is the one interface that every host has besides loopback.
const hostInterface = "eth0"

// A Host is a machine on the LAN: a namespace, a cable to the switch, and processes.
type Host struct {
	Name string
	Addr netip.Addr
	MAC  net.HardwareAddr

	space *Space
	lan   *lan

	mu    sync.Mutex
	procs []*Process
}

// newHost makes a host and plugs it in. The last byte of its address is that of its MAC,
// too, so that a packet dump can be read.
func newHost(l *lan, name string, addrs ...netip.Prefix) (*Host, error) {
	space, err := NewSpace()
	if err != nil {
		return nil, err
	}
	last := addrs[0].Addr().AsSlice()
	h := &Host{
		Name:  name,
		Addr:  addrs[0].Addr(),
		MAC:   net.HardwareAddr{0x02, 0, 0, 0, 0, last[len(last)-1]},
		space: space,
		lan:   l,
	}
	if err := l.plug(h.port(), space, h.MAC, addrs...); err != nil {
		space.Close()
		return nil, fmt.Errorf("host %s: %w", name, err)
	}
	return h, nil
}

// port is the name of the host's port at the switch.
func (h *Host) port() string { return "to-" + h.Name }

// Do runs f inside the host: the sockets it opens are the host's.
func (h *Host) Do(f func() error) error { return h.space.Do(f) }

// start runs a process on the host.
func (h *Host) start(c command) (*Process, *os.File, error) {
	var p *Process
	var out *os.File
	err := h.space.Do(func() error {
		var err error
		p, out, err = start(c)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("host %s: %w", h.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	alive := h.procs[:0]
	for _, q := range h.procs {
		if q.Alive() {
			alive = append(alive, q)
		}
	}
	h.procs = append(alive, p)
	return p, out, nil
}

// Cut pulls the cable: the host loses its carrier.
func (h *Host) Cut() error { return h.lan.carrier(h.port(), false) }

// Uncut plugs the cable in again.
func (h *Host) Uncut() error { return h.lan.carrier(h.port(), true) }

// Silence makes the switch drop all frames from and to the host, which keeps its carrier.
func (h *Host) Silence() error { return h.lan.forward(h.port(), false) }

// Unsilence ends Silence.
func (h *Host) Unsilence() error { return h.lan.forward(h.port(), true) }

// Isolate keeps the host from those others that are isolated too, and from nobody else.
func (h *Host) Isolate(on bool) error { return h.lan.isolate(h.port(), on) }

// Dial connects to a TCP address as a process on the host would, within patience.
func (h *Host) Dial(to netip.AddrPort, patience time.Duration) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() error {
		var err error
		c, err = net.DialTimeout("tcp", to.String(), patience)
		return err
	})
	return c, err
}

// dialContext is for an http.Transport whose requests shall come from the host.
func (h *Host) dialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := h.Do(func() error {
		var d net.Dialer
		var err error
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Close ends the host: its processes are killed, its links vanish.
func (h *Host) Close() {
	h.mu.Lock()
	procs := h.procs
	h.procs = nil
	h.mu.Unlock()
	for _, p := range procs {
		_ = p.Kill() // the kernel kills what this cannot, when the thread ends
	}
	h.space.Close()
}
