package doctor

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A Host is what the checks of this host must know.
type Host struct {
	Files      fs.FS       // its root directory
	Interfaces []Interface // that have VIPs
	Threads    int         // that may run Go code at once (GOMAXPROCS)
}

// Interface is one that has VIPs.
type Interface struct {
	Name  string
	Index int
	IPv6  bool // it has a VIP of that family
}

// Check looks at all that the files of the host tell.
func (h *Host) Check() []Finding {
	var out []Finding
	out = append(out, h.capabilities(), h.descriptors(), h.realTime(), h.quota(), h.cloud())
	for _, i := range h.Interfaces {
		out = append(out, h.sysctls(i)...)
		out = append(out, h.managers(i)...)
	}
	return slices.DeleteFunc(out, func(f Finding) bool { return f.Check == "" })
}

// read returns a file's text without the white space around it, "" if there is none.
func (h *Host) read(name string) string {
	b, err := fs.ReadFile(h.Files, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field returns the value of a line "name: value" or "name=value".
func field(text, name string) (string, bool) {
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		if k, v, eq := strings.Cut(line, "="); eq && (!ok || len(k) < len(key)) {
			key, value, ok = k, v, true
		}
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}

// capabilities that are needed, and those that only make something better.
var capabilities = []struct {
	bit  uint
	name string
	need bool
	why  string
}{
	{12, "CAP_NET_ADMIN", true, "addresses and sysctls"},
	{13, "CAP_NET_RAW", true, "ARP and neighbour discovery"},
	{10, "CAP_NET_BIND_SERVICE", false, "ports below 1024"},
	{39, "CAP_BPF", false, "the eBPF fence and the hand-over without a reset"},
	{23, "CAP_SYS_NICE", false, "a heartbeat that runs before everything else"},
}

func (h *Host) capabilities() Finding {
	text, _ := field(h.read("proc/self/status"), "CapEff")
	effective, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return Finding{Check: "capabilities", Level: Warn, What: "proxyd's capabilities cannot be read from /proc/self/status"}
	}
	var lack, miss []string
	for _, c := range capabilities {
		if effective&(1<<c.bit) != 0 {
			continue
		}
		if c.need {
			lack = append(lack, c.name+" ("+c.why+")")
		} else {
			miss = append(miss, c.name+" ("+c.why+")")
		}
	}
	const cure = "AmbientCapabilities= and CapabilityBoundingSet= in the unit; deploy/systemd/proxyd.service has them"
	switch {
	case lack != nil:
		return Finding{"capabilities", "", Fail, "proxyd lacks " + strings.Join(append(lack, miss...), ", "), "without them it cannot hold an address", cure}
	case miss != nil:
		return Finding{"capabilities", "", Warn, "proxyd lacks " + strings.Join(miss, ", "), "it does without what they are for", cure}
	}
	return Finding{Check: "capabilities", Level: OK, What: "proxyd has all that it uses"}
}

// fewFiles is a limit of file descriptors below which a proxy is soon at its end: a
// proxied connection takes two.
const fewFiles = 65536

func (h *Host) descriptors() Finding {
	for line := range strings.Lines(h.read("proc/self/limits")) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		if !ok {
			continue
		}
		soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(soft)
		return find("descriptors", "", soft == "unlimited" || err == nil && n >= fewFiles, Warn,
			"up to "+soft+" file descriptors", "only "+soft+" file descriptors",
			"a proxied connection takes two; without any left new clients are turned away, on the new holder too", "LimitNOFILE=1048576 in the unit")
	}
	return Finding{}
}

// realTime looks for a thread with a real-time policy: that of the heartbeat.
func (h *Host) realTime() Finding {
	threads, err := fs.ReadDir(h.Files, "proc/self/task")
	if err != nil {
		return Finding{}
	}
	real := false
	for _, t := range threads {
		text := h.read(path.Join("proc/self/task", t.Name(), "stat"))
		rest := text[strings.LastIndexByte(text, ')')+1:] // the name may have anything in it
		// proc(5): policy is field 41; state, the first after the name, is field 3.
		if f := strings.Fields(rest); len(f) > 38 && (f[38] == "1" || f[38] == "2") {
			real = true
		}
	}
	return find("real_time", "", real, Warn, "the heartbeat's thread has a real-time policy", "no thread of proxyd has a real-time policy",
		"under full load the heartbeat waits for a processor, and the other node may take this one for dead", "CAP_SYS_NICE, and RestrictRealtime=no and LimitRTPRIO=50 in the unit")
}

// quota looks for a share of the processors that a control group does not let be exceeded.
func (h *Host) quota() Finding {
	for line := range strings.Lines(h.read("proc/self/cgroup")) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			f := strings.Fields(h.read(path.Join("sys/fs/cgroup", dir, "cpu.max")))
			if len(f) == 2 && f[0] != "max" {
				share, _ := strconv.ParseFloat(f[0], 64)
				period, _ := strconv.ParseFloat(f[1], 64)
				if period > 0 {
					n := share / period
					return Finding{"quota", "", Warn, fmt.Sprintf("a control group (%s) gives proxyd %.1f processors at the most; it runs on up to %d threads", dir, n, h.Threads),
						"when the share is used up the whole process stands still until the next period, its heartbeat too: peers see a silence of up to a period",
						"CPUWeight= instead of CPUQuota=, or a share that is never used up"}
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return Finding{Check: "quota", Level: OK, What: fmt.Sprintf("no control group limits the processor; up to %d threads", h.Threads)}
}

// clouds are where an address is not moved by telling the neighbours.
var clouds = []struct {
	file, text, name string
	level            Level
	cure             string
}{
	{"sys/class/dmi/id/sys_vendor", "Amazon EC2", "Amazon EC2", Fail, "move it by the API from cluster.notify (assign-private-ip-addresses, or a route), or put an NLB before the nodes"},
	{"sys/class/dmi/id/sys_vendor", "Google", "Google Cloud", Fail, "put a passthrough load balancer before the nodes, or move an alias IP by the API from cluster.notify"},
	{"sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77", "Azure", Fail, "put an internal load balancer with floating IP before the nodes, or move the address by the API from cluster.notify"},
	{"sys/class/dmi/id/chassis_asset_tag", "OracleCloud.com", "Oracle Cloud", Fail, "move the secondary private IP by the API from cluster.notify"},
	{"sys/class/dmi/id/sys_vendor", "Alibaba Cloud", "Alibaba Cloud", Fail, "use a HaVip, or move the address by the API from cluster.notify"},
	{"sys/class/dmi/id/sys_vendor", "DigitalOcean", "DigitalOcean", Fail, "move a reserved IP by the API from cluster.notify"},
	{"sys/class/dmi/id/sys_vendor", "Hetzner", "Hetzner Cloud", Fail, "move a floating or alias IP by the API from cluster.notify; vSwitch networks of dedicated hosts do carry ARP"},
	{"sys/class/dmi/id/sys_vendor", "Vultr", "Vultr", Warn, "VPC networks need the address allowed; a public one is moved by BGP or by the API"},
	{"sys/class/dmi/id/sys_vendor", "Linode", "Akamai (Linode)", Warn, "IP sharing must be on for the address"},
	{"sys/class/dmi/id/sys_vendor", "Akamai", "Akamai (Linode)", Warn, "IP sharing must be on for the address"},
	{"sys/class/dmi/id/product_name", "OpenStack", "OpenStack", Warn, "allow the VIP on the ports of all nodes: openstack port set --allowed-address ip-address=VIP PORT"},
	{"sys/class/dmi/id/sys_vendor", "OpenStack", "OpenStack", Warn, "allow the VIP on the ports of all nodes: openstack port set --allowed-address ip-address=VIP PORT"},
	{"sys/class/dmi/id/sys_vendor", "VMware", "VMware", OK, ""},
}

func (h *Host) cloud() Finding {
	if len(h.Interfaces) == 0 {
		return Finding{}
	}
	for _, c := range clouds {
		if c.level == OK || !strings.Contains(h.read(c.file), c.text) {
			continue
		}
		return Finding{"cloud", "", c.level, "this host is a machine of " + c.name,
			"such networks do not learn from gratuitous ARP where an address is: the VIP is added on the new holder, and no packet for it comes there", c.cure}
	}
	return Finding{Check: "cloud", Level: OK, What: "this host is on no cloud that is known to ignore gratuitous ARP"}
}

// sysctls looks at what makes a host answer for addresses of another interface.
func (h *Host) sysctls(i Interface) []Finding {
	value := func(name string) (int, bool) {
		n, err := strconv.Atoi(h.read(name))
		return n, err == nil
	}
	var out []Finding
	conf := "proc/sys/net/ipv4/conf/"
	both := func(key string) (int, bool) {
		own, ok := value(conf + i.Name + "/" + key)
		all, _ := value(conf + "all/" + key)
		return max(own, all), ok
	}
	if n, ok := both("arp_ignore"); ok {
		out = append(out, find("sysctls", i.Name, n >= 1, Fail, fmt.Sprintf("arp_ignore is %d", n), "arp_ignore is 0",
			"a node that drains keeps the VIP on lo, and would go on answering ARP for it", "proxyd sets it at its start: who sets it back? (sysctl.d, a container)"))
	}
	if n, ok := both("arp_announce"); ok {
		out = append(out, find("sysctls", i.Name, n >= 2, Warn, fmt.Sprintf("arp_announce is %d", n), fmt.Sprintf("arp_announce is %d", n),
			"the VIP may be the sender of this node's own ARP requests, from which neighbours learn the wrong host", "proxyd sets it at its start: who sets it back?"))
	}
	if i.IPv6 {
		n, ok := value("proc/sys/net/ipv6/conf/" + i.Name + "/disable_ipv6")
		out = append(out, find("sysctls", i.Name, ok && n == 0, Fail, "IPv6 is on", "IPv6 is off, and there is an IPv6 VIP",
			"it cannot be added", "sysctl net.ipv6.conf."+i.Name+".disable_ipv6=0"))
	}
	return out
}

// managers looks for who else has a say about the addresses of an interface.
func (h *Host) managers(i Interface) []Finding {
	var out []Finding
	link := h.read(fmt.Sprintf("run/systemd/netif/links/%d", i.Index))
	if file, ok := field(link, "NETWORK_FILE"); ok && file != "" {
		keep, _ := field(h.read(strings.TrimPrefix(file, "/")), "KeepConfiguration")
		for _, drop := range h.dropIns(file) {
			if k, ok := field(h.read(drop), "KeepConfiguration"); ok {
				keep = k
			}
		}
		out = append(out, find("manager", i.Name, keep == "yes" || keep == "true", Warn,
			"systemd-networkd manages it with KeepConfiguration=yes", "systemd-networkd manages it by "+file+" without KeepConfiguration=yes",
			"when it starts again or reconfigures the link it removes addresses that it does not know: the VIP is gone until proxyd puts it back, within a second",
			"KeepConfiguration=yes in [Network] of that file (with netplan: of a drop-in in /etc/systemd/network/"+path.Base(file)+".d/)"))
	}
	device := h.read(fmt.Sprintf("run/NetworkManager/devices/%d", i.Index))
	if managed, _ := field(device, "managed"); managed == "true" {
		out = append(out, Finding{"manager", i.Name, Warn, "NetworkManager manages it",
			"when the connection is activated again or reapplied it removes addresses that it does not know: the VIP is gone until proxyd puts it back, within a second",
			"no cure but to have the interface unmanaged ([keyfile] unmanaged-devices=interface-name:" + i.Name + "); else count on the repair, proxyd_vip_repairs_total"})
	}
	if out == nil {
		out = append(out, Finding{Check: "manager", About: i.Name, Level: OK, What: "no network manager has it, as far as its files in /run tell"})
	}
	return out
}

// dropIns lists what adds to a .network file.
func (h *Host) dropIns(file string) []string {
	var out []string
	for _, dir := range []string{"usr/lib/systemd/network", "run/systemd/network", "etc/systemd/network"} {
		more, err := fs.Glob(h.Files, path.Join(dir, path.Base(file)+".d", "*.conf"))
		if err == nil {
			out = append(out, more...)
		}
	}
	return out
}
