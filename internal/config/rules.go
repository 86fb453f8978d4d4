package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"time"
)

// check keeps the rules that values must keep among each other and in themselves.
// What was refused before is not judged again.
func (d *decoder) check(c *Config) {
	d.checkNode(c)
	d.checkCluster(c)
	d.checkPaths(c)
	d.checkTracks(c)
	d.checkVIPs(c)
	d.checkListeners(c)
	d.checkTLS(c)
	d.checkLimits(&c.Limits)
	d.checkPools(c)
	d.warnOfBalance(c)
	d.checkPolicies(c)
	d.checkRoutes(c)
	d.checkOperation(c)
	d.checkTrace(&c.Trace)
	d.checkACME(c)
}

func (d *decoder) checkNode(c *Config) {
	if name := to("node", "name"); d.given(name) {
		if err := checkName(c.Node.Name); err != nil {
			d.bad(name, "%q %v", c.Node.Name, err)
		}
	}
	if zone := to("node", "zone"); d.given(zone) {
		if err := checkName(c.Node.Zone); err != nil {
			d.bad(zone, "%q %v", c.Node.Zone, err)
		}
	}
	for i, p := range c.Node.TrustedProxies {
		c.Node.TrustedProxies[i] = p.Masked()
	}
	if !filepath.IsAbs(c.Node.State) {
		d.bad(to("node", "state"), "needs an absolute path, not %q", c.Node.State)
	}
}

func (d *decoder) checkCluster(c *Config) {
	l := &c.Cluster
	if err := checkName(l.Name); err != nil {
		d.bad(to("cluster", "name"), "%q %v", l.Name, err)
	}
	join := to("cluster", "join")
	seen := map[netip.AddrPort]bool{}
	for i, a := range l.Join {
		switch {
		case !a.IsValid(): // reported
		case !unicast(a.Addr()):
			d.bad(join.at(i), "%s is not the address of a host", a.Addr())
		case seen[a]:
			d.bad(join.at(i), "%s is there twice", a)
		}
		seen[a] = true
	}
	if len(l.Join) > 0 && l.Secret == "" && !d.spoilt(to("cluster", "secret")) {
		d.bad(join, `needs a secret beside it: what the nodes tell each other is always encrypted (secret = "file:/etc/proxyd/cluster.key", made by hactl init)`)
	}
	if bind := to("cluster", "bind"); d.given(bind) {
		switch {
		case len(l.Join) == 0:
			d.bad(bind, "has no meaning without join")
		case !slices.Contains(l.Join, l.Bind) && !d.spoilt(join):
			d.bad(bind, "%s is not in join, which lists every node of the cluster (%s)", l.Bind, join2(l.Join))
		}
	}
	if !slices.Contains([]string{"auto", "ebpf", "nftables", "lifetime"}, l.Fence) && !d.spoilt(to("cluster", "fence")) {
		d.bad(to("cluster", "fence"), "%q is not one of auto, ebpf, nftables, lifetime", l.Fence)
	}
	d.checkTiming(l.Timing)
	d.checkThirds(c)
	d.checkNotify(l.Notify)
	d.checkHandover(c)
}

// checkThirds judges who else has a word: witnesses and arbiters.
func (d *decoder) checkThirds(c *Config) {
	l := &c.Cluster
	if p := to("cluster", "witness"); l.Witness && len(l.Join) == 0 && !d.spoilt(to("cluster", "join")) {
		d.bad(p, "has no meaning without join: a witness votes for other nodes")
	} else if l.Witness && len(l.Join) == 2 {
		d.warn(c, p, "makes nothing safer beside one other node: the vote of a witness counts with at least three in join")
	}
	arbiter := to("cluster", "arbiter")
	if d.given(arbiter) && len(l.Join) == 0 && !d.spoilt(to("cluster", "join")) {
		d.bad(arbiter, "has no meaning without join: there is no other node whose silence an arbiter could explain")
	}
	for i, a := range l.Arbiter {
		p := arbiter.at(i)
		switch {
		case !a.IsValid(): // reported
		case !unicast(a) || a.IsLoopback():
			d.bad(p, "%s is not the address of another host", a)
		case slices.Contains(l.Arbiter[:i], a):
			d.bad(p, "%s is there twice", a)
		case slices.ContainsFunc(l.Join, func(n netip.AddrPort) bool { return n.Addr() == a }):
			d.bad(p, "%s is a node of join; an arbiter is a third host, such as the gateway", a)
		default:
			for _, name := range sortedKeys(c.VIP) {
				if c.VIP[name].Address.Addr() == a {
					d.bad(p, "%s is the address of vip %q, which a node holds itself", a, name)
				}
			}
		}
	}
}

func (d *decoder) checkNotify(n Notify) {
	if p := to("cluster", "notify", "command"); d.given(p) && !filepath.IsAbs(n.Command) {
		d.bad(p, `%q is no absolute path; a program with arguments goes into a script`, n.Command)
	}
	if p := to("cluster", "notify", "webhook"); d.given(p) {
		u, err := url.Parse(n.Webhook)
		switch {
		case err != nil:
			d.bad(p, "is no URL") // the error would show it, with what secret may be in it
		case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			d.bad(p, `want "http://HOST/..." or "https://HOST/..."`)
		}
	}
}

func (d *decoder) checkHandover(c *Config) {
	d.between(to("cluster", "drain"), c.Cluster.Drain, 5*time.Second, 24*time.Hour)
	p := to("cluster", "handover")
	switch {
	case d.spoilt(p):
	case !slices.Contains([]string{"auto", "ebpf", "nftables", "plain"}, c.Cluster.Handover):
		d.bad(p, "%q is not auto, ebpf, nftables or plain", c.Cluster.Handover)
	case c.Cluster.Handover == "nftables":
		if name, address := c.BoundToVIP(); name != "" {
			d.bad(p, "nftables cannot tell the connections of listener %q from those of the holder before, because it is bound to the virtual address: let it have every address (%q), or use ebpf", name, address)
		}
	}
}

// BoundToVIP returns a listener that is bound to a virtual address and not to every
// address, and what its address would be then; "" if there is none.
func (c *Config) BoundToVIP() (name, instead string) {
	for _, name := range sortedKeys(c.Listener) {
		for _, text := range c.Listener[name].Address {
			a, err := netip.ParseAddrPort(text)
			if err != nil {
				continue
			}
			for _, v := range c.VIP {
				if v.Address.Addr() == a.Addr().Unmap() {
					return name, fmt.Sprintf(":%d", a.Port())
				}
			}
		}
	}
	return "", ""
}

func (d *decoder) checkTiming(t Timing) {
	p := to("cluster", "timing")
	if t.Preset != "" || d.spoilt(p) {
		return
	}
	d.between(p.key("heartbeat"), t.Heartbeat, 5*time.Millisecond, 10*time.Second)
	d.between(p.key("lease"), t.Lease, 25*time.Millisecond, time.Minute)
	if d.spoilt(p) {
		return
	}
	if t.Lease < 5*t.Heartbeat {
		d.bad(p.key("lease"), "(%s) must be at least five heartbeats (%s)", formatDuration(t.Lease), formatDuration(5*t.Heartbeat))
	}
	if t.Guard < t.Heartbeat/2 {
		d.bad(p.key("guard"), "(%s) must be at least half a heartbeat (%s)", formatDuration(t.Guard), formatDuration(t.Heartbeat/2))
	}
	if t.Guard > t.Lease {
		d.bad(p.key("guard"), "(%s) must not be longer than the lease (%s)", formatDuration(t.Guard), formatDuration(t.Lease))
	}
}

func (d *decoder) checkVIPs(c *Config) {
	owner := map[netip.Addr]string{}
	var spread []string
	for _, name := range sortedKeys(c.VIP) {
		v, p := c.VIP[name], to("vip", name)
		d.checkVIPAddress(c, v, owner)
		if ifc := p.key("interface"); !d.spoilt(ifc) {
			if !d.given(ifc) {
				d.bad(p, "needs an interface, such as interface = \"eth0\"")
			} else if !interfaceName(v.Interface) {
				d.bad(ifc, "%q is no name of an interface", v.Interface)
			}
		}
		for i, node := range v.Prefer {
			if err := checkName(node); err != nil {
				d.bad(p.key("prefer").at(i), "%q %v", node, err)
			} else if slices.Contains(v.Prefer[:i], node) {
				d.bad(p.key("prefer").at(i), "%q is there twice", node)
			}
		}
		d.checkFollow(c, v)
		if v.Spread {
			spread = append(spread, name)
		}
	}
	if len(spread) == 1 {
		d.warn(c, to("vip", spread[0], "spread"), "has no meaning alone: it is about how several VIPs share the nodes")
	}
}

// checkPaths judges the further heartbeat paths.
func (d *decoder) checkPaths(c *Config) {
	paths := to("cluster", "paths")
	if len(c.Cluster.Paths) > 0 && len(c.Cluster.Join) == 0 {
		d.bad(paths, "has no meaning without cluster.join: there is no other node to hear")
	}
	for i, p := range c.Cluster.Paths {
		network, err := netip.ParsePrefix(p)
		if a, single := netip.ParseAddr(p); single == nil {
			network, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case slices.Contains(c.Cluster.Paths[:i], p):
			d.bad(paths.at(i), "%q is there twice", p)
		case err == nil && slices.ContainsFunc(c.Cluster.Join, func(a netip.AddrPort) bool { return network.Contains(a.Addr()) }):
			d.bad(paths.at(i), "%s is the network of cluster.join, which is a path already", p)
		case err != nil && !interfaceName(p):
			d.bad(paths.at(i), "%q is neither an interface, such as \"eth1\", nor a network, such as \"192.168.9.0/24\"", p)
		}
	}
}

func (d *decoder) checkVIPAddress(c *Config, v *VIP, owner map[netip.Addr]string) {
	p := to("vip", v.Name)
	q := p.key("address")
	a := v.Address.Addr()
	switch {
	case d.spoilt(q):
		return
	case !d.given(q):
		d.bad(p, "needs an address with the length of its subnet, such as address = \"203.0.113.10/24\"")
		return
	case !d.withLength[q]:
		d.bad(q, "needs the length of its subnet, such as \"%s/%d\"", a, map[bool]int{true: 24, false: 64}[a.Is4()])
		return
	case !unicast(a) || a.IsLinkLocalUnicast():
		d.bad(q, "%s cannot be a virtual address", a)
	case v.Address.Bits() == 0:
		d.bad(q, "%s has no subnet", v.Address)
	case a.Is4() && v.Address.Bits() < 31 && (a == v.Address.Masked().Addr() || a == broadcast(v.Address)):
		d.bad(q, "%s is the network's or the broadcast address of its subnet", v.Address)
	case owner[a] != "":
		d.bad(q, "%s is the address of vip %q too", a, owner[a])
	}
	owner[a] = v.Name
	for _, node := range c.Cluster.Join {
		if node.Addr() == a {
			d.bad(q, "%s is the address of a node in cluster.join; a virtual address is one that no host has of its own", a)
		}
	}
}

func (d *decoder) checkFollow(c *Config, v *VIP) {
	p := to("vip", v.Name)
	q := p.key("follow")
	if v.Preempt.On && len(v.Prefer) == 0 && v.Follow == "" && !v.Spread && d.given(p.key("preempt")) {
		d.warn(c, p.key("preempt"), "has no meaning without prefer: no node is better than another")
	}
	if v.Follow == "" || d.spoilt(q) {
		return
	}
	if c.VIP[v.Follow] == nil {
		others := slices.DeleteFunc(sortedKeys(c.VIP), func(name string) bool { return name == v.Name })
		d.bad(q, "%q is not defined (defined: %s)", v.Follow, join(others))
		return
	}
	if len(v.Prefer) > 0 {
		d.bad(p.key("prefer"), "has no meaning beside follow: the holder of %q holds this one", v.Follow)
	}
	if v.Spread {
		d.bad(p.key("spread"), "has no meaning beside follow: the holder of %q holds this one; spread %q instead", v.Follow, v.Follow)
	}
	if v.Preempt.On && d.given(p.key("preempt")) {
		d.bad(p.key("preempt"), "has no meaning beside follow: the holder of %q holds this one", v.Follow)
	}
	seen := map[string]bool{}
	for w := v; w != nil && w.Follow != ""; w = c.VIP[w.Follow] {
		if seen[w.Name] {
			if w == v {
				d.bad(q, "leads back to %q: one of them must not follow", v.Name)
			}
			return
		}
		seen[w.Name] = true
	}
}

func (d *decoder) checkOperation(c *Config) {
	if p := to("admin", "socket"); !filepath.IsAbs(c.Admin.Socket) || len(c.Admin.Socket) > maxSocketPath {
		d.bad(p, "needs an absolute path of at most %d characters, not %q", maxSocketPath, c.Admin.Socket)
	}
	d.checkAdminAddress(c, "listen", &c.Admin.Listen)
	d.checkAdminAddress(c, "metrics", &c.Admin.Metrics)
	if a, err := parseListenAddr(c.Admin.Listen); err == nil && d.given(to("admin", "metrics")) {
		if b, err := parseListenAddr(c.Admin.Metrics); err == nil && a.overlaps(b) {
			d.bad(to("admin", "metrics"), "%s is taken by admin.listen (%s), which has these pages too", b, a)
		}
	}
	d.checkLog(&c.Log)
}

// checkAdminAddress judges one of the TCP addresses of [admin].
func (d *decoder) checkAdminAddress(c *Config, key string, address *string) {
	p := to("admin", key)
	if *address == "" || d.spoilt(p) {
		return
	}
	a, err := parseListenAddr(*address)
	if err != nil {
		d.bad(p, "%v, or \"\" for none", err)
		return
	}
	*address = a.String()
	for _, name := range sortedKeys(c.Listener) {
		for _, other := range c.Listener[name].Address {
			b, err := parseListenAddr(other)
			if err != nil || !a.overlaps(b) {
				continue
			}
			if d.given(p) {
				d.bad(p, "%s is taken by listener %q (%s)", a, name, b)
			} else {
				d.bad(to("listener", name, "address"), "%s is taken by admin.%s (%s)", b, key, a)
			}
		}
	}
}

func (d *decoder) checkTrace(t *Trace) {
	if p := to("trace", "otlp"); t.OTLP != "" && !d.spoilt(p) {
		u, err := url.Parse(t.OTLP)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
			d.bad(p, "needs a URL such as \"http://127.0.0.1:4318\", not %q", t.OTLP)
		} else if d.given(to("trace", "context")) && !t.Context {
			d.bad(p, "needs context = true: a span is part of a trace")
		}
	}
	if p := to("trace", "request_id"); t.RequestID != "" && !d.spoilt(p) {
		d.checkFieldName(p, quote(t.RequestID)+" ", t.RequestID, requestFieldOurs)
	}
}

// maxSocketPath is what the kernel allows (sun_path, without the closing zero).
const maxSocketPath = 107

// between refuses a value that is not from lo to hi.
func (d *decoder) between(p path, v, lo, hi time.Duration) {
	if d.spoilt(p) || v >= lo && v <= hi {
		return
	}
	d.bad(p, "(%s) must be from %s to %s", formatDuration(v), formatDuration(lo), formatDuration(hi))
}

func within[T int | Size | Share](d *decoder, p path, v, lo, hi T) {
	if d.spoilt(p) || v >= lo && v <= hi {
		return
	}
	d.bad(p, "(%v) must be from %v to %v", v, lo, hi)
}

// warn keeps a remark on what is allowed.
func (d *decoder) warn(c *Config, p path, format string, args ...any) {
	at := d.where(p)
	c.Warnings = append(c.Warnings, Problem{File: d.sources[at.file].name, Line: int(at.line), Col: int(at.col),
		Msg: "warning: " + d.in(p) + fmt.Sprintf(format, args...)})
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// broadcast is the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func join2(addrs []netip.AddrPort) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return join(words)
}
