package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/packet"
)

// beatPort is that of heartbeats and lifelines: one above the port in cluster.join.
const beatPort = joinPort + 1

// attackFor is how long what the nodes say is recorded.
const attackFor = time.Second

// largest is the largest payload of a datagram that fits in one frame.
const largest = 1500 - ipv4HeaderLen - udpHeaderLen

// A volley is something that a stranger sends to one node, and how the node must count it.
type volley struct {
	what   string
	counts []string // reasons of proxyd_cluster_messages_dropped_total, which together rise by as many as were sent
	part   float64  // of them that must be counted: the kernel of a busy host drops what is as large as its buffer
	fire   func(s *Stage, n *Node, r recording) (sent int, err error)
}

// volleys are what a stranger on the LAN can do who has recorded what the nodes say, and does
// not have the key.
func volleys() []volley {
	flipped := func(b []byte) []byte {
		b = slices.Clone(b)
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
		return b
	}
	cut := func(b []byte) []byte { return b[:1+rand.IntN(len(b)-1)] }
	grown := func(b []byte) []byte { return append(slices.Clone(b), make([]byte, largest-len(b))...) }
	same := func(b []byte) []byte { return b }
	broken := []string{"junk", "version", "stranger", "others"}
	return []volley{
		{"datagrams, played again", []string{"copy"}, 1, forged(beatPort, same)},
		{"datagrams, from a foreign address", []string{"copy"}, 1, foreign(beatPort)},
		{"datagrams with a bit flipped", append(slices.Clone(broken), "copy"), 1, forged(beatPort, flipped)},
		{"datagrams cut short", broken, 1, forged(beatPort, cut)},
		{"datagrams too long", broken, 1, forged(beatPort, grown)},
		{"datagrams of 60,000 bytes", broken, 0.1, huge},
		{"gossip with a bit flipped", []string{"gossip"}, 1, forged(joinPort, flipped)},
		{"gossip too long", []string{"gossip"}, 1, forged(joinPort, grown)},
		{"gossip by TCP, made up", []string{"gossip"}, 1, junkStreams(joinPort)},
		{"lifelines, made up", []string{"lifeline"}, 1, junkStreams(beatPort)},
		{"lifeline calls, played again", []string{"recorded"}, 1, replayedCalls},
	}
}

// attack records what a pair says, has the stranger play it again in every way that it can, and
// sees that each is counted by its cause and changes nothing.
func attack(ctx context.Context, s *Stage, holder *Node) error {
	other := s.Other(holder)
	r, err := other.record(ctx, attackFor, func() error {
		_, err := other.Upgrade(ctx, "") // which makes both call each other anew
		return err
	})
	if err != nil {
		return err
	}
	before, err := s.tenures(ctx)
	if err != nil {
		return err
	}
	var wrong []error
	for _, n := range []*Node{holder, other} {
		for _, v := range volleys() {
			was, err := n.settledDrops(ctx)
			if err != nil {
				return err
			}
			sent, err := v.fire(s, n, r)
			if err != nil {
				return fmt.Errorf("%s to %s: %w", v.what, n.Name, err)
			}
			if sent == 0 {
				return fmt.Errorf("%s to %s: nothing of the kind was recorded", v.what, n.Name)
			}
			if err := n.counts(ctx, v, was, sent); err != nil {
				wrong = append(wrong, fmt.Errorf("%s to %s: %w", v.what, n.Name, err))
			}
		}
	}
	after, err := s.tenures(ctx)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		wrong = append(wrong, fmt.Errorf("before %+v, afterwards %+v", before, after))
	}
	return errors.Join(wrong...)
}

// counts waits until a node has counted a volley.
func (n *Node) counts(ctx context.Context, v volley, was map[string]float64, sent int) error {
	return within(ctx, 5*time.Second, "it to be counted", func() (bool, error) {
		now, err := n.dropped(ctx)
		if err != nil {
			return false, notYet{err}
		}
		rose := map[string]float64{}
		sum := 0.0
		for reason, k := range now {
			if k > was[reason] {
				rose[reason] = k - was[reason]
			}
			if slices.Contains(v.counts, reason) {
				sum += k - was[reason]
			}
		}
		return sum >= v.part*float64(sent), notYet{fmt.Errorf("of %d sent %v were counted, want them as %v", sent, rose, v.counts)}
	})
}

// settledDrops returns what a node counts as dropped. A process that was upgraded may take a call of
// the admin address with it when it ends.
func (n *Node) settledDrops(ctx context.Context) (now map[string]float64, err error) {
	err = within(ctx, 5*time.Second, "metrics of "+n.Name, func() (bool, error) {
		var err error
		now, err = n.dropped(ctx)
		return err == nil, notYet{err}
	})
	return now, err
}

// dropped returns what a node counts as dropped, by reason.
func (n *Node) dropped(ctx context.Context) (map[string]float64, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: n.dialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9900/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		rest, is := strings.CutPrefix(line, "proxyd_cluster_messages_dropped_total{")
		if !is {
			continue
		}
		_, reason, _ := strings.Cut(rest, `reason="`)
		reason, value, _ := strings.Cut(reason, `"} `)
		if out[reason], err = strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil {
			return nil, fmt.Errorf("metrics of %s: %q", n.Name, line)
		}
	}
	return out, nil
}

func (n *Node) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(n.Addr, port) }

// forged sends what was recorded for a port of the node, made another way, under the address of
// the node that it came from.
func forged(port uint16, how func([]byte) []byte) func(*Stage, *Node, recording) (int, error) {
	return func(s *Stage, n *Node, r recording) (sent int, err error) {
		err = s.stranger.Do(func() error {
			ifi, err := net.InterfaceByName(hostInterface)
			if err != nil {
				return err
			}
			conn, err := packet.Listen(ifi, packet.Raw, etherTypeIPv4, nil)
			if err != nil {
				return err
			}
			defer conn.Close()
			for _, d := range r.between(n.at(port)) {
				if _, err := conn.WriteTo(d.frame(s.stranger.MAC, how(d.payload)), &packet.Addr{HardwareAddr: d.mac}); err != nil {
					return err
				}
				sent++
			}
			return nil
		})
		return sent, err
	}
}

// foreign sends what was recorded under the stranger's own address.
func foreign(port uint16) func(*Stage, *Node, recording) (int, error) {
	return func(s *Stage, n *Node, r recording) (sent int, err error) {
		err = s.stranger.say(n.at(port), func(c net.Conn) error {
			for _, d := range r.between(n.at(port)) {
				if _, err := c.Write(d.payload); err != nil {
					return err
				}
				sent++
			}
			return nil
		})
		return sent, err
	}
}

// huge sends datagrams as large as there are, which begin as one that was recorded.
func huge(s *Stage, n *Node, r recording) (sent int, err error) {
	err = s.stranger.say(n.at(beatPort), func(c net.Conn) error {
		for _, d := range r.between(n.at(beatPort)) {
			if sent == 10 {
				return nil
			}
			if _, err := c.Write(append(slices.Clone(d.payload), make([]byte, 60_000-len(d.payload))...)); err != nil {
				return err
			}
			sent++
		}
		return nil
	})
	return sent, err
}

// say opens a UDP socket on the host and has f write to it.
func (h *Host) say(to netip.AddrPort, f func(net.Conn) error) error {
	return h.Do(func() error {
		c, err := net.Dial("udp", to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		return f(c)
	})
}

// strangerCalls is how many connections the stranger makes, one after the other.
const strangerCalls = 30

// junkStreams makes connections to a port and sends what nobody with the key would.
func junkStreams(port uint16) func(*Stage, *Node, recording) (int, error) {
	return func(s *Stage, n *Node, _ recording) (sent int, err error) {
		for range strangerCalls {
			junk := make([]byte, 100)
			for i := range junk {
				junk[i] = byte(rand.IntN(256))
			}
			if err := s.stranger.call(n.at(port), junk); err != nil {
				return sent, err
			}
			sent++
		}
		return sent, nil
	}
}

// replayedCalls plays the calls again that a node got.
func replayedCalls(s *Stage, n *Node, r recording) (sent int, err error) {
	for _, call := range r.calls[n.at(beatPort)] {
		for range strangerCalls {
			if err := s.stranger.call(n.at(beatPort), call); err != nil {
				return sent, err
			}
			sent++
		}
	}
	return sent, nil
}

// call connects, says something, and waits until the other side hangs up.
func (h *Host) call(to netip.AddrPort, words []byte) error {
	c, err := h.Dial(to, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write(words); err != nil {
		return nil // hung up already
	}
	if n, err := io.Copy(io.Discard, c); n > 0 || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("it was answered with %d bytes: %v", n, err)
	}
	return nil
}
