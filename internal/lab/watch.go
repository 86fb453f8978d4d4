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
// and keeps a record of who answered. What it sees is the truth about who holds the VIP.
type Watcher struct {
	conn  *packet.Conn
	mac   net.HardwareAddr
	ip    netip.Addr
	who   netip.Addr
	names map[string]string // of the hosts, by MAC
	stop  chan struct{}
	ended sync.WaitGroup

	mu        sync.Mutex
	asks      []Ask
	announced []Announcement
}

// Watch starts the stage's watcher. Close it before the stage.
func (s *Stage) Watch() (*Watcher, error) {
	names := map[string]string{}
	for _, h := range s.hosts {
		names[h.MAC.String()] = h.Name
	}
	var w *Watcher
	err := s.watcher.Do(func() error {
		var err error
		w, err = watch(hostInterface, s.VIP, names)
		return err
	})
	return w, err
}

// watch starts a watcher on an interface of the calling thread's namespace. A MAC without a
// name stands for itself.
func watch(device string, vip netip.Addr, names map[string]string) (*Watcher, error) {
	ifi, err := net.InterfaceByName(device)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", device, err)
	}
	ip, err := firstIPv4(ifi)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", device, err)
	}
	w := &Watcher{mac: ifi.HardwareAddr, ip: ip, who: vip, names: names, stop: make(chan struct{})}
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
	frame := arpRequest(w.mac, w.ip, w.who)
	to := &packet.Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for {
		w.mu.Lock()
		w.asks = trimmed(append(w.asks, Ask{At: Now()}), keepAsks)
		w.mu.Unlock()
		// An ask that could not be sent is one that nobody answered.
		_, _ = w.conn.WriteTo(frame, to)
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
		if f, ok := parseARP(buf[:n]); ok && f.senderIP == w.who {
			w.heard(f)
		}
	}
}

func (w *Watcher) heard(f arpFrame) {
	name, known := w.names[f.senderMAC.String()]
	if !known {
		name = f.senderMAC.String()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case f.gratuitous():
		w.announced = trimmed(append(w.announced, Announcement{Now(), name}), keepAsks)
	case f.reply && len(w.asks) > 0:
		last := &w.asks[len(w.asks)-1]
		last.By = with(last.By, name)
	}
}

// Asks returns what was asked from one instant until before another.
func (w *Watcher) Asks(from, to Instant) []Ask {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Ask
	for _, a := range w.asks {
		if a.At >= from && a.At < to {
			out = append(out, Ask{a.At, append([]string(nil), a.By...)})
		}
	}
	return out
}

// Announcements returns the gratuitous frames from one instant until before another.
func (w *Watcher) Announcements(from, to Instant) []Announcement {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Announcement
	for _, a := range w.announced {
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
	if len(w.asks) < 2 {
		return nil
	}
	// The one under way counts as soon as somebody answered it.
	if last := w.asks[len(w.asks)-1]; len(last.By) > 0 {
		return append([]string(nil), last.By...)
	}
	return append([]string(nil), w.asks[len(w.asks)-2].By...)
}

// Close ends the watch; its records stay readable.
func (w *Watcher) Close() {
	close(w.stop)
	w.conn.Close()
	w.ended.Wait()
}
