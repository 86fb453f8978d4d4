package vip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"proxyd/internal/clock"
	"proxyd/internal/vip/fence"
)

const (
	// life is how long the kernel keeps an address that nobody prolongs: the smallest
	// that it can count. It is the last line of defence against our own death.
	life = time.Second
	// renewEvery is how old a renewal must be before Hold renews again.
	renewEvery = 200 * time.Millisecond
	// renewLate is when the keeper renews by itself, within the lease, because no Hold
	// came: leases longer than life would else lose the address between two beats.
	renewLate = 400 * time.Millisecond
	// defend is the pause between two full announcements against a MAC that claims the
	// address. Two nodes that both hold would else answer each other without end.
	defend = 1100 * time.Millisecond
)

// ErrClosed is returned by a Keeper that was closed.
var ErrClosed = errors.New("the keeper of the address is closed")

// ErrLapsed is returned by Hold if the lease that it is given is over already.
var ErrLapsed = errors.New("the lease is over")

// State is where an address is, as far as this host is concerned.
type State uint8

const (
	Idle   State = iota // not here
	Held                // on the interface: this host answers for it
	Parked              // on loopback: silent, still accepting what reaches it
)

func (s State) String() string { return [...]string{"idle", "held", "parked"}[s] }

// A Keeper holds one virtual address on one interface. It satisfies ha.Holder.
//
// One at a time does something to the address: a caller of its methods, or the goroutine that
// does what time and the network bring, and ends with Close. A holder renews with every beat,
// and to hand each renewal to that goroutine was a good part of what an idle node took.
type Keeper struct {
	Stats Stats

	port     *Port
	prefix   netip.Prefix // a single address: /32 or /128
	drain    time.Duration
	conflict func(mac net.HardwareAddr)
	log      *slog.Logger

	timer   *time.Timer             // for next; set under mu
	handed  chan struct{}           // closed: another process keeps the address
	claim   atomic.Pointer[[6]byte] // a MAC that claimed the address, the first unread
	claims  chan struct{}           // has one value when there is one
	removed chan struct{}           // the interface lost the address
	linkUp  chan struct{}
	stop    chan struct{}
	closing sync.Once
	done    chan struct{}
	last    error // of the drop at the end; read after done

	view atomic.Pointer[Status]
	seat atomic.Pointer[Seat]
	left atomic.Int64 // connections of a parked address; -1: not counted yet

	mu       sync.Mutex // held by whoever does something to the address, until it is done
	over     bool       // nothing is done to it any more
	state    State
	since    clock.Instant
	until    clock.Instant // Held: the lease's end. Parked: the drain's end.
	gated    clock.Instant // until when the fence lets the address speak
	renewed  clock.Instant // the last time that the lifetime was prolonged
	tried    clock.Instant // the last time that this was attempted
	leftover bool          // the address may still be on the interface though we do not hold it
	defended clock.Instant
	plan     schedule
	fault    error // why the last thing did not succeed; nil when it did
}

// Options says what a Keeper must know beyond its address.
type Options struct {
	// Drain is how long an address that this host let go while it lived goes on
	// accepting; 0 means 30 s.
	Drain time.Duration
	// OnConflict, if set, is told each MAC that claims the address while it is held, at
	// most once per 1.1 s. It is called from the keeper's goroutine and must not block.
	OnConflict func(mac net.HardwareAddr)
}

// Status is what a Keeper can say of its address.
type Status struct {
	State State
	Since clock.Instant // when it came to be so
	Until clock.Instant // Held: the lease's end; Parked: the drain's end
	Conns int           // Parked: connections that are left, as NoteConns said; -1 before it did
	Fault error         // why the last attempt on the interface failed; nil if it did not
}

// Keeper starts a keeper for the address of prefix on this port. There is at most one
// for an address. The interface is not touched before the first Hold.
func (p *Port) Keeper(prefix netip.Prefix, o Options) (*Keeper, error) {
	if !prefix.IsValid() {
		return nil, errors.New("keep a virtual address: it is not valid")
	}
	if o.Drain == 0 {
		o.Drain = 30 * time.Second
	}
	addr := prefix.Addr().Unmap()
	k := &Keeper{
		port: p, prefix: Host(addr), drain: o.Drain, conflict: o.OnConflict,
		log:     p.log.With("vip", addr),
		timer:   time.NewTimer(0),
		handed:  make(chan struct{}),
		claims:  make(chan struct{}, 1),
		removed: make(chan struct{}, 1),
		linkUp:  make(chan struct{}, 1),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	k.left.Store(-1)
	k.look()
	k.publish()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keepers[addr] != nil {
		return nil, fmt.Errorf("keep %s on %s: it has a keeper already", addr, p.link.Name())
	}
	p.keepers[addr] = k
	go k.run() // ends with Close
	return k, nil
}

// Host returns a's prefix of one address, /32 or /128.
func Host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Hold makes this host answer for the address until the instant, and announces it if it
// did not before. Called again it renews, which costs nothing if the last renewal is
// younger than 200 ms. If no further Hold comes, the keeper yields the address at until.
//
// An error with the address held all the same (an announcement that could not be sent,
// a renewal that failed) is a warning: Status says what is the case.
func (k *Keeper) Hold(until clock.Instant) error {
	return k.ask(func() error { return k.hold(until) })
}

// Yield makes this host silent for the address while it goes on accepting what reaches
// it, for the drain time; to is the successor's own address, if there is one. An address
// that is not held stays as it is.
func (k *Keeper) Yield(to netip.Addr) error {
	return k.ask(func() error { return k.yield(to) })
}

// Drop makes this host silent for the address and removes it, parked or not. If it
// returns an error the address may be here until the kernel's lifetime ends, in a second.
func (k *Keeper) Drop() error {
	return k.ask(func() error { return k.drop() })
}

// Announce announces a held address anew and in full, as after a healed partition.
func (k *Keeper) Announce() error {
	return k.ask(func() error {
		if k.state != Held {
			return nil
		}
		return k.announceAnew()
	})
}

// Status returns what is the case now.
func (k *Keeper) Status() Status {
	s := *k.view.Load()
	s.Conns = int(k.left.Load())
	return s
}

// Addr returns the address.
func (k *Keeper) Addr() netip.Addr { return k.prefix.Addr() }

// Close drops the address and ends the keeper.
func (k *Keeper) Close() error {
	k.closing.Do(func() { close(k.stop) })
	<-k.done
	p := k.port
	p.mu.Lock()
	if p.keepers[k.Addr()] == k {
		delete(p.keepers, k.Addr())
	}
	p.mu.Unlock()
	return k.last
}

// ask does something when nobody else does.
func (k *Keeper) ask(do func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return ErrClosed
	}
	err := do()
	k.publish() // before the caller can look
	// Before it is due: a lease that is renewed in time wakes nobody.
	k.timer.Reset(k.next().Sub(k.port.now()))
	return err
}

// claimed tells the keeper that mac claims its address. It does not block.
func (k *Keeper) claimed(mac [6]byte) {
	if k.claim.CompareAndSwap(nil, &mac) { // one unread claim is enough to act upon
		poke(k.claims)
	}
}

func (k *Keeper) run() {
	defer close(k.done)
	defer k.timer.Stop()
	for {
		var do func()
		select {
		case <-k.claims:
			do = k.contest
		case <-k.removed:
			do = k.repair
		case <-k.linkUp:
			do = k.cameUp
		case <-k.timer.C:
			do = k.tick
		case <-k.handed:
			return
		case <-k.stop:
			k.end()
			return
		}
		if !k.turn(do) {
			return
		}
	}
}

// turn does what has come, and sets the timer for what comes next. It reports whether there
// is anything more to do.
func (k *Keeper) turn(do func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return false
	}
	do()
	k.publish()
	k.timer.Reset(k.next().Sub(k.port.now()))
	return true
}

// end drops the address for good.
func (k *Keeper) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	k.over = true
	k.last = errors.Join(k.drop(), k.SendOn([6]byte{}, netip.Addr{}, 0))
	k.publish()
}

// next is when tick has something to do.
func (k *Keeper) next() clock.Instant {
	switch k.state {
	case Held:
		renew := max(k.renewed.Add(renewLate), k.tried.Add(renewEvery))
		return min(k.until, renew, k.plan.due())
	case Parked:
		return min(k.until, max(k.renewed.Add(renewLate), k.tried.Add(renewEvery)))
	}
	if k.leftover {
		return k.tried.Add(renewEvery)
	}
	return k.port.now().Add(time.Hour)
}

// tick does what time has brought.
func (k *Keeper) tick() {
	now := k.port.now()
	late := now >= k.renewed.Add(renewLate) && now >= k.tried.Add(renewEvery)
	switch {
	case k.state == Held && now >= k.until:
		k.lapse()
	case k.state == Held:
		if late {
			_ = k.renew(now) // kept in fault, and counted
		}
		if now >= k.plan.due() {
			_ = k.announce()
		}
	case k.state == Parked && now >= k.until:
		k.fail(k.drop())
	case k.state == Parked && late:
		k.tried = now
		if k.leftover {
			k.leftover = k.fail(k.port.link.Remove(k.prefix)) != nil
		}
		if k.fail(k.port.link.Park(k.prefix, life)) == nil {
			k.renewed = now
		}
	case k.leftover && now >= k.tried.Add(renewEvery):
		k.tried = now
		k.fail(k.drop())
	}
}

func (k *Keeper) hold(until clock.Instant) error {
	now := k.port.now()
	if until <= now {
		return errors.Join(fmt.Errorf("hold %s: %w", k.Addr(), ErrLapsed), k.silence())
	}
	if err := k.open(until); err != nil {
		return errors.Join(fmt.Errorf("hold %s: %w", k.Addr(), err), k.silence())
	}
	if k.state == Held {
		k.until = until
		if now < k.renewed.Add(renewEvery) {
			return nil
		}
		return k.renew(now)
	}

	was := k.state
	k.Stats.asked.Store(int64(now))
	if err := k.fail(k.port.link.Add(k.prefix, life)); err != nil {
		k.leftover = true
		k.tried = now
		still := fence.Gate{}
		if was == Parked {
			still.Drain = k.until
		}
		return fmt.Errorf("hold %s: %w", k.Addr(), errors.Join(err, k.shut(still)))
	}
	k.become(Held, until)
	k.renewed, k.tried, k.leftover = now, now, false
	k.Stats.Takeovers.Add(1)
	// Claims and removals seen until now tell of the holder before us.
	k.claim.Store(nil)
	drain(k.removed)
	err := k.announceAnew()
	if errors.Is(err, ErrLapsed) { // we were kept from running since the call
		return errors.Join(err, k.silence())
	}
	if was == Parked {
		// Last, so that the address is local at every instant.
		err = errors.Join(err, k.fail(k.port.link.Unpark(k.prefix)))
	}
	k.log.Info("address taken", "until", time.Duration(until.Sub(now)), "was", was)
	return err
}

// open lets the address speak until the instant. An error means that it may not: the fence
// could not be told, and what it was told before is over; or the instant has passed.
func (k *Keeper) open(until clock.Instant) error {
	err := k.fail(k.port.link.Gate(k.Addr(), fence.Gate{Speak: until}))
	now := k.port.now()
	switch {
	case now >= until:
		return errors.Join(err, ErrLapsed) // we were kept from running
	case err == nil:
		k.gated = until
	case now >= k.gated:
		return err
	default:
		k.Stats.FenceErrors.Add(1) // once more with the next renewal
	}
	return nil
}

// shut silences the address.
func (k *Keeper) shut(g fence.Gate) error {
	k.gated = 0
	return k.port.link.Gate(k.Addr(), g)
}

// renew prolongs the lifetime of the held address.
func (k *Keeper) renew(now clock.Instant) error {
	k.tried = now
	if err := k.fail(k.port.link.Add(k.prefix, life)); err != nil {
		k.Stats.RenewErrors.Add(1)
		return fmt.Errorf("renew %s: %w", k.Addr(), err)
	}
	k.renewed = now
	k.Stats.Renewals.Add(1)
	return nil
}

func (k *Keeper) yield(to netip.Addr) error {
	if k.state != Held {
		return nil
	}
	err := k.park()
	if err != nil {
		return fmt.Errorf("yield %s: %w", k.Addr(), err)
	}
	k.log.Info("address yielded", "to", to, "drain", k.drain)
	return nil
}

// silence makes a host silent whose lease is over. It may live on, and so may its
// connections.
func (k *Keeper) silence() error {
	if k.state == Held {
		return k.park()
	}
	return k.drop()
}

// park moves the held address out of sight.
func (k *Keeper) park() error {
	now := k.port.now()
	// Onto loopback first: the address stays local throughout, so no segment of an
	// established connection and no handshake in flight finds this host without it.
	if err := k.port.link.Park(k.prefix, life); err != nil {
		// Silence matters more than the connections.
		return errors.Join(k.fail(err), k.drop())
	}
	k.left.Store(-1)
	k.become(Parked, now.Add(k.drain))
	k.renewed, k.tried = now, now
	err := k.shut(fence.Gate{Drain: k.until})
	if err := k.fail(errors.Join(err, k.port.link.Remove(k.prefix))); err != nil {
		k.leftover = true
		return err
	}
	return nil
}

func (k *Keeper) drop() error {
	was := k.state
	if was == Idle && !k.leftover {
		return nil
	}
	silent := k.shut(fence.Gate{}) // first: it cannot be slow, and holds if the rest fails
	err := k.port.link.Remove(k.prefix)
	k.leftover = err != nil
	err = errors.Join(silent, err)
	if was == Parked {
		err = errors.Join(err, k.port.link.Unpark(k.prefix))
	}
	if was != Idle {
		k.become(Idle, 0)
		k.log.Info("address dropped", "was", was)
	}
	k.tried = k.port.now()
	if k.fail(err) != nil {
		return fmt.Errorf("drop %s: %w", k.Addr(), err)
	}
	return nil
}

// lapse lets go of an address whose lease ended without a word from who granted it.
func (k *Keeper) lapse() {
	k.Stats.Lapses.Add(1)
	k.log.Warn("lease ended without renewal", "late", k.port.now().Sub(k.until))
	_ = k.silence() // tried again from tick; kept in fault
}

// announceAnew starts the schedule of announcements from its beginning.
func (k *Keeper) announceAnew() error {
	k.plan.restart(k.port.now())
	return k.announce()
}

// announce sends one round, unless the lease ended meanwhile.
func (k *Keeper) announce() error {
	now := k.port.now()
	if now >= k.until {
		return fmt.Errorf("announce %s: %w", k.Addr(), ErrLapsed) // the timer is due and drops it
	}
	first := k.Stats.announced.Load() < k.Stats.asked.Load()
	k.plan.made(now)
	if err := k.fail(k.port.link.Announce(k.Addr())); err != nil {
		k.Stats.AnnounceErrors.Add(1)
		return fmt.Errorf("announce %s: %w", k.Addr(), err)
	}
	now = k.port.now()
	k.Stats.Announcements.Add(1)
	k.Stats.last.Store(int64(now))
	if first {
		k.Stats.announced.Store(int64(now))
	}
	if k.plan.n > 1 {
		k.look() // not with the first, when every keeper of this node may be in a hurry
	}
	return nil
}

// look finds out where this host is on the link.
func (k *Keeper) look() {
	// Where that is not known the other nodes send nothing on; the address is as good.
	s, _ := k.port.link.Seat(k.Addr())
	k.seat.Store(&s)
}

// become changes the state.
func (k *Keeper) become(s State, until clock.Instant) {
	k.state, k.until, k.since = s, until, k.port.now()
}

// fail remembers how the last thing done to the interface went.
func (k *Keeper) fail(err error) error {
	k.fault = err
	return err
}

// publish shows the state to Status.
func (k *Keeper) publish() {
	k.view.Store(&Status{State: k.state, Since: k.since, Until: k.until, Fault: k.fault})
}

// drain empties a channel of one.
func drain[T any](c chan T) {
	select {
	case <-c:
	default:
	}
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Addr() == a {
			return true
		}
	}
	return false
}
