package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"proxyd/internal/clock"
	"proxyd/internal/vip/bpf"
)

// rules are a table of each family, for kernels without TCX. The tables are written anew,
// in one step, whenever a target changes, and there are none while there is no target:
//
//	type filter hook prerouting priority raw
//	iif eth0 ip daddr 10.0.0.100 ip daddr @live jump to0
//	chain to0 {                                    # for all addresses with one target
//		ether saddr 02:00:00:00:00:01 return       # of the target
//		ip ttl < 2 return
//		ip frag-off & 0x1fff != 0 return           # a later fragment has no ports
//		icmp type { 3, 11, 12 } dup to 10.0.0.11 device eth0
//		meta l4proto udp @th,64,8 & 0x80 == 0 @th,72,24 COMMON @th,96,24 != OURS goto on0
//		meta l4proto udp @th,64,8 & 0x80 != 0 @th,104,8 LENGTH @th,112,24 COMMON @th,136,24 != OURS goto on0
//		meta l4proto != tcp return
//		tcp flags & (syn | ack) == syn return
//		socket wildcard 1 goto on0                 # only a listener
//		socket transparent 0-1 return              # a connection
//		goto on0
//	}
//	chain on0 {
//		ip daddr 10.0.0.100 counter                # one for each address
//		dup to 10.0.0.11 device eth0 drop
//	}
//
// An address leaves @live by itself when the target's time is over, also if this process
// is no more. The kernel takes one hop from what it duplicates. A listener that is bound
// to the virtual address itself cannot be told from a connection, and the connection of a
// SYN cookie not from none.
//
// Each life has tables of its own. While one process takes the place of another there are those
// of both: what the first table sends on is dropped there, so the second does not see it.
type rules struct {
	conn *nftables.Conn
	name string // of this life's tables
	at   Place
	mark Mark
	past map[netip.Addr]uint64 // counted by rules that are no more
	now  map[netip.Addr]counter
}

// A counter is where packets to an address are counted that are sent on.
type counter struct {
	chain *nftables.Chain
	rule  int // its number in the chain
}

// A span is from a number to a number.
type span [2]byte

// A family is what the two tables differ in.
type family struct {
	table      *nftables.Table
	key        nftables.SetDatatype
	to, length uint32 // of the destination in the head
	hop        uint32
	icmp       byte
	errors     []span // the types that are an error
	fragment   []expr.Any
}

// room is for what one step says to the kernel, which takes it as one message, and for the
// answers: there are some fourteen rules for an address, and an answer to each.
const room = 16 << 20

// dial returns a connection that opens a socket for each step, so that what goes wrong with one
// is not in the way of the next. None waits for longer than a second.
func dial() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.WithSockOptions(func(c *nl.Conn) error {
		return errors.Join(c.SetReadBuffer(room), c.SetWriteBuffer(room), c.SetDeadline(time.Now().Add(time.Second)))
	}))
	if err != nil {
		return nil, fmt.Errorf("open netfilter: %w", err)
	}
	return c, nil
}

// newName returns a name for tables that a node makes for an interface: another node, or
// interface, may have its own, and so has each life.
func newName(state, device string) string {
	return fmt.Sprintf("%s%s-%s-%08x", stem, device, bpf.NodeTag(state), rand.Uint32())
}

// stem is how the names of all tables begin.
const stem = "proxyd-relay-"

// ofNode reports whether a table is one that a node made, for whichever interface.
func ofNode(name, state string) bool {
	made := strings.TrimRight(name, "0123456789abcdef") // whichever life
	return strings.HasPrefix(name, stem) && strings.HasSuffix(made, "-"+bpf.NodeTag(state)+"-")
}

func openTables(c Config) (means, error) {
	conn, err := dial()
	if err != nil {
		return nil, err
	}
	n := &rules{conn: conn, name: newName(c.State, c.Place.Name), at: c.Place, mark: c.Mark, past: map[netip.Addr]uint64{}}
	// What the kernel lacks shows now, and not when an address comes. Nothing is left of it.
	try := map[netip.Addr]Target{}
	for _, a := range []string{"192.0.2.1", "2001:db8::1"} { // RFC 5737, RFC 3849
		try[netip.MustParseAddr(a)] = Target{Addr: netip.MustParseAddr(a), Until: clock.Now().Add(time.Second)}
	}
	if _, err = n.put(try); err == nil {
		dropTables(n.conn, n.name)
		err = conn.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("write rules with socket and dup: %w", err)
	}
	return n, nil
}

func (n *rules) move(at Place) error {
	n.at = at
	return nil
}

func (n *rules) set(targets map[netip.Addr]Target, _ []netip.Addr) error {
	for vip, to := range targets {
		if to.Addr.BitLen() != vip.BitLen() {
			return fmt.Errorf("the node that %s was with has no address of its family on this network", vip)
		}
	}
	// Where somebody else took the tables away the counts are lost with them.
	counts, _ := n.counted()
	for vip, k := range counts {
		n.past[vip] += k
	}
	n.now = nil
	dropTables(n.conn, n.name)
	now, err := n.put(targets)
	if err == nil {
		err = n.conn.Flush()
	}
	if err == nil {
		n.now = now
	}
	return err
}

// put adds this life's tables to the next step, and returns where packets are counted.
func (n *rules) put(targets map[netip.Addr]Target) (map[netip.Addr]counter, error) {
	now := map[netip.Addr]counter{}
	for _, f := range n.families() {
		var elements []nftables.SetElement
		for _, vip := range slices.SortedFunc(maps.Keys(targets), netip.Addr.Compare) {
			left := targets[vip].Until.Sub(clock.Now()).Truncate(time.Millisecond)
			if uint32(len(vip.AsSlice())) == f.length && left > 0 {
				elements = append(elements, nftables.SetElement{Key: vip.AsSlice(), Timeout: left})
			}
		}
		if len(elements) == 0 {
			continue
		}
		n.conn.AddTable(f.table)
		base := n.conn.AddChain(&nftables.Chain{
			Name: "in", Table: f.table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw,
		})
		live := &nftables.Set{Table: f.table, Name: "live", KeyType: f.key, HasTimeout: true}
		if err := n.conn.AddSet(live, elements); err != nil {
			return nil, err
		}
		with := map[Target][]netip.Addr{} // by target, whenever it ends
		for _, e := range elements {
			vip, _ := netip.AddrFromSlice(e.Key)
			to := Target{MAC: targets[vip].MAC, Addr: targets[vip].Addr}
			with[to] = append(with[to], vip)
		}
		number := 0
		for to, vips := range with {
			n.chains(f, base, live, number, vips, to, now)
			number++
		}
	}
	return now, nil
}

// chains adds what is done with packets to the addresses of one target, and notes where those
// are counted that are sent on.
func (n *rules) chains(f family, base *nftables.Chain, live *nftables.Set, number int, vips []netip.Addr, to Target, now map[netip.Addr]counter) {
	mine := n.conn.AddChain(&nftables.Chain{Name: fmt.Sprint("to", number), Table: f.table})
	on := n.conn.AddChain(&nftables.Chain{Name: fmt.Sprint("on", number), Table: f.table})
	rule := func(c *nftables.Chain, parts ...[]expr.Any) {
		n.conn.AddRule(&nftables.Rule{Table: f.table, Chain: c, Exprs: slices.Concat(parts...)})
	}
	dup := []expr.Any{
		&expr.Immediate{Register: 1, Data: to.Addr.AsSlice()},
		&expr.Immediate{Register: 2, Data: binary.NativeEndian.AppendUint32(nil, uint32(n.at.Index))},
		&expr.Dup{RegAddr: 1, RegDev: 2, IsRegDevSet: true},
	}
	for i, vip := range vips {
		here := when(payload(expr.PayloadBaseNetworkHeader, f.to, f.length), expr.CmpOpEq, vip.AsSlice())
		rule(base,
			when(&expr.Meta{Key: expr.MetaKeyIIF, Register: 1}, expr.CmpOpEq, binary.NativeEndian.AppendUint32(nil, uint32(n.at.Index))),
			here,
			[]expr.Any{&expr.Lookup{SourceRegister: 1, SetName: live.Name, SetID: live.ID}},
			then(expr.VerdictJump, mine.Name))
		rule(on, here, []expr.Any{&expr.Counter{}})
		now[vip] = counter{on, i}
	}

	back := then(expr.VerdictReturn, "")
	rule(mine, when(payload(expr.PayloadBaseLLHeader, 6, 6), expr.CmpOpEq, to.MAC[:]), back)
	rule(mine, when(payload(expr.PayloadBaseNetworkHeader, f.hop, 1), expr.CmpOpLt, []byte{2}), back)
	rule(mine, f.fragment, back)
	l4 := &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}
	kind := payload(expr.PayloadBaseTransportHeader, 0, 1)
	for _, e := range f.errors {
		rule(mine, when(l4, expr.CmpOpEq, []byte{f.icmp}),
			[]expr.Any{kind, &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: e[:1], ToData: e[1:]}}, dup)
	}
	if n.mark != (Mark{}) {
		udp := when(l4, expr.CmpOpEq, []byte{unix.IPPROTO_UDP})
		first := func(op expr.CmpOp) []expr.Any {
			return []expr.Any{
				payload(expr.PayloadBaseTransportHeader, datagram, 1),
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{longBit}, Xor: []byte{0}},
				&expr.Cmp{Op: op, Register: 1, Data: []byte{0}},
			}
		}
		rule(mine, udp, first(expr.CmpOpEq), n.elsewhere(datagram+markShort), then(expr.VerdictGoto, on.Name))
		rule(mine, udp, first(expr.CmpOpNeq),
			when(payload(expr.PayloadBaseTransportHeader, datagram+markLong-1, 1), expr.CmpOpEq, []byte{n.mark.idLength()}),
			n.elsewhere(datagram+markLong), then(expr.VerdictGoto, on.Name))
	}
	rule(mine, when(l4, expr.CmpOpNeq, []byte{unix.IPPROTO_TCP}), back)
	rule(mine, []expr.Any{
		payload(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{0x12}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x02}},
	}, back)
	rule(mine, when(&expr.Socket{Key: expr.SocketKeyWildcard, Register: 1}, expr.CmpOpEq, []byte{1}), then(expr.VerdictGoto, on.Name))
	rule(mine, []expr.Any{&expr.Socket{Key: expr.SocketKeyTransparent, Register: 1}}, back) // fails without a socket
	rule(mine, then(expr.VerdictGoto, on.Name))

	rule(on, dup, then(expr.VerdictDrop, ""))
}

// elsewhere goes on with a rule if the id at that place of a datagram is of another node.
func (n *rules) elsewhere(at uint32) []expr.Any {
	own := uint32(markLen - markCommon)
	return slices.Concat(
		when(payload(expr.PayloadBaseTransportHeader, at, markCommon), expr.CmpOpEq, n.mark[:markCommon]),
		when(payload(expr.PayloadBaseTransportHeader, at+markCommon, own), expr.CmpOpNeq, n.mark[markCommon:]))
}

// families describes the tables.
func (n *rules) families() []family {
	return []family{
		{
			table: &nftables.Table{Family: nftables.TableFamilyIPv4, Name: n.name}, key: nftables.TypeIPAddr,
			to: 16, length: 4, hop: 8, icmp: unix.IPPROTO_ICMP, errors: []span{{3, 3}, {11, 12}},
			fragment: []expr.Any{
				payload(expr.PayloadBaseNetworkHeader, 6, 2),
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0x1f, 0xff}, Xor: []byte{0, 0}},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
			},
		},
		{
			table: &nftables.Table{Family: nftables.TableFamilyIPv6, Name: n.name}, key: nftables.TypeIP6Addr,
			to: 24, length: 16, hop: 7, icmp: unix.IPPROTO_ICMPV6, errors: []span{{1, 4}},
			fragment: []expr.Any{
				&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 2, Mask: []byte{0xff, 0xf8}, Xor: []byte{0, 0}},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0}},
			},
		},
	}
}

// payload reads bytes of a packet into register 1.
func payload(base expr.PayloadBase, from, n uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: from, Len: n}
}

// when goes on with a rule if what was read into register 1 compares so.
func when(read expr.Any, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{read, &expr.Cmp{Op: op, Register: 1, Data: data}}
}

func then(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func (n *rules) sent(vip netip.Addr) (uint64, error) {
	counts, err := n.counted()
	return n.past[vip] + counts[vip], err
}

// counted returns what the rules that are there have sent on.
func (n *rules) counted() (map[netip.Addr]uint64, error) {
	chains := map[*nftables.Chain][]*nftables.Rule{}
	counts := map[netip.Addr]uint64{}
	for vip, c := range n.now {
		all, read := chains[c.chain]
		if !read {
			var err error
			if all, err = n.conn.GetRules(c.chain.Table, c.chain); err != nil {
				return nil, fmt.Errorf("read relayed packets: %w", err)
			}
			chains[c.chain] = all
		}
		if c.rule >= len(all) {
			continue // somebody else changed them
		}
		for _, e := range all[c.rule].Exprs {
			if k, is := e.(*expr.Counter); is {
				counts[vip] = k.Packets
			}
		}
	}
	return counts, nil
}

func (n *rules) close() error {
	dropTables(n.conn, n.name)
	return n.conn.Flush()
}

// tableFamilies are those that a relay has tables of.
var tableFamilies = []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}

// tablesOf lists the names of a node's tables.
func tablesOf(conn *nftables.Conn, state string) (names []string, err error) {
	for _, family := range tableFamilies {
		all, err := conn.ListTablesOfFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		for _, t := range all {
			if ofNode(t.Name, state) && !slices.Contains(names, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	return names, nil
}

// dropTables adds to the next step that tables go, of both families.
func dropTables(conn *nftables.Conn, names ...string) {
	for _, name := range names {
		for _, family := range tableFamilies {
			t := &nftables.Table{Family: family, Name: name}
			conn.AddTable(t) // so that there is one to delete
			conn.DelTable(t)
		}
	}
}

// Remove takes away what a node that is gone has left, also on interfaces that are not
// configured any more.
func Remove(state string) error { return removeBut(state, nil) }

// removeBut takes away all tables of a node but those of the names.
func removeBut(state string, stay []string) error {
	conn, err := dial()
	if err != nil {
		return nil // a kernel without any
	}
	names, err := tablesOf(conn, state)
	names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(stay, name) })
	if err != nil || len(names) == 0 {
		return nil // likewise
	}
	dropTables(conn, names...)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove tables of an earlier life: %w", err)
	}
	return nil
}
