package lab

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Flood3 drill sends first packets of QUIC with forged sources to the VIP, while clients of
// HTTP/3 ask on connections that they have, and connect anew.
type Flood3 struct {
	Plan Plan
	Rate int           // forged packets a second; 0: 2,000
	Last time.Duration // of the flood; 0: 10 s
	Out  io.Writer
}

// What clients and the node may notice of the flood.
const (
	flood3Times  = 2                     // p99 under the flood, to that before
	flood3Slack  = 50 * time.Millisecond // a busy machine stands still for as long
	flood3Memory = 32 << 20              // bytes that the node may grow by
)

// Run plays it and returns an error that says which promise was not kept.
func (f Flood3) Run(ctx context.Context) error {
	f.Rate, f.Last = cmp.Or(f.Rate, 2000), cmp.Or(f.Last, 10*time.Second)
	hellos, err := recordHellos(200)
	if err != nil {
		return err
	}
	p := f.Plan
	p.Secure = true
	s, err := NewStage(p)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Start(ctx, patience); err != nil {
		return err
	}
	holder := s.Holder(ctx)
	if holder == nil {
		return errors.New("nobody holds the VIP")
	}
	if err := holder.Do(func() error { return routeForged(s.stranger.Addr) }); err != nil {
		return err
	}
	at := netip.AddrPortFrom(s.VIP, 443)
	if _, err := f.ask(ctx, s, at, time.Second); err != nil { // so that all is warm
		return err
	}
	t := Table{Head: []string{"", "requests", "p50", "p99", "connections", "p50", "p99", "failed", "MB resident", "CPU of a core"}}
	measure := func(what string, d time.Duration) (asked3, int64, error) {
		before, err := usage(holder.PID())
		if err != nil {
			return asked3{}, 0, err
		}
		began := time.Now()
		r, err := f.ask(ctx, s, at, d)
		if err != nil {
			return r, 0, err
		}
		after, err := usage(holder.PID())
		if err != nil {
			return r, 0, err
		}
		t.Add(what, fmt.Sprint(len(r.requests)), show(part(r.requests, 50)), show(part(r.requests, 99)), fmt.Sprint(len(r.conns)),
			show(part(r.conns, 50)), show(part(r.conns, 99)), fmt.Sprint(len(r.failed)), fmt.Sprintf("%.1f", float64(after.Resident)/1e6),
			fmt.Sprintf("%.2f", (after.CPU-before.CPU).Seconds()/time.Since(began).Seconds()))
		return r, after.Resident, nil
	}
	calm, small, err := measure("before", f.Last)
	if err != nil {
		return err
	}
	var sent int
	var flooding sync.WaitGroup
	under, stop := context.WithCancel(ctx)
	var wrong error
	flooding.Go(func() { sent, wrong = forge(under, s.stranger, at, hellos, f.Rate) }) // ends with stop
	busy, large, err := measure(fmt.Sprintf("%d forged a second", f.Rate), f.Last)
	stop()
	flooding.Wait()
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	after, _, err := measure("afterwards", f.Last/2)
	if err != nil {
		return err
	}
	page, err := holder.Client().Metrics(ctx)
	if err != nil {
		return err
	}
	hung := int(labelled(page, "proxyd_tls_handshakes_total") - labelled(page, `proxyd_tls_handshakes_total{listener="https",result="ok"`))
	fmt.Fprintf(f.Out, "%d packets were forged; %d handshakes of them hung until their time was over\n", sent, hung)
	if err := t.WriteText(f.Out); err != nil {
		return err
	}
	var broken []error
	broken = append(broken, calm.failed...)
	broken = append(broken, busy.failed...)
	broken = append(broken, after.failed...)
	if least := int(f.Last.Seconds()) * f.Rate / 2; sent < least {
		broken = append(broken, fmt.Errorf("%d packets were forged, want %d at the least: nothing was shown", sent, least))
	}
	if hung == 0 {
		broken = append(broken, errors.New("no handshake hung: the forged packets did not arrive"))
	}
	if got, most := part(busy.requests, 99), flood3Times*part(calm.requests, 99)+flood3Slack; got > most {
		broken = append(broken, fmt.Errorf("p99 of requests under the flood: %v, %w less than %v", got, ErrPromise, most))
	}
	if large-small > flood3Memory {
		broken = append(broken, fmt.Errorf("the node grew by %d bytes, %w less than %d", large-small, ErrPromise, flood3Memory))
	}
	return errors.Join(broken...)
}

// part is the percentile of durations that are sorted.
func part(of []time.Duration, percent int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	return of[(len(of)-1)*percent/100]
}

// asked3 is what came of clients that were honest.
type asked3 struct {
	requests []time.Duration // on kept connections, sorted
	conns    []time.Duration // new ones with a request each, sorted
	failed   []error
}

// ask has eight clients ask fifty times a second each on connections that they keep, and opens
// ten connections a second.
func (f Flood3) ask(ctx context.Context, s *Stage, at netip.AddrPort, d time.Duration) (r asked3, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var mu sync.Mutex // guards r
	note := func(to *[]time.Duration, began time.Time, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			r.failed = append(r.failed, err)
			return
		}
		*to = append(*to, time.Since(began))
	}
	var all sync.WaitGroup
	defer all.Wait()
	for range 8 {
		c, err := dial3(context.WithoutCancel(ctx), s.client.space, at, 10*time.Second)
		if err != nil {
			cancel()
			return r, fmt.Errorf("connect by HTTP/3: %w", err)
		}
		all.Go(func() { // ends with ctx
			defer c.close()
			for pause(ctx, 20*time.Millisecond) == nil {
				began := time.Now()
				note(&r.requests, began, c.ask(context.WithoutCancel(ctx), 10*time.Second))
			}
		})
	}
	for pause(ctx, 100*time.Millisecond) == nil {
		all.Go(func() { // ends by its patience
			began := time.Now()
			c, err := dial3(context.WithoutCancel(ctx), s.client.space, at, 10*time.Second)
			if err == nil {
				err = c.ask(context.WithoutCancel(ctx), 10*time.Second)
				c.close()
			}
			note(&r.conns, began, err)
		})
	}
	all.Wait()
	slices.Sort(r.requests)
	slices.Sort(r.conns)
	return r, nil
}

// A recorder is a socket to nowhere that keeps the first datagram.
type recorder struct {
	net.PacketConn
	first chan []byte
}

func (r *recorder) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case r.first <- slices.Clone(b):
	default:
	}
	return len(b), nil
}

// recordHellos returns first packets of n handshakes, each with an id of its own.
func recordHellos(n int) ([][]byte, error) {
	var all [][]byte
	for range n {
		socket, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		r := &recorder{socket, make(chan []byte, 1)}
		t := &quic.Transport{Conn: r}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		go func() { // ends with cancel
			_, _ = t.Dial(ctx, socket.LocalAddr(), &tls.Config{InsecureSkipVerify: true, ServerName: benchHost, NextProtos: []string{"h3"}}, nil) // nobody answers
		}()
		select {
		case b := <-r.first:
			all = append(all, b)
		case <-ctx.Done():
			err = errors.New("a handshake that does not begin")
		}
		cancel()
		t.Close()
		socket.Close()
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// forgedNet is the network that forged sources are of (RFC 2544).
var forgedNet = netip.MustParsePrefix("198.18.0.0/16")

// routeForged sends what goes to forged sources to a host that drops it, as a router would
// take it: hosts of this network that are not there would be asked for by ARP, and answers to
// them fill the socket's buffer meanwhile.
func routeForged(via netip.Addr) error {
	l, err := netlink.LinkByName(hostInterface)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: via.AsSlice(),
		Dst: &net.IPNet{IP: forgedNet.Addr().AsSlice(), Mask: net.CIDRMask(forgedNet.Bits(), 32)}})
}

// forge sends the datagrams from a host, under addresses that are nobody's, until ctx ends, and
// returns how many.
func forge(ctx context.Context, from *Host, to netip.AddrPort, datagrams [][]byte, rate int) (sent int, err error) {
	fd := -1
	if err := from.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		return 0, fmt.Errorf("forge packets: %w", err)
	}
	defer unix.Close(fd)
	sa := &unix.SockaddrInet4{Addr: to.Addr().As4()}
	const tick = 5 * time.Millisecond
	for began := time.Now(); pause(ctx, tick) == nil; {
		due := int(time.Since(began).Seconds() * float64(rate))
		for due = min(due, sent+rate/10); sent < due; sent++ {
			payload := datagrams[rand.IntN(len(datagrams))]
			source := forgedNet.Addr().As4()
			source[2], source[3] = byte(rand.IntN(256)), byte(1+rand.IntN(254))
			p := make([]byte, 28, 28+len(payload))
			p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP // the kernel fills in length and sum
			copy(p[12:], source[:])
			copy(p[16:], sa.Addr[:])
			binary.BigEndian.PutUint16(p[20:], uint16(1024+rand.IntN(60000)))
			binary.BigEndian.PutUint16(p[22:], to.Port())
			binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload))) // and no sum, which IPv4 allows
			if err := unix.Sendto(fd, append(p, payload...), 0, sa); err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
				return sent, fmt.Errorf("forge packets: %w", err)
			}
		}
	}
	return sent, nil
}
