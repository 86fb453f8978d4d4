package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"proxyd/internal/vip/gather"
)

// changes tells the kernel of addresses that come and go. What several keepers want at the
// same time goes in one datagram, and is answered for each. It has a socket of its own, and
// one buffer: the library makes a new one of 64 KiB for each answer.
type changes struct {
	fd    int
	buf   []byte
	queue gather.Queue[change]
}

// A change is one address, or route, that comes or goes.
type change struct {
	request *nl.NetlinkRequest
	done    bool
	err     error
}

// changesAtOnce is how many changes one datagram has. The kernel answers each at once, and
// the answers must have room in the socket: about 1 KiB each, of its 208.
const changesAtOnce = 64

// openChanges opens the socket. An answer that takes longer than patience is an error.
func openChanges(patience time.Duration) (*changes, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// It blocks: the kernel answers before the call that asks it returns.
	wait := unix.NsecToTimeval(int64(patience))
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait),
	)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &changes{fd: fd, buf: make([]byte, 32<<10)}, nil
}

func (c *changes) close() error { return unix.Close(c.fd) }

// put adds an address to the interface of the index, or prolongs it.
func (c *changes) put(a netip.Addr, index int, life time.Duration) error {
	return c.do(newRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a, index, life))
}

// remove removes an address from the interface of the index.
func (c *changes) remove(a netip.Addr, index int) error {
	return c.do(newRequest(unix.RTM_DELADDR, 0, a, index, 0))
}

// newRequest describes what is to be done with a virtual address to the kernel, which
// counts its life in seconds.
func newRequest(kind, flags int, a netip.Addr, index int, life time.Duration) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	head := nl.NewIfAddrmsg(unix.AF_INET)
	head.Index, head.Prefixlen = uint32(index), uint8(a.BitLen())
	if index == loopback {
		head.Scope = unix.RT_SCOPE_HOST
	}
	r.AddData(head)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.AsSlice()))
	if a.Is6() {
		head.Family = unix.AF_INET6
		r.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)))
	}
	if life > 0 {
		seconds := uint32((life + time.Second - 1) / time.Second)
		r.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, (&nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Valid: seconds}}).Serialize()))
	}
	return r
}

// The route that makes an IPv6 address local whatever becomes of the routes that Linux makes
// for it, which are at metric 0.
const (
	bridgeMetric   = 4096
	bridgeProtocol = unix.RTPROT_STATIC
)

// putRoute makes an IPv6 address local for as long as the address itself lives, or prolongs that.
func (c *changes) putRoute(a netip.Addr, life time.Duration) error {
	r := newRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a)
	r.AddData(nl.NewRtAttr(unix.RTA_EXPIRES, nl.Uint32Attr(uint32((life+time.Second-1)/time.Second))))
	return c.do(r)
}

// removeRoute takes that away. It is no error if it is not there.
func (c *changes) removeRoute(a netip.Addr) error {
	if err := c.do(newRoute(unix.RTM_DELROUTE, 0, a)); !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

func newRoute(kind, flags int, a netip.Addr) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	head := nl.NewRtMsg()
	head.Family, head.Dst_len, head.Table = unix.AF_INET6, uint8(a.BitLen()), unix.RT_TABLE_LOCAL
	head.Type, head.Scope, head.Protocol = unix.RTN_LOCAL, unix.RT_SCOPE_HOST, bridgeProtocol
	r.AddData(head)
	r.AddData(nl.NewRtAttr(unix.RTA_DST, a.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(loopback)))
	r.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(bridgeMetric)))
	return r
}

// do has the kernel do what r asks for, with what others ask for meanwhile.
func (c *changes) do(r *nl.NetlinkRequest) error {
	x := &change{request: r}
	c.queue.Do(x, c.doAll)
	return x.err
}

func (c *changes) doAll(all []*change) {
	for part := range slices.Chunk(all, changesAtOnce) {
		err := c.exchange(part)
		for _, x := range part {
			if !x.done {
				x.err = err
			}
		}
	}
}

// exchange sends changes and takes in the answers. An error is of those that have none.
func (c *changes) exchange(all []*change) error {
	var out []byte
	waiting := map[uint32]*change{}
	for _, x := range all {
		out = append(out, x.request.Serialize()...) // whole: each part of it has a length that is aligned
		waiting[x.request.Seq] = x
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	for len(waiting) > 0 {
		n, from, err := unix.Recvfrom(c.fd, c.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("recvfrom", err)
		}
		if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != nl.PidKernel {
			continue // another process may send to us
		}
		messages, err := syscall.ParseNetlinkMessage(c.buf[:n])
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, m := range messages {
			// An answer that is for none of these came too late for those before them.
			x := waiting[m.Header.Seq]
			if x == nil || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			delete(waiting, m.Header.Seq)
			x.done = true
			if code := -int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				x.err = unix.Errno(code)
			}
		}
	}
	return nil
}
