package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/packet"
)

// askEvery is how often the watcher asks who has the VIP.
const askEvery = 50 * time.Millisecond

// keepAsks bounds what a Watcher remembers: ten minutes.
const keepAsks = int(10 * time.Minute / askEvery)

// A Watcher is a neighbour on the LAN that asks by ARP, all the time, who has an address,
// or each of several, and keeps a record of who answered. What it sees is the truth about
// who holds the VIP.
type Watcher struct {
	conn  *packet.Conn
	mac   net.HardwareAddr
	ip    netip.Addr
	names map[string]string // of the hosts, by MAC
	stop  chan struct{}
	ended sync.WaitGroup
	first *seen
	all   map[netip.Addr]*seen

	mu sync.Mutex // guards what is in each of all
}

// seen is what was seen of one address.
type seen struct {
	asks      []Ask
	announced []Announcement
}

// Watch starts the stage's watcher, for its virtual address and others. Close it before the
// stage.
func (s *Stage) Watch(others ...netip.Addr) (*Watcher, error) {
	names := map[string]string{}
	for _, h := range s.hosts {
		names[h.MAC.String()] = h.Name
	}
	var w *Watcher
	err := s.watcher.Do(func() error {
		var err error
		w, err = watch(hostInterface, names, s.VIP, others...)
		return err
	})
	return w, err
}

// watch starts a watcher on an interface of the calling thread's namespace. A MAC without a
// name stands for itself.
func watch(device string, names map[string]string, vip netip.Addr, others ...netip.Addr) (*Watcher, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", device, err)
	}
	ip, err := firstIPv4(ifi)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", device, err)
	}
	w := &Watcher{mac: ifi.HardwareAddr, ip: ip, first: new(seen), names: names, stop: make(chan struct{})}
	w.all = map[netip.Addr]*seen{vip: w.first}
	for _, a := range others {
		w.all[a] = new(seen)
	}
	if w.conn, err = packet.Listen(ifi, packet.Raw, etherTypeARP, nil); err != nil {
		return nil, fmt.Errorf("watch %s: %w", device, err)
	}
	w.ended.Add(2)
	go w.ask()    // ends with Close
	go w.listen() // ends with Close
	return w, nil
}

// firstIPv4 is the address that the questions come from.
func firstIPv4(ifi *net.Interface) (netip.Addr, error) {
	addrs, err := ifi.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("it has no IPv4 address to ask from")
}

func (w *Watcher) ask() {
	defer w.ended.Done()
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	to := &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for {
		for vip, s := range w.all {
			w.mu.Lock()
			s.asks = trimmed(append(s.asks, Ask{At: Now()}), keepAsks)
			w.mu.Unlock()
			// An ask that could not be sent is one that nobody answered.
			_, _ = w.conn.WriteTo(arpRequest(w.mac, w.ip, vip), to)
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

func (w *Watcher) listen() {
	defer w.ended.Done()
	buf := make([]byte, 2048)
	for {
		n, _, err := w.conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-w.stop:
				return
			case <-time.After(askEvery): // the interface is down: nobody answers
				continue
			}
		}
		if f, ok := parseARP(buf[:n]); ok && w.all[f.senderIP] != nil {
			w.heard(w.all[f.senderIP], f)
		}
	}
}

func (w *Watcher) heard(s *seen, f arpFrame) {
	name, known := w.names[f.senderMAC.String()]
	if !known {
		name = f.senderMAC.String()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case f.gratuitous():
		s.announced = trimmed(append(s.announced, Announcement{Now(), name}), keepAsks)
	case f.reply && len(s.asks) > 0:
		last := &s.asks[len(s.asks)-1]
		last.By = with(last.By, name)
	}
}

// Asks returns what was asked from one instant until before another.
func (w *Watcher) Asks(from, to Instant) []Ask { return w.asks(w.first, from, to) }

// AsksFor is Asks for one of the other addresses.
func (w *Watcher) AsksFor(vip netip.Addr, from, to Instant) []Ask {
	return w.asks(w.all[vip], from, to)
}

func (w *Watcher) asks(s *seen, from, to Instant) []Ask {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Ask
	for _, a := range s.asks {
		if a.At >= from && a.At < to {
			out = append(out, Ask{a.At, append([]string(nil), a.By...)})
		}
	}
	return out
}

// Announcements returns the gratuitous frames for an address from one instant until before
// another.
func (w *Watcher) Announcements(vip netip.Addr, from, to Instant) []Announcement {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Announcement
	for _, a := range w.all[vip].announced {
		if a.At >= from && a.At < to {
			out = append(out, a)
		}
	}
	return out
}

// Now returns who answered the last ask whose time is over.
func (w *Watcher) Now() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asks := w.first.asks
	if len(asks) < 2 {
		return nil
	}
	// The one under way counts as soon as somebody answered it.
	if last := asks[len(asks)-1]; len(last.By) > 0 {
		return append([]string(nil), last.By...)
	}
	return append([]string(nil), asks[len(asks)-2].By...)
}

// Close ends the watch; its records stay readable.
func (w *Watcher) Close() {
	close(w.stop)
	w.conn.Close()
	w.ended.Wait()
}
