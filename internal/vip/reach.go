package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// errNoSign is what a host is told for that gave no sign of life.
var errNoSign = errors.New("no answer")

// askAgain is how often one that does not answer is asked again: a frame may be lost.
const askAgain = 15 * time.Millisecond

// Reach asks by ARP or neighbour discovery for a host on the port's network until it
// answers, then returns nil, or until ctx ends. Any frame by which the host says that it
// has its address is an answer.
func (p *Port) Reach(ctx context.Context, a netip.Addr) error {
	e := p.listen(a)
	defer p.unlisten(e)
	again := time.NewTicker(askAgain)
	defer again.Stop()
	for {
		err := p.link.Ask(a)
		select {
		case <-e.claimed:
			return nil
		case <-ctx.Done():
			if err == nil {
				err = errNoSign
			}
			return fmt.Errorf("ask %s on %s: %w", a, p.link.Name(), err)
		case <-again.C:
		}
	}
}

// Reach asks a host that may be behind a router until it gives a sign of life, then returns
// nil, or until ctx ends: an answer to an ICMP echo, or to a TCP connection, accepted or
// refused.
func Reach(ctx context.Context, a netip.Addr) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ways := []func(context.Context, netip.Addr) error{ping, connect}
	ends := make(chan error, len(ways))
	for _, way := range ways {
		go func() { ends <- way(ctx, a) }() // ends with ctx
	}
	var errs []error
	for range ways {
		err := <-ends
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ping asks by ICMP. Whatever comes back from the host itself is a sign of life.
func ping(ctx context.Context, a netip.Addr) error {
	network, message := "ip4:icmp", icmp.Message{Type: ipv4.ICMPTypeEcho}
	if a.Is6() {
		network, message = "ip6:ipv6-icmp", icmp.Message{Type: ipv6.ICMPTypeEchoRequest}
	}
	message.Body = &icmp.Echo{ID: 0x5052, Seq: 1, Data: []byte("proxyd")}
	frame, err := message.Marshal(nil) // ICMPv6's checksum is the kernel's affair
	if err != nil {
		return err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, network, a.String())
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	go func() { // ends with the connection
		for {
			if _, err := c.Write(frame); err != nil || !pause(ctx, askAgain) {
				return
			}
		}
	}()
	var buf [512]byte
	for {
		_, err := c.Read(buf[:])
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("ping %s: %w", a, errNoSign)
		case !pause(ctx, askAgain): // an error that came back for an echo
			return fmt.Errorf("ping %s: %w", a, err)
		}
	}
}

// probePort is where a connection is tried: a port that firewalls rarely swallow.
const probePort = 443

// connect asks by TCP. A refusal is an answer too.
func connect(ctx context.Context, a netip.Addr) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, probePort).String())
	switch {
	case err == nil:
		c.Close()
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: %w", a, errNoSign)
	}
	return fmt.Errorf("connect to %s: %w", a, err)
}

// pause waits for d and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
