package lab

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Stay drill has clients ask through the holder of a VIP, kills that, and has all ask again
// through the node that took over. Each must come to the server that it had: by the hash of its
// address, and by its cookie.
type Stay struct {
	Plan    Plan
	Rounds  int // failovers
	Clients int // of each way; 0: 1,000
	Out     io.Writer
}

// The clients have addresses of their own, which are all at the client's host: that is what the
// nodes hash.
var crowdNet = netip.MustParsePrefix("198.18.0.0/16") // RFC 2544

// stayServers is how many servers there are to be confused.
const stayServers = 5

// stayWays are the pools of the drill: by host and cookie, with their configuration.
var stayWays = []struct{ name, host, pool string }{
	{"hash of the address", "hash.example", `balance = "hash"`},
	{"sticky cookie", "sticky.example", `sticky = { cookie = "srv", ttl = "1h" }`},
}

// A stayer is one client, and what it knows.
type stayer struct {
	from   netip.Addr
	cookie string // that it was given; "": none
	server string // that it had first; "": it has not asked
}

// Stayed is what one way came to in all rounds.
type Stayed struct {
	Name    string
	Asked   int // times that a client came again
	Same    int // of them those in which it had the server of the first time
	Fewest  int // clients of the server that has the fewest of them
	Most    int // of that which has most
	Another []string
	Failed  []error // why others got no answer
}

// Run plays all rounds and returns an error if the promise was not kept.
func (d Stay) Run(ctx context.Context) error {
	d.Rounds, d.Clients = cmp.Or(d.Rounds, 5), cmp.Or(d.Clients, 1000)
	p := d.Plan
	p.Webs, p.Extra = stayServers, stayPools()
	rig, err := NewRig(p, LoadSpec{Rate: 100, Deadline: 3 * time.Second})
	if err != nil {
		return err
	}
	defer rig.Close()
	if err := rig.Stage.crowd(); err != nil {
		return err
	}
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return err
	}
	all := make([]*Stayed, len(stayWays))
	clients := make([][]*stayer, len(stayWays))
	for i, w := range stayWays {
		all[i] = &Stayed{Name: w.name}
		clients[i] = newStayers(d.Clients)
	}
	for round := range d.Rounds {
		if err := d.play(ctx, rig, all, clients); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		for _, r := range all {
			fmt.Fprintf(d.Out, "%d/%d  %s: %d of %d at the same server, %d failed so far\n", round+1, d.Rounds, r.Name, r.Same, r.Asked, len(r.Failed))
		}
	}
	return d.report(all)
}

// stayPools is the configuration of both ways. A busy machine must not take a server down.
func stayPools() string {
	var servers []string
	for i := range stayServers {
		servers = append(servers, fmt.Sprintf("%q", netip.AddrPortFrom(address(webOctet+i).Addr(), webPort)))
	}
	var b strings.Builder
	for i, w := range stayWays {
		fmt.Fprintf(&b, "[pool.stay%d]\nservers = [%s]\ncheck = { path = \"/healthz\", interval = \"5s\", timeout = \"4s\" }\n%s\n[[route]]\nhost = %q\npool = \"stay%d\"\n",
			i, strings.Join(servers, ", "), w.pool, w.host, i)
	}
	return b.String()
}

func newStayers(n int) []*stayer {
	all := make([]*stayer, n)
	first := crowdNet.Addr().As4()
	for i := range all {
		a := first
		a[2], a[3] = byte(i/250), byte(1+i%250)
		all[i] = &stayer{from: netip.AddrFrom4(a)}
	}
	return all
}

// crowd lets the client's host be all clients: it has their addresses, and the nodes know the way.
func (s *Stage) crowd() error {
	dst := &net.IPNet{IP: crowdNet.Addr().AsSlice(), Mask: net.CIDRMask(crowdNet.Bits(), 32)}
	err := s.client.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST})
	})
	for _, n := range s.Nodes {
		err = errors.Join(err, n.Do(func() error {
			link, err := netlink.LinkByName(hostInterface)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: s.client.Addr.AsSlice()})
		}))
	}
	if err != nil {
		return fmt.Errorf("give the client's host %v: %w", crowdNet, err)
	}
	return nil
}

// play has one failover. Before the first one the clients come to know their servers.
func (d Stay) play(ctx context.Context, rig *Rig, all []*Stayed, clients [][]*stayer) error {
	if err := rig.Steady(ctx, patience); err != nil {
		return err
	}
	holder := rig.Holder()
	if holder == nil {
		return fmt.Errorf("nobody alone answers for %s", rig.Stage.VIP)
	}
	if err := d.ask(ctx, rig.Stage, all, clients); err != nil {
		return err
	}
	if err := holder.Kill(); err != nil {
		return err
	}
	err := within(ctx, patience, "another node to hold "+rig.Stage.VIP.String(), func() (bool, error) {
		now := rig.Holder()
		return now != nil && now != holder, notYet{errors.New("nobody alone does")}
	})
	if err != nil {
		return err
	}
	if err := d.ask(ctx, rig.Stage, all, clients); err != nil {
		return err
	}
	return rig.Stage.Mend()
}

// ask has every client ask once. Those that ask for the first time must all be served, and by
// every server some: else there is nothing that could stay.
func (d Stay) ask(ctx context.Context, s *Stage, all []*Stayed, clients [][]*stayer) error {
	at := netip.AddrPortFrom(s.VIP, 80)
	for i, w := range stayWays {
		r := all[i]
		first := clients[i][0].server == ""
		var mu sync.Mutex // guards the results
		each(clients[i], func(c *stayer) {
			server, err := c.visit(ctx, s.client, at, w.host)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				r.Failed = append(r.Failed, fmt.Errorf("client %v: %w", c.from, err))
			case c.server == "":
				c.server = server
			case c.server == server:
				r.Same++
			default:
				r.Another = append(r.Another, fmt.Sprintf("client %v of %s came to %s", c.from, c.server, server))
			}
		})
		if !first {
			r.Asked += len(clients[i])
			continue
		}
		of := map[string]int{}
		for _, c := range clients[i] {
			of[c.server]++
		}
		if len(r.Failed) > 0 || len(of) != stayServers {
			return fmt.Errorf("%s: before anything happened, clients were at servers %v, and %d were not served: %w", w.name, of, len(r.Failed), errors.Join(r.Failed...))
		}
		r.Fewest, r.Most = len(clients[i]), 0
		for _, n := range of {
			r.Fewest, r.Most = min(r.Fewest, n), max(r.Most, n)
		}
	}
	return nil
}

// visit makes a request on a connection of its own, and returns the name of the server that
// answered. A cookie is kept and shown again, as a browser does.
func (c *stayer) visit(ctx context.Context, from *Host, at netip.AddrPort, host string) (server string, err error) {
	deadline := time.Now().Add(10 * time.Second)
	var conn net.Conn
	err = from.Do(func() error {
		var err error
		dialer := net.Dialer{Deadline: deadline, KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 0))}
		conn, err = dialer.DialContext(ctx, "tcp", at.String())
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	cookie := ""
	if c.cookie != "" {
		cookie = "Cookie: " + c.cookie + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", host, cookie); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", answer.StatusCode)
	}
	if given := answer.Cookies(); len(given) > 0 {
		c.cookie = given[0].Name + "=" + given[0].Value
	}
	return strings.TrimSpace(string(body)), nil
}

// report prints the table and judges it.
func (d Stay) report(all []*Stayed) error {
	t := Table{Head: []string{"way", "failovers", "clients", "of a server", "came again", "same server", "another", "failed", "promise"}}
	var broken []error
	for _, r := range all {
		t.Add(r.Name, fmt.Sprint(d.Rounds), fmt.Sprint(d.Clients), fmt.Sprintf("%d to %d", r.Fewest, r.Most), fmt.Sprint(r.Asked), fmt.Sprint(r.Same),
			fmt.Sprint(len(r.Another)), fmt.Sprint(len(r.Failed)), "all the same")
		if r.Asked == 0 || r.Same < r.Asked {
			broken = append(broken, fmt.Errorf("%s: %d of %d times a client came to the server that it had: %w all\n%s", r.Name, r.Same, r.Asked, ErrPromise,
				strings.Join(slices.Concat(r.Another, textsOf(r.Failed))[:min(10, len(r.Another)+len(r.Failed))], "\n")))
		}
	}
	if err := t.WriteText(d.Out); err != nil {
		return err
	}
	return errors.Join(broken...)
}

func textsOf(all []error) []string {
	texts := make([]string, len(all))
	for i, err := range all {
		texts[i] = err.Error()
	}
	return texts
}
