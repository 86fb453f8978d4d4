// Package proxyheader reads and writes the header of the PROXY protocol, versions 1 and 2,
// by which a proxy that passes a connection on says whose it is. It works on bytes alone.
//
// The specification is HAProxy's: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt.
// What a complete header says is read by go-proxyproto; this package finds out from the
// bytes at hand where it ends, so that nothing behind it is consumed and nobody waits.
package proxyheader

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"

	proxyproto "github.com/pires/go-proxyproto"

	"proxyd/internal/dataplane"
)

const (
	// MaxBytes is how long a header may be: the addresses of version 2, and 4 KiB of what
	// else a sender has to say, a client's certificate for example.
	MaxBytes = fixedBytes + 4<<10

	fixedBytes = 16  // of version 2, before its addresses
	maxLine    = 107 // of version 1, with its CRLF (section 2.1)
)

var (
	line      = []byte("PROXY ")
	signature = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// A Header says whose connection it is on that it stands.
type Header struct {
	// Client is who has connected to the sender, and Local where. Both are the zero
	// AddrPort if the header names nobody: then the connection is the sender's own, such as
	// a check of its.
	Client, Local netip.AddrPort
}

// Parse reads the header at the beginning of b. n is how many bytes it has, or 0 if there
// must be more of them. The error is a *dataplane.Malformed.
func Parse(b []byte) (h Header, n int, err error) {
	n, err = size(b)
	if n == 0 || err != nil {
		return Header{}, 0, err
	}
	rest := bytes.NewReader(b[:n])
	r := bufio.NewReaderSize(rest, n)
	said, err := proxyproto.Read(r)
	switch {
	case err != nil:
		return Header{}, 0, malformed(err.Error())
	case rest.Len()+r.Buffered() > 0:
		return Header{}, 0, malformed("there is more in it than it says")
	case said.Command.IsLocal(), said.TransportProtocol.IsUnix():
		return Header{}, n, nil
	case !said.TransportProtocol.IsStream():
		return Header{}, 0, malformed("it is about datagrams")
	case said.Version == 2 && !sound(b[:n]):
		return Header{}, 0, malformed("it has come with another checksum than it was sent with")
	}
	h.Client, h.Local = addrOf(said.SourceAddr), addrOf(said.DestinationAddr)
	if !h.Client.IsValid() || !h.Local.IsValid() || h.Client.Addr().IsUnspecified() || h.Client.Addr().IsMulticast() {
		return Header{}, 0, malformed("it names no client that there can be")
	}
	return h, n, nil
}

// addressBytes is how much of a header of version 2 is addresses, by family.
var addressBytes = [...]int{0, 12, 36, 216}

// typeCRC32C is of a TLV with a checksum of the whole header (section 2.2.3).
const typeCRC32C = 0x03

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sound reports whether a header of version 2 is what its checksum says, if it has one.
func sound(b []byte) bool {
	at := fixedBytes + addressBytes[b[13]>>4]
	for at+3 <= len(b) {
		value := at + 3
		end := value + int(binary.BigEndian.Uint16(b[at+1:]))
		switch {
		case end > len(b):
			return true // what is behind the addresses is no TLV, and read over
		case b[at] != typeCRC32C:
			at = end
			continue
		case end-value != 4:
			return false
		}
		sum := crc32.Update(0, castagnoli, b[:value])
		sum = crc32.Update(sum, castagnoli, make([]byte, 4)) // the checksum itself counts as 0
		sum = crc32.Update(sum, castagnoli, b[end:])
		return sum == binary.BigEndian.Uint32(b[value:])
	}
	return true
}

// size returns how long the header is that begins b; 0 if that cannot be told yet, or if
// not all of it is there.
func size(b []byte) (int, error) {
	switch {
	case begins(b, signature):
		if len(b) < fixedBytes {
			return 0, nil
		}
		n := fixedBytes + int(binary.BigEndian.Uint16(b[14:]))
		if n > MaxBytes {
			return 0, malformed("it is too long")
		}
		if len(b) < n {
			return 0, nil
		}
		return n, nil
	case begins(b, line):
		end := bytes.IndexByte(b[:min(len(b), maxLine)], '\n')
		if end < 0 && len(b) >= maxLine {
			return 0, malformed("the line is too long")
		}
		return end + 1, nil
	}
	return 0, &dataplane.Malformed{Status: 400, Reason: "proxy_missing", Detail: "the connection begins with no PROXY header"}
}

// begins reports whether b begins with prefix, as far as there is any of b.
func begins(b, prefix []byte) bool {
	n := min(len(b), len(prefix))
	return bytes.Equal(b[:n], prefix[:n])
}

func malformed(detail string) error {
	return &dataplane.Malformed{Status: 400, Reason: "proxy_header", Detail: detail}
}

func addrOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := tcp.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

var errVersion = errors.New("there is no such version of the PROXY protocol")

// Append appends a header of version 1 or 2. It says that the connection is client's, who
// has connected to local; or, with the zero AddrPort, that it is our own: LOCAL, which
// version 1 calls UNKNOWN.
func Append(b []byte, version int, client, local netip.AddrPort) ([]byte, error) {
	h := &proxyproto.Header{Version: byte(version), Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	if version != 1 && version != 2 {
		return b, errVersion
	}
	if client.IsValid() && local.IsValid() {
		from, to := client.Addr().Unmap().WithZone(""), local.Addr().Unmap().WithZone("")
		h.Command, h.TransportProtocol = proxyproto.PROXY, proxyproto.TCPv4
		if !from.Is4() || !to.Is4() { // a header has one family
			h.TransportProtocol = proxyproto.TCPv6
			from, to = netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16())
		}
		h.SourceAddr = &net.TCPAddr{IP: from.AsSlice(), Port: int(client.Port())}
		h.DestinationAddr = &net.TCPAddr{IP: to.AsSlice(), Port: int(local.Port())}
	}
	said, err := h.Format()
	if err != nil {
		return b, err
	}
	return append(b, said...), nil
}
