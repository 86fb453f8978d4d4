package relay

import (
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// What the program decides of a frame that came in, in this order:
//
//	nothing is sent on at present             local
//	not to this host, or of another VLAN      local
//	not to an address with a target           local
//	the target's time is over                 local
//	TCP, a plain SYN                          local: new connections are this host's
//	TCP, a connection, handshake or TIME-WAIT local
//	TCP, a SYN cookie that this host gave     local
//	TCP, anything else                        sent on
//	ICMP error about TCP that is not here     sent on
//	UDP, QUIC, an id of another node          sent on
//	a later fragment                          as its first one, if that was seen
//	all the rest: other UDP, ping             local
//
// What is sent on keeps its addresses; it gets other hardware addresses and one hop less,
// so that no mistake makes it go round for ever. It is never sent back to where it came
// from. UDP has no connection to look up: the id that a server gave to a connection of QUIC
// begins with a Mark that says whose it is. Errors about QUIC stay here: it finds out by itself
// how large a packet may be (RFC 8899).

// A packet's time of looking at fragments of which the first was sent on, in nanoseconds.
const fragmentTime = 30e9

// Fields of struct __sk_buff.
const (
	skbType     = 4
	skbProtocol = 16
	skbVLAN     = 20
	skbIndex    = 40
)

// Verdicts, and other numbers of the kernel.
const (
	local        = -1 // TCX_NEXT: go on as if there was no program
	protoTCP     = 6
	protoUDP     = 17
	protoICMP    = 1
	protoICMPv6  = 58
	stateListen  = 10 // TCP_LISTEN
	sockState    = 72 // in struct bpf_sock
	recomputeSum = 1  // BPF_F_RECOMPUTE_CSUM
	ownSpace     = -1 // BPF_F_CURRENT_NETNS
	ethernet     = 14
)

// Where things are on the stack, below the frame pointer.
const (
	vipAt   = -16 // the address that the packet is for, 16 bytes
	macAt   = -24
	tupleAt = -64  // of bpf_skc_lookup_tcp: 12 or 36 bytes
	ipAt    = -104 // 20 or 40 bytes
	tcpAt   = -128 // 20 bytes
	moreAt  = -136 // 8 bytes of an extension header, or of a port pair
	hopAt   = -144
	slotAt  = -148
	fragAt  = -192 // key of fragments: 16 bytes to, 16 bytes from, 4 bytes of identification
	pieceAt = -196 // 1 if this is the first of several fragments
	timeAt  = -208
	quicAt  = -224 // 12 bytes of a datagram
)

// The value of an entry of the targets: until when 8 | target's MAC 6 | our MAC 6 | slot 4.
const (
	untilOff = 0
	macsOff  = 8
	slotOff  = 20
	entryLen = 24
)

// memory is what the program shares with this process.
type memory struct {
	active    *ebpf.Map // one number: how many targets there are
	targets   *ebpf.Map // by address of 16 bytes, IPv4 as ::ffff:a.b.c.d
	counts    *ebpf.Map // packets by slot and processor
	fragments *ebpf.Map // when a first fragment was sent on
}

// An assembly is a program that grows. R6 is the context, R9 the target's entry.
type assembly struct {
	code   asm.Instructions
	label  string // of the next instruction
	labels int    // that were made
}

func (a *assembly) add(ins ...asm.Instruction) {
	for _, i := range ins {
		if a.label != "" {
			i, a.label = i.WithSymbol(a.label), ""
		}
		a.code = append(a.code, i)
	}
}

func (a *assembly) at(label string) { a.label = label }

// stack points a register at the stack.
func stack(r asm.Register, at int32) asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(r, asm.R10), asm.Add.Imm(r, at)}
}

// load copies bytes of the frame, from a fixed offset, to the stack. What is not there in
// full is not for us.
func (a *assembly) load(from int32, to int32, n int32) {
	a.add(asm.Mov.Imm(asm.R2, from))
	a.loadR2(to, n)
}

// loadAt is load from R7 and a bit.
func (a *assembly) loadAt(and int32, to int32, n int32) {
	a.add(asm.Mov.Reg(asm.R2, asm.R7), asm.Add.Imm(asm.R2, and))
	a.loadR2(to, n)
}

func (a *assembly) loadR2(to, n int32) {
	a.add(asm.Mov.Reg(asm.R1, asm.R6))
	a.add(stack(asm.R3, to)...)
	a.add(asm.Mov.Imm(asm.R4, n), asm.FnSkbLoadBytes.Call(), asm.JNE.Imm(asm.R0, 0, "local"))
}

// copy copies on the stack, by words.
func (a *assembly) copy(from, to int16, n int16) {
	for i := int16(0); i < n; i += 4 {
		a.add(asm.LoadMem(asm.R1, asm.R10, from+i, asm.Word), asm.StoreMem(asm.R10, to+i, asm.R1, asm.Word))
	}
}

func (a *assembly) byteAt(r asm.Register, at int16) { a.add(asm.LoadMem(r, asm.R10, at, asm.Byte)) }

func program(m memory, mark Mark) asm.Instructions {
	a := &assembly{}
	a.add(
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R1, m.active.FD(), 0),
		asm.LoadMem(asm.R1, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "local"),
		asm.LoadMem(asm.R1, asm.R6, skbType, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "local"), // PACKET_HOST
		asm.LoadMem(asm.R1, asm.R6, skbVLAN, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "local"),
		asm.StoreImm(asm.R10, pieceAt, 0, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, 0xdd86, "ip6"),
		asm.JNE.Imm(asm.R1, 0x0008, "local"),
	)
	a.ipv4(m)
	a.at("ip6")
	a.ipv6(m)
	a.quic(mark)
	a.send(m)
	a.at("local")
	a.add(asm.Mov.Imm(asm.R0, local), asm.Return())
	return a.code
}

// target finds the entry of the address at vipAt.
func (a *assembly) target(m memory) {
	a.add(asm.LoadMapPtr(asm.R1, m.targets.FD()))
	a.add(stack(asm.R2, vipAt)...)
	a.add(
		asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "local"), asm.Mov.Reg(asm.R9, asm.R0),
		asm.FnKtimeGetBootNs.Call(),
		asm.LoadMem(asm.R1, asm.R9, untilOff, asm.DWord), asm.JGE.Reg(asm.R0, asm.R1, "local"),
	)
}

// mapped puts an IPv4 address of the stack into 16 bytes.
func (a *assembly) mapped(from, to int16) {
	a.add(
		asm.StoreImm(asm.R10, to, 0, asm.Word), asm.StoreImm(asm.R10, to+4, 0, asm.Word),
		asm.Mov.Imm32(asm.R1, -65536), asm.StoreMem(asm.R10, to+8, asm.R1, asm.Word), // 00 00 ff ff
		asm.LoadMem(asm.R1, asm.R10, from, asm.Word), asm.StoreMem(asm.R10, to+12, asm.R1, asm.Word),
	)
}

func (a *assembly) ipv4(m memory) {
	const from, to = ipAt + 12, ipAt + 16
	a.load(ethernet, ipAt, 20)
	a.mapped(to, vipAt)
	a.target(m)
	// R7: where the transport's head is.
	a.byteAt(asm.R7, ipAt)
	a.add(asm.And.Imm(asm.R7, 0x0f), asm.LSh.Imm(asm.R7, 2), asm.Add.Imm(asm.R7, ethernet))

	a.add(asm.LoadMem(asm.R8, asm.R10, ipAt+6, asm.Half), asm.And.Imm(asm.R8, 0xff3f), asm.JEq.Imm(asm.R8, 0, "whole4"))
	a.mapped(from, fragAt+16)
	a.add(asm.LoadMem(asm.R1, asm.R10, ipAt+4, asm.Half), asm.StoreMem(asm.R10, fragAt+32, asm.R1, asm.Word),
		asm.And.Imm(asm.R8, 0xff1f), asm.JNE.Imm(asm.R8, 0, "later"),
		asm.StoreImm(asm.R10, pieceAt, 1, asm.Word))

	a.at("whole4")
	a.byteAt(asm.R1, ipAt+9)
	a.add(asm.JEq.Imm(asm.R1, protoICMP, "icmp4"), asm.JEq.Imm(asm.R1, protoUDP, "quic"), asm.JNE.Imm(asm.R1, protoTCP, "local"))
	a.tcpHead()
	a.copy(from, tupleAt, 8)
	a.copy(tcpAt, tupleAt+8, 4)
	a.lookUp(12)
	a.judge("4", 20)

	// The packet that an error is about was sent by the address.
	a.at("icmp4")
	a.loadAt(0, moreAt, 1)
	a.byteAt(asm.R1, moreAt)
	a.add(asm.JEq.Imm(asm.R1, 3, "error4"), asm.JEq.Imm(asm.R1, 11, "error4"), asm.JNE.Imm(asm.R1, 12, "local"))
	a.at("error4")
	a.loadAt(8, ipAt, 20)
	a.byteAt(asm.R1, ipAt+9)
	a.add(asm.JNE.Imm(asm.R1, protoTCP, "local"),
		asm.LoadMem(asm.R1, asm.R10, ipAt+6, asm.Half), asm.And.Imm(asm.R1, 0xff1f), asm.JNE.Imm(asm.R1, 0, "local"),
		asm.LoadMem(asm.R1, asm.R10, from, asm.Word), asm.LoadMem(asm.R2, asm.R10, vipAt+12, asm.Word), asm.JNE.Reg(asm.R1, asm.R2, "local"))
	a.byteAt(asm.R1, ipAt)
	a.add(asm.And.Imm(asm.R1, 0x0f), asm.LSh.Imm(asm.R1, 2), asm.Add.Reg(asm.R7, asm.R1))
	a.loadAt(8, moreAt, 4)
	a.copy(to, tupleAt, 4)
	a.copy(from, tupleAt+4, 4)
	a.ports(8)
	a.lookUp(12)
	a.judgeError("4")
}

func (a *assembly) ipv6(m memory) {
	const next, from, to = ipAt + 6, ipAt + 8, ipAt + 24
	a.load(ethernet, ipAt, 40)
	a.copy(to, vipAt, 16)
	a.target(m)
	// R7: where the next head is, R8: what it is.
	a.add(asm.Mov.Imm(asm.R7, ethernet+40))
	a.byteAt(asm.R8, next)
	for range 4 { // RFC 8200, 4.1: as many as there are of use, in any order
		a.add(asm.JEq.Imm(asm.R8, protoTCP, "tcp6"), asm.JEq.Imm(asm.R8, protoICMPv6, "icmp6"), asm.JEq.Imm(asm.R8, protoUDP, "quic"))
		step, frag := a.fresh("step"), a.fresh("frag")
		a.add(asm.JEq.Imm(asm.R8, 44, frag),
			asm.JEq.Imm(asm.R8, 0, step), asm.JEq.Imm(asm.R8, 43, step), asm.JNE.Imm(asm.R8, 60, "local"))
		a.at(step)
		a.loadAt(0, moreAt, 2)
		a.byteAt(asm.R8, moreAt)
		a.byteAt(asm.R1, moreAt+1)
		end := a.fresh("end")
		a.add(asm.Add.Imm(asm.R1, 1), asm.LSh.Imm(asm.R1, 3), asm.Add.Reg(asm.R7, asm.R1), asm.Ja.Label(end))
		a.at(frag)
		a.loadAt(0, moreAt, 8)
		a.copy(from, fragAt+16, 16)
		a.copy(moreAt+4, fragAt+32, 4)
		a.add(asm.LoadMem(asm.R1, asm.R10, moreAt+2, asm.Half), asm.And.Imm(asm.R1, 0xf8ff), asm.JNE.Imm(asm.R1, 0, "later"),
			asm.StoreImm(asm.R10, pieceAt, 1, asm.Word), asm.Add.Imm(asm.R7, 8))
		a.byteAt(asm.R8, moreAt)
		a.at(end)
	}
	a.add(asm.JEq.Imm(asm.R8, protoTCP, "tcp6"), asm.JEq.Imm(asm.R8, protoUDP, "quic"), asm.JNE.Imm(asm.R8, protoICMPv6, "local"))

	a.at("icmp6")
	a.loadAt(0, moreAt, 1)
	a.byteAt(asm.R1, moreAt)
	a.add(asm.JEq.Imm(asm.R1, 0, "local"), asm.JGT.Imm(asm.R1, 4, "local"))
	a.loadAt(8, ipAt, 40)
	a.byteAt(asm.R1, next)
	a.add(asm.JNE.Imm(asm.R1, protoTCP, "local"))
	for i := int16(0); i < 16; i += 8 {
		a.add(asm.LoadMem(asm.R1, asm.R10, from+i, asm.DWord), asm.LoadMem(asm.R2, asm.R10, vipAt+i, asm.DWord), asm.JNE.Reg(asm.R1, asm.R2, "local"))
	}
	a.loadAt(48, moreAt, 4)
	a.copy(to, tupleAt, 16)
	a.copy(from, tupleAt+16, 16)
	a.ports(32)
	a.lookUp(36)
	a.judgeError("6")

	a.at("tcp6")
	a.tcpHead()
	a.copy(from, tupleAt, 32)
	a.copy(tcpAt, tupleAt+32, 4)
	a.lookUp(36)
	a.judge("6", 40)
}

// fresh makes a label that is not there yet.
func (a *assembly) fresh(name string) string {
	a.labels++
	return name + strconv.Itoa(a.labels)
}

// tcpHead reads the head at R7. A plain SYN is this host's.
func (a *assembly) tcpHead() {
	a.loadAt(0, tcpAt, 20)
	a.byteAt(asm.R1, tcpAt+13)
	a.add(asm.And.Imm(asm.R1, 0x12), asm.JEq.Imm(asm.R1, 0x02, "local"))
}

// ports puts those of a packet that we sent into the tuple, the other way round.
func (a *assembly) ports(at int16) {
	a.add(
		asm.LoadMem(asm.R1, asm.R10, moreAt+2, asm.Half), asm.StoreMem(asm.R10, tupleAt+at, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.R10, moreAt, asm.Half), asm.StoreMem(asm.R10, tupleAt+at+2, asm.R1, asm.Half),
	)
}

// lookUp looks for the socket of the tuple. It also finds requests, that is connections
// whose handshake is not over, and those in TIME-WAIT.
func (a *assembly) lookUp(n int32) {
	a.add(asm.Mov.Reg(asm.R1, asm.R6))
	a.add(stack(asm.R2, tupleAt)...)
	a.add(asm.Mov.Imm(asm.R3, n), asm.Mov.Imm(asm.R4, ownSpace), asm.Mov.Imm(asm.R5, 0), asm.FnSkcLookupTcp.Call(),
		asm.JEq.Imm(asm.R0, 0, "send"), asm.Mov.Reg(asm.R8, asm.R0))
}

// judge decides by the socket in R8. A listener is none of the packet's, unless that ends
// a handshake of which only a cookie is left.
func (a *assembly) judge(family string, head int32) {
	a.add(asm.LoadMem(asm.R1, asm.R8, sockState, asm.Word), asm.JEq.Imm(asm.R1, stateListen, "listener"+family))
	a.add(asm.Mov.Reg(asm.R1, asm.R8), asm.FnSkRelease.Call(), asm.Ja.Label("local"))
	a.at("listener" + family)
	a.add(asm.Mov.Reg(asm.R1, asm.R8))
	a.add(stack(asm.R2, ipAt)...)
	a.add(asm.Mov.Imm(asm.R3, head))
	a.add(stack(asm.R4, tcpAt)...)
	a.add(asm.Mov.Imm(asm.R5, 20), asm.FnTcpCheckSyncookie.Call(), asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R8), asm.FnSkRelease.Call(),
		asm.JEq.Imm(asm.R7, 0, "local"), asm.Ja.Label("send"))
}

// judgeError is judge for an ICMP error.
func (a *assembly) judgeError(family string) {
	a.add(asm.LoadMem(asm.R7, asm.R8, sockState, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R8), asm.FnSkRelease.Call(),
		asm.JNE.Imm(asm.R7, stateListen, "local"), asm.Ja.Label("send"))
}

// quic decides by the connection id of the datagram at R7. One that a client made up is none
// of ours, but one in 2^24.
func (a *assembly) quic(mark Mark) {
	a.at("quic")
	if mark == (Mark{}) {
		a.add(asm.Ja.Label("local"))
		return
	}
	a.loadAt(datagram, quicAt, markLong+markLen)
	a.byteAt(asm.R1, quicAt)
	a.add(asm.And.Imm(asm.R1, longBit), asm.JNE.Imm(asm.R1, 0, "long"))
	a.whose(mark, quicAt+markShort)
	a.at("long")
	a.byteAt(asm.R1, quicAt+markLong-1)
	a.add(asm.JNE.Imm(asm.R1, int32(mark.idLength()), "local"))
	a.whose(mark, quicAt+markLong)
}

// whose sends on what has an id of another node on the stack, and nothing else.
func (a *assembly) whose(mark Mark, at int16) {
	for i, b := range mark {
		a.byteAt(asm.R1, at+int16(i))
		to := "send"
		if i < markCommon {
			to = "local"
		}
		a.add(asm.JNE.Imm(asm.R1, int32(b), to))
	}
	a.add(asm.Ja.Label("local"))
}

// send sends the frame on to the target in R9.
func (a *assembly) send(m memory) {
	// A fragment that is not the first has no ports: it goes where the first went.
	a.at("later")
	a.copy(vipAt, fragAt, 16)
	a.add(asm.LoadMapPtr(asm.R1, m.fragments.FD()))
	a.add(stack(asm.R2, fragAt)...)
	a.add(asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "local"),
		asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord), asm.FnKtimeGetBootNs.Call(), asm.Sub.Reg(asm.R0, asm.R7),
		asm.LoadImm(asm.R1, fragmentTime, asm.DWord), asm.JGT.Reg(asm.R0, asm.R1, "local"))

	a.at("send")
	a.load(6, macAt, 6)
	a.add(
		asm.LoadMem(asm.R1, asm.R10, macAt, asm.Word), asm.LoadMem(asm.R2, asm.R9, macsOff, asm.Word), asm.JNE.Reg(asm.R1, asm.R2, "from"),
		asm.LoadMem(asm.R1, asm.R10, macAt+4, asm.Half), asm.LoadMem(asm.R2, asm.R9, macsOff+4, asm.Half), asm.JEq.Reg(asm.R1, asm.R2, "local"),
	)
	a.at("from")
	a.add(asm.LoadMem(asm.R1, asm.R10, pieceAt, asm.Word), asm.JEq.Imm(asm.R1, 0, "hop"))
	a.copy(vipAt, fragAt, 16)
	a.add(asm.FnKtimeGetBootNs.Call(), asm.StoreMem(asm.R10, timeAt, asm.R0, asm.DWord), asm.LoadMapPtr(asm.R1, m.fragments.FD()))
	a.add(stack(asm.R2, fragAt)...)
	a.add(stack(asm.R3, timeAt)...)
	a.add(asm.Mov.Imm(asm.R4, 0), asm.FnMapUpdateElem.Call())

	a.at("hop")
	a.add(asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word), asm.JEq.Imm(asm.R1, 0xdd86, "hop6"))
	a.load(ethernet+8, hopAt, 2) // with the byte behind it, as the sum is over words
	a.add(asm.LoadMem(asm.R3, asm.R10, hopAt, asm.Half))
	a.byteAt(asm.R1, hopAt)
	a.add(asm.JLE.Imm(asm.R1, 1, "local"), asm.Sub.Imm(asm.R1, 1), asm.StoreMem(asm.R10, hopAt, asm.R1, asm.Byte),
		asm.LoadMem(asm.R4, asm.R10, hopAt, asm.Half),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ethernet+10), asm.Mov.Imm(asm.R5, 2), asm.FnL3CsumReplace.Call(),
		asm.JNE.Imm(asm.R0, 0, "local"))
	a.store(ethernet+8, hopAt, 1, 0)
	a.add(asm.Ja.Label("count"))
	a.at("hop6")
	a.load(ethernet+7, hopAt, 1)
	a.byteAt(asm.R1, hopAt)
	a.add(asm.JLE.Imm(asm.R1, 1, "local"), asm.Sub.Imm(asm.R1, 1), asm.StoreMem(asm.R10, hopAt, asm.R1, asm.Byte))
	a.store(ethernet+7, hopAt, 1, recomputeSum)

	a.at("count")
	a.add(asm.LoadMem(asm.R1, asm.R9, slotOff, asm.Word), asm.StoreMem(asm.R10, slotAt, asm.R1, asm.Word), asm.LoadMapPtr(asm.R1, m.counts.FD()))
	a.add(stack(asm.R2, slotAt)...)
	a.add(asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "away"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord))

	a.at("away")
	a.add(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0), asm.Mov.Reg(asm.R3, asm.R9), asm.Add.Imm(asm.R3, macsOff),
		asm.Mov.Imm(asm.R4, 12), asm.Mov.Imm(asm.R5, 0), asm.FnSkbStoreBytes.Call(),
		asm.LoadMem(asm.R1, asm.R6, skbIndex, asm.Word), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
}

// store writes bytes of the stack into the frame.
func (a *assembly) store(to int32, from int32, n, flags int32) {
	a.add(asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, to))
	a.add(stack(asm.R3, from)...)
	a.add(asm.Mov.Imm(asm.R4, n), asm.Mov.Imm(asm.R5, flags), asm.FnSkbStoreBytes.Call())
}
