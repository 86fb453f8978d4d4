package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"proxyd/internal/vip/fence"
	"proxyd/internal/vip/gather"
	"proxyd/internal/vip/relay"
)

// ErrNoInterface says that there is no interface of the name.
var ErrNoInterface = errors.New("no such interface")

// A Device is the Link of a real network interface. It goes by the interface's name: if
// the interface is removed and another one made in its place, it goes on with that one.
type Device struct {
	name    string
	sysctls *Sysctls
	log     *slog.Logger

	change   *changes        // of addresses, so that no long answer keeps a takeover waiting
	query    *netlink.Handle // for all else
	listings gather.Queue[listed]
	arp      *wire
	nd       *wire
	groups   groups
	warned   sync.Map // what warnOnce has said

	fence    atomic.Pointer[fence.Fence] // nil: none was put up
	place    atomic.Pointer[place]       // nil: there is no interface of the name
	locating sync.Mutex                  // serialises locate
	relay    atomic.Pointer[relay.Relay] // nil: none was opened
}

// A place is what an interface of the name is now. It never changes.
type place struct {
	index int
	mac   [6]byte
	up    bool
}

var _ Link = (*Device)(nil)

// OpenLink opens the interface and, if s is not nil, sets the kernel parameters that it
// needs, now and whenever the interface is made anew. If there is no such interface the
// error wraps ErrNoInterface; AwaitLink waits for it instead.
func OpenLink(name string, s *Sysctls, log *slog.Logger) (*Device, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &Device{name: name, sysctls: s, log: log.With("interface", name)}
	if err := d.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open interface %q: %w", name, err), d.Close())
	}
	return d, nil
}

// AwaitLink is OpenLink for an interface that may be late: it tells report once why it
// cannot be opened yet, and goes on trying until it can or ctx ends. Errors other than
// ErrNoInterface end it.
func AwaitLink(ctx context.Context, name string, s *Sysctls, log *slog.Logger, report func(error)) (*Device, error) {
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for {
		d, err := OpenLink(name, s, log)
		if err == nil || !errors.Is(err, ErrNoInterface) {
			return d, err
		}
		if report != nil {
			report(err)
			report = nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-again.C:
		}
	}
}

func (d *Device) open() (err error) {
	// Whatever keeps the kernel for longer is an error, and tried again: nobody may wait
	// for ever for an address to go.
	if d.change, err = openChanges(life); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if d.query, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if err = d.query.SetSocketTimeout(2 * life); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	if d.arp, err = openWire(etherARP, nil); err != nil {
		return err
	}
	if d.nd, err = openWire(etherIPv6, onlyND()); err != nil {
		return err
	}
	_, err = d.locate()
	return err
}

// Close closes the device's sockets and takes its fence down. Addresses stay until their
// time is over: Remove them before. Kernel parameters are restored by whoever has the
// Sysctls.
func (d *Device) Close() error {
	var errs []error
	if f := d.fence.Swap(nil); f != nil {
		errs = append(errs, f.Close())
	}
	if r := d.relay.Load(); r != nil {
		errs = append(errs, r.Close())
	}
	for _, w := range []*wire{d.arp, d.nd} {
		if w != nil {
			errs = append(errs, w.Close())
		}
	}
	if d.change != nil {
		errs = append(errs, d.change.close())
	}
	if d.query != nil {
		d.query.Close()
	}
	errs = append(errs, d.groups.close())
	return errors.Join(errs...)
}

// Name returns the interface's name.
func (d *Device) Name() string { return d.name }

// Up reports whether the interface has carrier.
func (d *Device) Up() (bool, error) {
	p, err := d.locate()
	if err != nil {
		return false, err
	}
	return p.up, nil
}

// MAC returns the interface's hardware address.
func (d *Device) MAC() ([6]byte, error) {
	p, err := d.here()
	return p.mac, err
}

// here returns the place as last seen.
func (d *Device) here() (place, error) {
	if p := d.place.Load(); p != nil {
		return *p, nil
	}
	return d.locate()
}

// locate looks for the interface by name, and moves to it if it is not where it was.
func (d *Device) locate() (place, error) {
	d.locating.Lock()
	defer d.locating.Unlock()
	l, err := d.query.LinkByName(d.name)
	if err != nil {
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			d.place.Store(nil)
			err = fmt.Errorf("%w (named %q)", ErrNoInterface, d.name)
		}
		return place{}, err
	}
	return d.settle(l.Attrs())
}

// settle makes the interface that a describes the device's place.
func (d *Device) settle(a *netlink.LinkAttrs) (place, error) {
	if len(a.HardwareAddr) != 6 || a.RawFlags&unix.IFF_LOOPBACK != 0 {
		return place{}, fmt.Errorf("%s has no Ethernet address, so nobody can be told who has a virtual one", d.name)
	}
	const carrier = unix.IFF_UP | unix.IFF_LOWER_UP
	now := place{a.Index, [6]byte(a.HardwareAddr), a.RawFlags&carrier == carrier}
	was := d.place.Load()
	if was == nil || was.index != now.index {
		for _, w := range []*wire{d.arp, d.nd} {
			if err := w.bind(now.index); err != nil {
				return place{}, err
			}
		}
		if d.sysctls != nil {
			if err := d.sysctls.Interface(d.name); err != nil {
				return place{}, err
			}
		}
		if f := d.fence.Load(); f != nil {
			if err := f.Attach(now.index); err != nil { // kept in its status, too
				d.log.Error("the interface was made anew and has no fence", "err", err)
			}
		}
	}
	if r := d.relay.Load(); r != nil && (was == nil || was.index != now.index || was.mac != now.mac) {
		// Its connections are worth less than the address.
		if err := r.Move(now.relay(d.name)); err != nil {
			d.log.Warn("connections of an older holder are not sent on", "err", err)
		}
	}
	d.place.Store(&now)
	return now, nil
}

// Announce sends one round of gratuitous ARP, in both forms, or one unsolicited
// neighbour advertisement.
func (d *Device) Announce(a netip.Addr) error {
	return d.send(a, func(p place) ([][]byte, error) {
		if a.Is4() {
			return arpAnnouncement(p.mac, a)
		}
		f, err := advertisementFrame(p.mac, a)
		return [][]byte{f}, err
	})
}

// Ask sends one ARP probe or neighbour solicitation for a.
func (d *Device) Ask(a netip.Addr) error {
	return d.send(a, func(p place) ([][]byte, error) {
		if a.Is4() {
			f, err := arpProbe(p.mac, a)
			return [][]byte{f}, err
		}
		local, err := d.linkLocal()
		if err != nil {
			return nil, err
		}
		f, err := solicitationFrame(p.mac, local, a)
		return [][]byte{f}, err
	})
}

// send sends the frames that make builds for the place. If the interface was replaced
// meanwhile it does so once more, for the new one.
func (d *Device) send(a netip.Addr, build func(place) ([][]byte, error)) error {
	w := d.arp
	if a.Is6() {
		w = d.nd
	}
	return d.twice(func(p place) error {
		frames, err := build(p)
		if err != nil {
			return err
		}
		for _, f := range frames {
			if err := w.send(p.index, f); err != nil {
				return fmt.Errorf("send on %s: %w", d.name, err)
			}
		}
		return nil
	})
}

// twice does something at the place, and once more if the interface is another now.
func (d *Device) twice(do func(place) error) error {
	p, err := d.here()
	if err != nil {
		return err
	}
	err = do(p)
	if !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENXIO) {
		return err
	}
	moved, lost := d.locate()
	if lost != nil {
		return lost
	}
	if moved.index == p.index {
		return err
	}
	return do(moved)
}

// linkLocal returns the interface's link-local IPv6 address, or the zero Addr.
func (d *Device) linkLocal() (netip.Addr, error) {
	all, err := d.Addrs()
	i := slices.IndexFunc(all, func(p netip.Prefix) bool {
		return p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()
	})
	if i < 0 {
		return netip.Addr{}, err
	}
	return all[i].Addr(), err
}

// Watch calls heard for each frame of ARP and ND from others until ctx ends.
func (d *Device) Watch(ctx context.Context, heard func(Heard)) error {
	got := func(index int, frame []byte) {
		p := d.place.Load()
		if p == nil || p.index != index {
			return // of a VLAN on top of the interface, or of one that is gone
		}
		h, err := parseFrame(frame)
		if err == nil && h.From != p.mac && [6]byte(frame[6:12]) != p.mac {
			heard(h)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Both end with ctx; the first that ends takes the other along.
	ends := make(chan error, 2)
	for _, w := range []*wire{d.arp, d.nd} {
		go func() { ends <- w.receive(ctx, got) }()
	}
	err := <-ends
	cancel()
	<-ends
	return err
}
