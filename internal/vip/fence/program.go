package fence

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// The gates are a hash by address, of 16 bytes (IPv4 as ::ffff:a.b.c.d). A value is
// replaced as a whole, so a program never sees half of one:
//
//	0 speak u64 | 8 drain u64 | 16 token's port, big endian | 18 nothing
//
// The ends are instants of CLOCK_BOOTTIME in nanoseconds, which go on while the process is
// frozen or the machine suspended. drops has a counter for each address and processor.
const (
	keySize   = 16
	valueSize = 24
	maxGates  = 1024
)

func gatesSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "fence_gates", Type: ebpf.Hash, KeySize: keySize, ValueSize: valueSize, MaxEntries: maxGates}
}

func dropsSpec() *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: "fence_drops", Type: ebpf.PerCPUHash, KeySize: keySize, ValueSize: 8, MaxEntries: maxGates}
}

func key(a netip.Addr) [keySize]byte { return a.As16() }

func value(g Gate, port uint16) []byte {
	b := make([]byte, valueSize)
	binary.NativeEndian.PutUint64(b, uint64(g.Speak))
	binary.NativeEndian.PutUint64(b[8:], uint64(g.Drain))
	binary.BigEndian.PutUint16(b[16:], port)
	return b
}

// What a program answers; the same for TCX and for traffic control.
const (
	pass = -1 // the next program decides
	drop = 2
)

// Where fields are in a frame, and in what the kernel tells of it (struct __sk_buff).
const (
	ethernet = 14

	arpOp     = ethernet + 6
	arpSender = ethernet + 14
	arpTarget = ethernet + 24

	ip4Source = ethernet + 12
	ip4Dest   = ethernet + 16

	ip6Next   = ethernet + 6
	ip6Source = ethernet + 8
	ip6Dest   = ethernet + 24
	icmp6Type = ethernet + 40
	ndTarget  = ethernet + 48

	skbProtocol = 16
	skbTagged   = 20
	skbTag      = 24

	icmpv6, solicitation, advertisement = 58, 135, 136
)

// Places on the program's stack.
const (
	atKey   = -16
	atWord  = -24 // what was loaded from the frame, for comparison
	atTuple = -40
)

// Registers that live through calls.
const (
	skb     = asm.R6
	traffic = asm.R8 // 1: a packet; 0: ARP or ND
	gate    = asm.R9
)

// be16 is how two bytes of the network look when loaded here.
func be16(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}

// A coder writes a program.
type coder struct {
	p            asm.Instructions
	gates, drops *ebpf.Map
	label        string // of the next instruction
}

func (c *coder) add(x ...asm.Instruction) {
	if c.label != "" {
		x[0] = x[0].WithSymbol(c.label)
		c.label = ""
	}
	c.p = append(c.p, x...)
}

func (c *coder) at(label string) { c.label = label }

// load copies n bytes of the frame to the stack; a frame that is too short passes.
func (c *coder) load(from, to, n int32) {
	c.add(
		asm.Mov.Reg(asm.R1, skb), asm.Mov.Imm(asm.R2, from),
		asm.Mov.Reg(asm.R3, asm.R10), asm.Add.Imm(asm.R3, to), asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(), asm.JNE.Imm(asm.R0, 0, "pass"),
	)
}

// load4 makes the key of an IPv4 address in the frame, load6 that of an IPv6 address.
func (c *coder) load4(from int32) {
	c.add(
		asm.Mov.Imm(asm.R1, 0), asm.StoreMem(asm.R10, atKey, asm.R1, asm.DWord),
		asm.StoreImm(asm.R10, atKey+8, 0, asm.Half), asm.StoreImm(asm.R10, atKey+10, 0xffff, asm.Half),
	)
	c.load(from, atKey+12, 4)
}

func (c *coder) load6(from int32) { c.load(from, atKey, keySize) }

// find looks for the gate of the key and goes to none if there is none.
func (c *coder) find(none string) {
	c.add(
		asm.LoadMapPtr(asm.R1, c.gates.FD()), asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, atKey),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, none), asm.Mov.Reg(gate, asm.R0),
	)
}

// judge ends the program by the gate that was found.
func (c *coder) judge(is int32) {
	c.add(asm.Mov.Imm(traffic, is), asm.Ja.Label("judge"))
}

// program writes the program for one direction.
func program(gates, drops *ebpf.Map, ingress bool) asm.Instructions {
	c := &coder{gates: gates, drops: drops}
	c.begin()
	if ingress {
		c.in()
	} else {
		c.out()
	}
	c.end()
	return c.p
}

// begin tells ARP, IPv4 and IPv6 apart. Frames of a VLAN are none of this interface's.
func (c *coder) begin() {
	c.add(
		asm.Mov.Reg(skb, asm.R1),
		asm.LoadMem(asm.R2, skb, skbTagged, asm.Word), asm.JEq.Imm(asm.R2, 0, "untagged"),
		asm.LoadMem(asm.R2, skb, skbTag, asm.Word), asm.And.Imm(asm.R2, 0xfff), asm.JNE.Imm(asm.R2, 0, "pass"),
	)
	c.at("untagged")
	c.add(
		asm.LoadMem(asm.R2, skb, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R2, be16(0x0806), "arp"), asm.JEq.Imm(asm.R2, be16(0x0800), "ip4"),
		asm.JEq.Imm(asm.R2, be16(0x86dd), "ip6"), asm.Ja.Label("pass"),
	)
}

func (c *coder) in() {
	c.at("arp") // a request for the address; replies and announcements of others stay visible
	c.load4(arpTarget)
	c.load(arpOp, atWord, 2)
	c.add(asm.LoadMem(asm.R1, asm.R10, atWord, asm.Half), asm.JNE.Imm(asm.R1, be16(1), "pass"))
	c.load(arpSender, atWord, 4)
	c.add(
		asm.LoadMem(asm.R1, asm.R10, atWord, asm.Word), asm.LoadMem(asm.R2, asm.R10, atKey+12, asm.Word),
		asm.JEq.Reg(asm.R1, asm.R2, "pass"),
	)
	c.find("pass")
	c.judge(0)

	c.at("ip4")
	c.load4(ip4Dest)
	c.find("pass")
	c.judge(1)

	c.at("ip6")
	c.icmp6("packet", solicitation)
	c.load6(ndTarget) // it comes to the group of its target, or to the address itself
	c.find("packet")
	c.judge(0)
	c.at("packet")
	c.load6(ip6Dest)
	c.find("pass")
	c.judge(1)
}

func (c *coder) out() {
	c.at("arp") // of either kind, in the name of the address
	c.load4(arpSender)
	c.find("pass")
	c.judge(0)

	c.at("ip4")
	c.load4(ip4Source)
	c.find("pass")
	c.judge(1)

	c.at("ip6")
	c.icmp6("ask", advertisement)
	c.load6(ndTarget)
	c.find("packet")
	c.judge(0)
	c.at("ask") // a solicitation tells its source's hardware address
	c.icmp6("packet", solicitation)
	c.load6(ip6Source)
	c.find("pass")
	c.judge(0)
	c.at("packet")
	c.load6(ip6Source)
	c.find("pass")
	c.judge(1)
}

// icmp6 goes on if the packet is a message of the type, and elsewhere if not.
func (c *coder) icmp6(elsewhere string, kind int32) {
	c.load(ip6Next, atWord, 1)
	c.add(asm.LoadMem(asm.R1, asm.R10, atWord, asm.Byte), asm.JNE.Imm(asm.R1, icmpv6, elsewhere))
	c.load(icmp6Type, atWord, 1)
	c.add(asm.LoadMem(asm.R1, asm.R10, atWord, asm.Byte), asm.JNE.Imm(asm.R1, kind, elsewhere))
}

func (c *coder) end() {
	c.at("judge")
	c.add(
		asm.FnKtimeGetBootNs.Call(),
		asm.LoadMem(asm.R1, gate, 0, asm.DWord), asm.JLT.Reg(asm.R0, asm.R1, "speaks"),
		asm.JEq.Imm(traffic, 0, "shut"),
		asm.LoadMem(asm.R1, gate, 8, asm.DWord), asm.JLT.Reg(asm.R0, asm.R1, "pass"), asm.Ja.Label("shut"),
	)
	// The lease lasts. Does the process?
	c.at("speaks")
	c.add(
		asm.LoadMem(asm.R2, gate, 16, asm.Half), asm.JEq.Imm(asm.R2, 0, "pass"),
		// From port 9 to the token's, of 127.0.0.1 both: a listener is found or nothing.
		asm.StoreImm(asm.R10, atTuple, int64(loopback()), asm.Word), asm.StoreImm(asm.R10, atTuple+4, int64(loopback()), asm.Word),
		asm.StoreImm(asm.R10, atTuple+8, int64(be16(9)), asm.Half), asm.StoreMem(asm.R10, atTuple+10, asm.R2, asm.Half),
		asm.Mov.Reg(asm.R1, skb), asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, atTuple), asm.Mov.Imm(asm.R3, 12),
		asm.Mov.Imm(asm.R4, -1), // this network namespace
		asm.Mov.Imm(asm.R5, 0), asm.FnSkcLookupTcp.Call(), asm.JEq.Imm(asm.R0, 0, "shut"),
		asm.Mov.Reg(asm.R1, asm.R0), asm.FnSkRelease.Call(), asm.Ja.Label("pass"),
	)
	// An end that came by itself is worth counting; what was shut by hand is the daily
	// silence of a node that does not hold.
	c.at("shut")
	c.add(
		asm.LoadMem(asm.R1, gate, 0, asm.DWord), asm.JEq.Imm(asm.R1, 0, "drop"),
		asm.LoadMapPtr(asm.R1, c.drops.FD()), asm.Mov.Reg(asm.R2, asm.R10), asm.Add.Imm(asm.R2, atKey),
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	)
	c.at("drop")
	c.add(asm.Mov.Imm(asm.R0, drop), asm.Return())
	c.at("pass")
	c.add(asm.Mov.Imm(asm.R0, pass), asm.Return())
}

// loopback is 127.0.0.1 as it is stored here.
func loopback() int32 { return int32(binary.NativeEndian.Uint32([]byte{127, 0, 0, 1})) }
