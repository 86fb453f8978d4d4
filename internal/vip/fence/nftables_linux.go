package fence

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
	"proxyd/internal/vip/bpf"
)

// tables is a fence of two nftables: one for ARP, one for IPv4 and IPv6. What concerns a
// fenced address is dropped unless the address is in a set, from which the kernel takes
// it when its time is over.
//
// The time is one that is left and not an end. If this process is stopped between reading
// the clock and the kernel's taking note, the kernel counts from later: whoever holds an
// address looks at the clock again after set.
type tables struct {
	iface string
	addrs []netip.Addr
	arp   *nftables.Table
	inet  *nftables.Table
	sets  map[string]*nftables.Set
	until map[entry]clock.Instant // when the kernel takes out what was put in
	old   bool                    // an earlier life's entries were taken over
}

// An entry is an address in a set.
type entry struct {
	set  string
	addr netip.Addr
}

// Names of the sets: which addresses are fenced, and which may do what.
const (
	arpVIPs   = "vips"
	arpSpeak  = "speak"
	vips4     = "vips4"
	vips6     = "vips6"
	speak6    = "speak6"
	traffic4  = "traffic4"
	traffic6  = "traffic6"
	tableStem = "proxyd-fence-"
)

// tableName is the name of both tables. It holds the interface's name, so that a fence is
// known when it is listed, and tells nodes of one namespace apart.
func tableName(state, device string) string {
	return tableStem + device + "-" + bpf.NodeTag(state)
}

// dial returns a connection for one thing; none waits for longer than a second.
func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithSockOptions(func(c *nl.Conn) error {
		return c.SetDeadline(time.Now().Add(time.Second))
	}))
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", explain(err))
	}
	return c, nil
}

// explain adds what an error of the kernel means.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w (needs CAP_NET_ADMIN)", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w (this kernel has no nf_tables, or not for ARP)", err)
	}
	return err
}

func openTables(c Config) (barrier, error) {
	t := &tables{iface: c.Interface, addrs: c.Addresses, sets: map[string]*nftables.Set{}, until: map[entry]clock.Instant{}}
	name := tableName(c.State, c.Interface)
	t.arp = &nftables.Table{Name: name, Family: nftables.TableFamilyARP}
	t.inet = &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	err := t.start(c.Keep)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return t, nil
}

// start puts both tables up, in the place of those that an earlier life left. keep takes over
// the time that their entries have left.
func (t *tables) start(keep bool) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	if keep {
		left, err := t.remains(conn)
		if err != nil {
			return err
		}
		for e, end := range left {
			t.until[e], t.old = end, true
		}
	}
	return t.open(conn)
}

// mend puts both tables up again. What may pass still may: that is known here.
func (t *tables) mend() error {
	conn, err := dial()
	if err != nil {
		return err
	}
	return t.open(conn)
}

// open puts both tables up in one step, in the place of those that are there.
func (t *tables) open(conn *nftables.Conn) error {
	now := clock.Now()
	for _, table := range []*nftables.Table{t.arp, t.inet} {
		conn.AddTable(table) // so that there is one to delete
		conn.DelTable(table)
		conn.AddTable(table)
	}
	for _, s := range []struct {
		table *nftables.Table
		name  string
		kind  nftables.SetDatatype
		timed bool
	}{
		{t.arp, arpVIPs, nftables.TypeIPAddr, false}, {t.arp, arpSpeak, nftables.TypeIPAddr, true},
		{t.inet, vips4, nftables.TypeIPAddr, false}, {t.inet, vips6, nftables.TypeIP6Addr, false},
		{t.inet, speak6, nftables.TypeIP6Addr, true},
		{t.inet, traffic4, nftables.TypeIPAddr, true}, {t.inet, traffic6, nftables.TypeIP6Addr, true},
	} {
		set := &nftables.Set{Table: s.table, Name: s.name, KeyType: s.kind, HasTimeout: s.timed}
		var members []nftables.SetElement
		for _, a := range t.addrs {
			six := s.kind == nftables.TypeIP6Addr
			switch left := t.until[entry{s.name, a}].Sub(now); {
			case a.Is6() != six:
			case !s.timed:
				members = append(members, nftables.SetElement{Key: a.AsSlice()})
			case left > 0:
				members = append(members, nftables.SetElement{Key: a.AsSlice(), Timeout: left})
			}
		}
		if err := conn.AddSet(set, members); err != nil {
			return fmt.Errorf("make set %s: %w", s.name, err)
		}
		t.sets[s.name] = set
	}
	t.rules(conn)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("make tables: %w", explain(brief(err)))
	}
	return nil
}

// remains returns the entries of an earlier life's tables that have time left.
func (t *tables) remains(conn *nftables.Conn) (map[entry]clock.Instant, error) {
	left := map[entry]clock.Instant{}
	for _, table := range []*nftables.Table{t.arp, t.inet} {
		if _, err := conn.ListTableOfFamily(table.Name, table.Family); err != nil {
			continue // the first life; what else is wrong shows when it is made
		}
		sets, err := conn.GetSets(table)
		if err != nil {
			return nil, fmt.Errorf("list sets: %w", explain(err))
		}
		for _, s := range sets {
			if !s.HasTimeout {
				continue
			}
			elements, err := conn.GetSetElements(s)
			if err != nil {
				return nil, fmt.Errorf("list set %s: %w", s.Name, explain(err))
			}
			for _, e := range elements {
				if a, ok := netip.AddrFromSlice(e.Key); ok && e.Expires > 0 {
					left[entry{s.Name, a}] = clock.Now().Add(e.Expires)
				}
			}
		}
	}
	return left, nil
}

// add makes the rules be about the address too.
func (t *tables) add(a netip.Addr) error {
	if err := t.enrol(a, (*nftables.Conn).SetAddElements); err != nil {
		return fmt.Errorf("add %s: %w", a, err)
	}
	t.addrs = append(t.addrs, a)
	return nil
}

// forget makes the rules not be about the address any more. What it may do goes by itself.
func (t *tables) forget(a netip.Addr) error {
	if err := t.enrol(a, (*nftables.Conn).SetDeleteElements); err != nil {
		return fmt.Errorf("forget %s: %w", a, err)
	}
	t.addrs = slices.DeleteFunc(t.addrs, func(x netip.Addr) bool { return x == a })
	maps.DeleteFunc(t.until, func(e entry, _ clock.Instant) bool { return e.addr == a })
	return nil
}

// enrol changes which addresses the rules are about.
func (t *tables) enrol(a netip.Addr, how func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	names := []string{arpVIPs, vips4}
	if a.Is6() {
		names = []string{vips6}
	}
	return t.surely(func() error {
		conn, err := dial()
		for _, name := range names {
			if err == nil {
				err = how(conn, t.sets[name], []nftables.SetElement{{Key: a.AsSlice()}})
			}
		}
		if err == nil {
			err = conn.Flush()
		}
		return brief(err)
	})
}

// surely does something to the tables, and puts them up before that if somebody took them
// away.
func (t *tables) surely(do func() error) error {
	err := do()
	if errors.Is(err, unix.ENOENT) && t.gone() != nil {
		if err = t.mend(); err == nil {
			err = do()
		}
	}
	return err
}

// brief is the first of several errors: the kernel says of each part of what failed as a whole
// that there is no table for it.
func brief(err error) error {
	var several interface {
		error
		Unwrap() []error
	}
	for errors.As(err, &several) {
		err = several.Unwrap()[0]
	}
	return err
}

// set puts addresses into the sets for as long as they may, or takes them out, in one step.
func (t *tables) set(gates map[netip.Addr]Gate) error {
	want := map[entry]clock.Instant{}
	for a, g := range gates {
		speak, traffic := arpSpeak, traffic4
		if a.Is6() {
			speak, traffic = speak6, traffic6
		}
		want[entry{speak, a}], want[entry{traffic, a}] = g.Speak, max(g.Speak, g.Drain)
	}
	err := t.surely(func() error {
		err := t.put(want, false)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) {
			// The kernel took an entry out just now, or not yet.
			err = t.put(want, true)
		}
		return brief(err)
	})
	if err != nil {
		return fmt.Errorf("set the gates of %d addresses: %w", len(gates), err)
	}
	return nil
}

// put replaces entries. A timeout cannot be changed before Linux 6.12, so an entry is
// taken out and put in again; to take out what is not there is an error. unsure makes it
// put each in first, which does nothing to one that is there.
func (t *tables) put(want map[entry]clock.Instant, unsure bool) error {
	conn, err := dial()
	if err != nil {
		return err
	}
	now := clock.Now()
	first, out, in := map[string][]nftables.SetElement{}, map[string][]nftables.SetElement{}, map[string][]nftables.SetElement{} // by set
	for e, end := range want {
		key := e.addr.AsSlice()
		if unsure {
			first[e.set] = append(first[e.set], nftables.SetElement{Key: key, Timeout: time.Hour})
		}
		if unsure || t.until[e] > now {
			out[e.set] = append(out[e.set], nftables.SetElement{Key: key})
		}
		// The kernel counts in ticks of up to 10 ms and rounds up.
		if left := end.Sub(now) - tick; left > 0 {
			in[e.set] = append(in[e.set], nftables.SetElement{Key: key, Timeout: left})
		}
	}
	// One message for all of a set: each has an answer of its own, which is what costs.
	for name, set := range t.sets {
		if len(first[name]) > 0 {
			err = errors.Join(err, conn.SetAddElements(set, first[name]))
		}
		if len(out[name]) > 0 {
			err = errors.Join(err, conn.SetDeleteElements(set, out[name]))
		}
		if len(in[name]) > 0 {
			err = errors.Join(err, conn.SetAddElements(set, in[name]))
		}
	}
	if err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for e, end := range want {
		t.until[e] = end - clock.Instant(tick)
	}
	return nil
}

// tick is by how much an entry goes early, so that the kernel's rounding makes none late.
const tick = 10 * time.Millisecond

// attach has nothing to do: the rules go by the interface's name.
func (t *tables) attach(int) error { return nil }

func (t *tables) leave() error { return nil }

func (t *tables) close() error {
	return removeTables(t.arp.Name)
}

func (t *tables) status(s *Status) {
	s.Means, s.Adopted = arpInet, t.old
	if s.Fault == nil {
		s.Fault = t.gone()
	}
}

func (t *tables) dropped(netip.Addr) (uint64, bool) { return 0, false }

// gone returns an error if somebody took the tables away.
func (t *tables) gone() error {
	conn, err := dial()
	if err != nil {
		return nil // not known is not gone
	}
	for _, table := range []*nftables.Table{t.arp, t.inet} {
		all, err := conn.ListTablesOfFamily(table.Family)
		if err == nil && !slices.ContainsFunc(all, func(x *nftables.Table) bool { return x.Name == table.Name }) {
			return fmt.Errorf("table %s was taken away", table.Name)
		}
	}
	return nil
}

// removeTables takes both tables of the name away. It is no error if they are not there.
func removeTables(name string) error {
	conn, err := dial()
	if err != nil {
		return nil // a kernel without any
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyARP, nftables.TableFamilyINet} {
		if _, err := conn.ListTableOfFamily(name, family); err == nil {
			conn.DelTable(&nftables.Table{Name: name, Family: family})
		}
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove tables %s: %w", name, explain(err))
	}
	return nil
}

// rules writes the chains. They are before everybody else's, connection tracking included.
func (t *tables) rules(conn *nftables.Conn) {
	accept := nftables.ChainPolicyAccept
	chain := func(table *nftables.Table, name string, hook nftables.ChainHook) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{
			Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: &hook,
			Priority: nftables.ChainPriorityRef(-310), Policy: &accept,
		})
	}
	rule := func(c *nftables.Chain, parts ...[]expr.Any) {
		conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: slices.Concat(parts...)})
	}
	in := t.through(expr.MetaKeyIIFNAME)
	out := t.through(expr.MetaKeyOIFNAME)

	// ARP's header is the network header: operation, sender's and target's address.
	const arpOp, arpSender, arpTarget = 6, 14, 24
	hears := chain(t.arp, "in", 0)
	rule(hears, in, network(arpOp, 2), equal([]byte{0, 1}), network(arpSender, 4), t.in(arpVIPs, false), verdict(expr.VerdictReturn))
	rule(hears, in, network(arpOp, 2), equal([]byte{0, 1}), network(arpTarget, 4), t.in(arpVIPs, false), t.in(arpSpeak, true), dropped())
	rule(chain(t.arp, "out", 1), out, network(arpSender, 4), t.in(arpVIPs, false), t.in(arpSpeak, true), dropped())

	v4, v6 := family(unix.NFPROTO_IPV4), family(unix.NFPROTO_IPV6)
	hears = chain(t.inet, "in", unix.NF_INET_PRE_ROUTING)
	rule(hears, in, v4, network(16, 4), t.in(vips4, false), t.in(traffic4, true), dropped())
	rule(hears, in, v6, icmp6(solicitation), transport(8, 16), t.in(vips6, false), t.in(speak6, true), dropped())
	rule(hears, in, v6, network(24, 16), t.in(vips6, false), t.in(traffic6, true), dropped())
	speaks := chain(t.inet, "out", unix.NF_INET_LOCAL_OUT)
	rule(speaks, out, v4, network(12, 4), t.in(vips4, false), t.in(traffic4, true), dropped())
	rule(speaks, out, v6, icmp6(advertisement), transport(8, 16), t.in(vips6, false), t.in(speak6, true), dropped())
	rule(speaks, out, v6, icmp6(solicitation), network(8, 16), t.in(vips6, false), t.in(speak6, true), dropped())
	rule(speaks, out, v6, network(8, 16), t.in(vips6, false), t.in(traffic6, true), dropped())
}

// through matches the interface by its name.
func (t *tables) through(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, t.iface)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

// in matches what was loaded if it is in a set, or if it is not.
func (t *tables) in(set string, invert bool) []expr.Any {
	s := t.sets[set]
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID, Invert: invert}}
}

func network(at, n uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: n}}
}

func transport(at, n uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: n}}
}

func equal(b []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b}}
}

func family(f byte) []expr.Any {
	return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}}, equal([]byte{f})...)
}

func icmp6(kind byte) []expr.Any {
	proto := append([]expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}}, equal([]byte{icmpv6})...)
	return slices.Concat(proto, transport(0, 1), equal([]byte{kind}))
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

// dropped drops, and counts for whoever lists the table.
func dropped() []expr.Any {
	return append([]expr.Any{&expr.Counter{}}, verdict(expr.VerdictDrop)...)
}
