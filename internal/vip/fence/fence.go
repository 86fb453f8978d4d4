// Package fence silences virtual addresses when their lease is over, whatever has become
// of the process that held them: the kernel is told until when an address may speak, and
// drops what concerns it from then on.
//
// What is dropped for a shut address: ARP requests and neighbour solicitations for it that
// come in, ARP and neighbour advertisements in its name that go out, packets to it that
// come in and packets from it that go out. What others say of the address among
// themselves, and what this host asks for it as a client, passes.
package fence

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/vip/gather"
)

// Kind is what a fence is made of.
type Kind string

const (
	Auto     Kind = "auto"     // the best that can be had
	EBPF     Kind = "ebpf"     // programs on the interface; they know the lease's end to the nanosecond
	NFTables Kind = "nftables" // sets whose elements time out
	Lifetime Kind = "lifetime" // none: the address itself times out, after 1 to 2 seconds
)

// By what means a fence works.
const (
	tcx     = "tcx"                 // programs attached by pinned links
	clsact  = "clsact"              // programs kept by traffic control
	arpInet = "arp and inet tables" // of nftables
)

// A Gate is until when the fence lets pass what concerns an address. The zero Gate is shut.
type Gate struct {
	Speak clock.Instant // everything
	Drain clock.Instant // packets to and from the address, and neither ARP nor ND for it
}

// Config says what to fence.
type Config struct {
	Interface string
	Index     int // of the interface
	Addresses []netip.Addr
	Kind      Kind
	Means     string // one of what a Status calls so; "": the best of its kind
	State     string // the node's state directory: by it the next life finds what this one made
	// Token makes the kernel ask, beside the time, whether this process still lives: a
	// listener on 127.0.0.1 that ends with it. Death is then seen within milliseconds.
	Token bool
	// Keep leaves every gate as an earlier life set it, for a life that goes on where that
	// one stopped. Without it all are shut from the first moment.
	Keep bool
	Log  *slog.Logger // nil: no log
}

// Status is what a Fence can say of itself.
type Status struct {
	Kind    Kind
	Means   string        // "tcx", "clsact", "arp and inet tables", "" for Lifetime
	Adopted bool          // what an earlier life left was taken over
	Opening time.Duration // how long opening it took
	Worse   []string      // why it is not of a better kind, the best first
	Token   bool          // the death of this process ends a lease at once
	Fault   error         // why it does not work at present, nil if it does
}

// A barrier is what a kind of fence has to be able to do.
type barrier interface {
	add(a netip.Addr) error
	forget(a netip.Addr) error
	set(gates map[netip.Addr]Gate) error // of all, or on error of some or none
	attach(index int) error
	gone() error // nil unless somebody else took it away
	mend() error // put it back, with every gate as it is
	leave() error
	close() error
	status(*Status)
	dropped(a netip.Addr) (frames uint64, counted bool)
}

// A Fence is the fence of an interface. Its methods may be called at once.
type Fence struct {
	log *slog.Logger

	queue gather.Queue[setting]

	mu     sync.Mutex
	addrs  []netip.Addr
	b      barrier // nil: Lifetime, or closed
	status Status
}

// ErrUnfenced is returned for an address that the fence was not opened for.
var ErrUnfenced = errors.New("the fence was not opened for this address")

// Open puts up a fence, or takes over the one that an earlier life of the node left, so
// that there is none at no instant. What a fence of another kind left is removed; the
// addresses must not be on the interface then. An error names why the kind cannot be had.
func Open(c Config) (*Fence, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Kind == "" {
		c.Kind = Auto
	}
	c.Addresses = slices.Clone(c.Addresses)
	for i, a := range c.Addresses {
		c.Addresses[i] = a.Unmap()
	}
	f := &Fence{addrs: c.Addresses, log: c.Log.With("interface", c.Interface)}
	begun := time.Now()
	if err := f.open(c); err != nil {
		return nil, fmt.Errorf("fence %s: %w", c.Interface, err)
	}
	f.status.Opening = time.Since(begun)
	attrs := []any{"kind", f.status.Kind, "means", f.status.Means, "adopted", f.status.Adopted, "took", f.status.Opening.Round(100 * time.Microsecond)}
	if len(f.status.Worse) == 0 {
		f.log.Info("fence is up", attrs...)
	} else {
		f.log.Warn("fence is up, and not of the best kind", append(attrs, "because", strings.Join(f.status.Worse, "; "))...)
	}
	return f, nil
}

func (f *Fence) open(c Config) error {
	for _, w := range []struct {
		kind  Kind
		means string
		open  func(Config) (barrier, error)
	}{
		{EBPF, tcx, openTCX},
		{EBPF, clsact, openFilter},
		{NFTables, arpInet, openTables},
		{Lifetime, "", nil},
	} {
		if c.Kind != Auto && c.Kind != w.kind || c.Means != "" && c.Means != w.means {
			continue
		}
		f.status.Kind = w.kind
		if w.open != nil {
			b, err := w.open(c)
			if err != nil {
				f.status.Worse = append(f.status.Worse, err.Error())
				continue
			}
			f.b = b
			b.status(&f.status)
		}
		// A fence that an earlier life made by other means would stay shut for ever.
		if err := removeOthers(c, f.status.Means); err != nil {
			return errors.Join(err, f.Close())
		}
		return nil
	}
	if f.status.Worse == nil {
		return fmt.Errorf("there is no fence of kind %q", c.Kind)
	}
	return errors.New(strings.Join(f.status.Worse, "; "))
}

// A setting is a Set that is under way.
type setting struct {
	addr netip.Addr
	gate Gate
	err  error
}

// Set says until when what concerns a may pass, in place of what was said before. What
// several say at once is done in one step.
func (f *Fence) Set(a netip.Addr, g Gate) error {
	s := &setting{addr: a.Unmap(), gate: g}
	f.queue.Do(s, f.setAll)
	return s.err
}

// setAll does what several said.
func (f *Fence) setAll(all []*setting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gates := map[netip.Addr]Gate{}
	for _, s := range all {
		if !slices.Contains(f.addrs, s.addr) {
			s.err = fmt.Errorf("fence %s: %w", s.addr, ErrUnfenced)
		} else {
			gates[s.addr] = s.gate
		}
	}
	if f.b == nil || len(gates) == 0 {
		return
	}
	f.status.Fault = f.b.set(gates)
	if f.status.Fault == nil {
		return
	}
	for _, s := range all {
		if s.err != nil {
			continue
		}
		if s.err = f.status.Fault; len(gates) > 1 { // what is wrong with one must not be the others' fault
			s.err = f.b.set(map[netip.Addr]Gate{s.addr: s.gate})
		}
	}
}

// Add fences an address more, which must not be on the interface. It is shut until Set.
func (f *Fence) Add(a netip.Addr) error {
	a = a.Unmap()
	if f.has(a) {
		return nil
	}
	if err := f.do(func(b barrier) error { return b.add(a) }); err != nil {
		return fmt.Errorf("fence %s: %w", a, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs = append(f.addrs, a)
	return nil
}

// Forget lets what concerns an address pass for good: it is no virtual one any more, and may
// be anybody's. It must not be on the interface as one.
func (f *Fence) Forget(a netip.Addr) error {
	a = a.Unmap()
	if !f.has(a) {
		return nil
	}
	if err := f.do(func(b barrier) error { return b.forget(a) }); err != nil {
		return fmt.Errorf("fence no longer %s: %w", a, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs = slices.DeleteFunc(f.addrs, func(x netip.Addr) bool { return x == a })
	return nil
}

// Mend puts the fence back where somebody else took it away, such as a script that loads a
// firewall, and reports whether it had to.
func (f *Fence) Mend() (had bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.b == nil || f.b.gone() == nil {
		return false, nil
	}
	f.status.Fault = f.b.mend()
	return true, f.status.Fault
}

func (f *Fence) has(a netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.addrs, a)
}

// Attach puts the fence on the interface of the index: that of its name was made anew.
func (f *Fence) Attach(index int) error {
	return f.do(func(b barrier) error { return b.attach(index) })
}

// do does something, and keeps how it went.
func (f *Fence) do(what func(barrier) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.b == nil {
		return nil
	}
	f.status.Fault = what(f.b)
	return f.status.Fault
}

// Status returns what is the case now.
func (f *Fence) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	if f.b != nil {
		f.b.status(&s)
	}
	return s
}

// Dropped returns how many frames came for an address, or from it, after its lease had
// ended by itself. counted is false if a fence of this kind does not count them.
func (f *Fence) Dropped(a netip.Addr) (frames uint64, counted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.b == nil {
		return 0, false
	}
	return f.b.dropped(a.Unmap())
}

// Leave goes away and leaves the fence up as it is, without asking for this process's life
// any more: another takes it over before the leases end.
func (f *Fence) Leave() error { return f.end(barrier.leave) }

// Close takes the fence down. The addresses must be gone before: nothing is silenced then.
func (f *Fence) Close() error { return f.end(barrier.close) }

func (f *Fence) end(how func(barrier) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.b == nil {
		return nil
	}
	err := how(f.b)
	f.b = nil
	return err
}
