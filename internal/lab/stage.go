// Package lab lays out a small network on this machine, in network namespaces, and runs
// the real programs on it: the stage for demo, drills, end-to-end tests and benchmarks.
//
//	edge-1   edge-2   ...        proxyd, the VIP is at one of them
//	   |        |
//	---+--------+----- lan -----+--------+-------+---
//	            |               |        |       |
//	       web-1 web-2 web-3  client  watcher  stranger
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"proxyd/internal/control"
)

// The addresses of the stage: edges from .11, web servers from .21.
const (
	subnet      = "10.77.0."
	subnetBits  = 24
	vipOctet    = 100
	edgeOctet   = 11
	webOctet    = 21
	clientOctet = 31
	watchOctet  = 32
	otherOctet  = 41
	webPort     = 8080
	joinPort    = 7946
)

// pairFile has a certificate with its key, for every node.
const pairFile = "pair.pem"

// VIPName is the name that the stage's virtual address has in the configuration.
const VIPName = "public"

// A Plan says what to lay out.
type Plan struct {
	Proxyd  string // path of the binary
	Lab     string // path of this program: it is web server and client as well
	Edges   int    // hosts that run proxyd; 0: two
	Webs    int    // web servers; 0: three
	Timing  string // preset; "": the default
	Extra   string // more configuration, in TOML, for every node
	Cluster string // more lines of [cluster]
	Six     bool   // hosts have IPv6 addresses too, and there is a VIP of IPv6 that follows the other
	Fence   string // kind, as cluster.fence; "": the default
	Relay   string // how older connections are sent on, as cluster.handover; "": the default
	More    int    // further VIPs, each with an election of its own
	Secure  bool   // there is a listener at :443 for HTTPS and HTTP/3 too
}

// A Stage is a network with its hosts. It is not for concurrent use, except that a Node
// may be asked for its status at any time.
type Stage struct {
	VIP   netip.Addr
	More  []netip.Addr // further ones
	Nodes []*Node

	dir      *runDir
	lan      *lan
	hosts    []*Host
	client   *Host
	watcher  *Host
	stranger *Host // on the LAN, and none of ours
	webs     []*Host
	lab      string
	six      bool
	unasked  bool // the nodes run something else than proxyd, which has no status
}

// NewStage lays out the network and starts the web servers. proxyd is not started yet.
// Close removes everything.
func NewStage(p Plan) (s *Stage, err error) {
	if p.Edges == 0 {
		p.Edges = 2
	}
	if p.Webs == 0 {
		p.Webs = 3
	}
	s = &Stage{VIP: address(vipOctet).Addr(), lab: p.Lab, six: p.Six}
	defer func() {
		if err != nil {
			s.Close()
			s = nil
		}
	}()
	for i := range p.More {
		s.More = append(s.More, address(vipOctet+1+i).Addr())
	}
	if s.dir, err = newRunDir(); err != nil {
		return s, err
	}
	if s.lan, err = newLAN(); err != nil {
		return s, err
	}
	for i := range p.Webs {
		h, err := s.host(fmt.Sprintf("web-%d", i+1), webOctet+i)
		if err != nil {
			return s, err
		}
		s.webs = append(s.webs, h)
		if err := s.serve(h); err != nil {
			return s, err
		}
	}
	if s.client, err = s.host("client", clientOctet); err != nil {
		return s, err
	}
	if s.watcher, err = s.host("watcher", watchOctet); err != nil {
		return s, err
	}
	if s.stranger, err = s.host("stranger", otherOctet); err != nil {
		return s, err
	}
	if err = os.WriteFile(s.dir.file("cluster.key"), []byte("a key for one run of the lab 0123456789abcdef\n"), 0o600); err != nil {
		return s, err
	}
	if p.Secure {
		if _, err = writePair(s.dir.file(pairFile), benchHost); err != nil {
			return s, err
		}
	}
	for i := range p.Edges {
		h, err := s.host(fmt.Sprintf("edge-%d", i+1), edgeOctet+i)
		if err != nil {
			return s, err
		}
		n, err := newNode(h, p.Proxyd, s.dir.file(h.Name), s.configuration(p, h.Name))
		if err != nil {
			return s, err
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, nil
}

func address(octet int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("%s%d/%d", subnet, octet, subnetBits))
}

// address6 is address for IPv6, where there is one.
func address6(octet int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd77::%x/64", octet))
}

func (s *Stage) host(name string, octet int) (*Host, error) {
	addrs := []netip.Prefix{address(octet)}
	if s.six {
		addrs = append(addrs, address6(octet))
	}
	h, err := newHost(s.lan, name, addrs...)
	if err == nil {
		s.hosts = append(s.hosts, h)
	}
	return h, err
}

// serve starts the web server of a host and waits until it answers.
func (s *Stage) serve(h *Host) error {
	at := netip.AddrPortFrom(h.Addr, webPort)
	log := s.dir.file(h.Name + ".log")
	p, _, err := h.start(command{
		name: "web server " + h.Name,
		argv: []string{s.lab, "serve", "--name", h.Name, "--listen", at.String()},
		log:  log,
	})
	if err != nil {
		return err
	}
	return within(context.Background(), 5*time.Second, "web server "+h.Name+" to answer", func() (bool, error) {
		if !p.Alive() {
			return false, fmt.Errorf("it ended: %v; %s", p.Err(), tail(log, 5))
		}
		c, err := h.Dial(at, 100*time.Millisecond)
		if err != nil {
			return false, nil
		}
		c.Close()
		return true, nil
	})
}

// configuration is what an operator would write for the named node.
func (s *Stage) configuration(p Plan, node string) string {
	var join, servers []string
	for i := range p.Edges {
		join = append(join, fmt.Sprintf("%q", netip.AddrPortFrom(address(edgeOctet+i).Addr(), joinPort)))
	}
	for i := range p.Webs {
		servers = append(servers, fmt.Sprintf("%q", netip.AddrPortFrom(address(webOctet+i).Addr(), webPort)))
	}
	timing := ""
	if p.Timing != "" {
		timing = fmt.Sprintf("timing = %q\n", p.Timing)
	}
	if p.Fence != "" {
		timing += fmt.Sprintf("fence = %q\n", p.Fence)
	}
	if p.Relay != "" {
		timing += fmt.Sprintf("handover = %q\n", p.Relay)
	}
	six := ""
	if p.Six {
		six = fmt.Sprintf("[vip.%s6]\naddress = %q\ninterface = %q\nfollow = %q\n", VIPName, address6(vipOctet), hostInterface, VIPName)
	}
	more := ""
	for i, a := range s.More {
		more += fmt.Sprintf("[vip.more-%02d]\naddress = \"%v/%d\"\ninterface = %q\n", i+1, a, subnetBits, hostInterface)
	}
	if p.Secure {
		more += fmt.Sprintf("[listener.http]\naddress = \":80\"\n[listener.https]\naddress = \":443\"\ntls = true\nhttp3 = true\n[[cert]]\ncert = %q\n", s.dir.file(pairFile))
	}
	return fmt.Sprintf(`[node]
name  = %q
state = %q

[cluster]
name   = "lab"
join   = [%s]
secret = "file:%s"
%s%s

[vip.%s]
address   = "%v/%d"
interface = %q

%s
[pool.web]
servers = [%s]
check   = { path = "/healthz", interval = "1s", timeout = "500ms" }

[[route]]
pool = "web"

[admin]
socket = %q

[log]
level  = "debug"
access = false

%s`, node, s.dir.file(node, "state"), strings.Join(join, ", "), s.dir.file("cluster.key"), timing, p.Cluster,
		VIPName, s.VIP, subnetBits, hostInterface, six+more, strings.Join(servers, ", "),
		s.dir.file(node, "admin.sock"), p.Extra)
}

// Start runs proxyd on every node and waits until the cluster is healthy.
func (s *Stage) Start(ctx context.Context, patience time.Duration) error {
	for _, n := range s.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return s.Healthy(ctx, patience)
}

// Healthy waits until every node says that the cluster is healthy, and they agree on who
// holds the VIP.
func (s *Stage) Healthy(ctx context.Context, patience time.Duration) error {
	if s.unasked {
		return nil
	}
	return within(ctx, patience, "a healthy cluster", func() (bool, error) {
		holder := ""
		for _, n := range s.Nodes {
			if !n.Alive() {
				return false, n.gone()
			}
			st, err := n.Status(ctx)
			if err != nil {
				return false, fmt.Errorf("status of %s: %w", n.Name, notYet{err})
			}
			h := heldBy(st)
			if st.Health != "healthy" || h == "" || holder != "" && holder != h {
				return false, fmt.Errorf("%s says %s, holder %q: %w", n.Name, st.Health, h, notYet{errors.New(strings.Join(st.Reasons, ", "))})
			}
			holder = h
		}
		return true, nil
	})
}

// heldBy returns who holds the stage's VIP as a status has it, "" for none or several.
func heldBy(st *control.Status) string {
	for _, v := range st.VIPs {
		if v.Name == VIPName && v.Holder != nil && len(v.Holders) <= 1 {
			return *v.Holder
		}
	}
	return ""
}

// Holder returns the node that says itself that it holds the VIP, or nil.
func (s *Stage) Holder(ctx context.Context) *Node {
	for _, n := range s.Nodes {
		if !n.Alive() {
			continue
		}
		if st, err := n.Status(ctx); err == nil && heldBy(st) == n.Name {
			return n
		}
	}
	return nil
}

// Node returns the node with a name, or nil.
func (s *Stage) Node(name string) *Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Other returns a node that is not n.
func (s *Stage) Other(n *Node) *Node {
	for _, o := range s.Nodes {
		if o != n {
			return o
		}
	}
	return nil
}

// Mend undoes every fault, whichever there was, and starts the nodes that are dead.
func (s *Stage) Mend() error {
	err := s.isolate(false)
	for _, n := range s.Nodes {
		err = errors.Join(err, n.Unsilence(), n.Uncut(), n.Lose(Loss{}))
		if n.Alive() {
			err = errors.Join(err, n.Thaw())
		} else {
			err = errors.Join(err, n.Start())
		}
	}
	return err
}

// Dir returns the directory with configurations, logs and sockets. Close removes it.
func (s *Stage) Dir() string { return s.dir.path }

// Keep copies configurations and logs to a directory that outlives the stage.
func (s *Stage) Keep(to string) error {
	return os.CopyFS(to, onlyFiles{os.DirFS(s.dir.path)})
}

// Close kills all processes and removes network and files. A nil Stage has none.
func (s *Stage) Close() {
	if s == nil {
		return
	}
	for _, n := range s.Nodes {
		if !s.unasked {
			n.release()
		}
	}
	for _, h := range s.hosts {
		h.Close()
	}
	if s.lan != nil {
		s.lan.space.Close()
	}
	if s.dir != nil {
		s.dir.remove()
	}
}

// Beside returns the path of a program that lies beside this one.
func Beside(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", name, err)
	}
	path := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s beside this program: %w (make build)", name, err)
	}
	return path, nil
}
