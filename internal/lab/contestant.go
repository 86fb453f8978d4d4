package lab

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	"time"
)

//go:embed bench/*.tmpl
var benchTemplates embed.FS

// benchHost is the host that requests of a benchmark are for.
const benchHost = "bench.example"

// A contestant is a proxy that takes part in a benchmark, with its configuration.
type contestant struct {
	Name     string
	template string
	further  string // template of a second file; "": there is none
	argv     func(config string) []string
	version  []string // command that prints the version
	listen   netip.AddrPort
	optional bool // it is measured if it is there
	part     bool // it has a part in one workload alone
	routes   int  // beside the one that is used

	process *Process
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// secureOf is where a contestant that listens there speaks TLS.
func secureOf(listen netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(listen.Addr(), listen.Port()+400)
}

// contestants returns all of them.
func contestants(proxyd, traefik string) []*contestant {
	return []*contestant{
		{
			Name: proxydName, template: "proxyd.toml", listen: loopback(8001),
			argv:    func(c string) []string { return []string{proxyd, "run", "-c", c} },
			version: []string{proxyd, "version"},
		},
		{
			Name: "nginx", template: "nginx.conf", listen: loopback(8002),
			argv:    func(c string) []string { return []string{"nginx", "-c", c} },
			version: []string{"nginx", "-v"},
		},
		{
			Name: "HAProxy", template: "haproxy.cfg", listen: loopback(8003),
			argv:    func(c string) []string { return []string{"haproxy", "-db", "-f", c} },
			version: []string{"haproxy", "-v"},
		},
		{
			Name: "Caddy", template: "Caddyfile", listen: loopback(8004), optional: true,
			argv:    func(c string) []string { return []string{"caddy", "run", "--adapter", "caddyfile", "--config", c} },
			version: []string{"caddy", "version"},
		},
		{
			Name: traefikName, template: "traefik.toml", further: "traefik-routes.toml", listen: loopback(8007), optional: true,
			argv:    func(c string) []string { return []string{traefik, "--configFile=" + c} },
			version: []string{traefik, "version"},
		},
		{Name: direct, listen: loopback(9000), version: []string{"nginx", "-v"}, part: true},
		{
			Name: fewName, template: "proxyd.toml", listen: loopback(8005), part: true, routes: fewRoutes - 1,
			argv:    func(c string) []string { return []string{proxyd, "run", "-c", c} },
			version: []string{proxyd, "version"},
		},
		{
			Name: manyName, template: "proxyd.toml", listen: loopback(8006), part: true, routes: manyRoutes - 1,
			argv:    func(c string) []string { return []string{proxyd, "run", "-c", c} },
			version: []string{proxyd, "version"},
		},
	}
}

// benchValues fill in the templates of bench/.
type benchValues struct {
	Cores, Conns, Files         int
	Dir, Host                   string
	Listen, Backend             netip.AddrPort
	Secure                      netip.AddrPort // where TLS is spoken
	Pair                        string         // file of a certificate with its key
	H2                          netip.AddrPort // where HTTP/2 is spoken in clear
	H3                          netip.AddrPort // where HTTP/3 is
	Name, Interface, Check, VIP string         // of keepalived
	Priority                    int
	Advert                      string
	Servers                     []benchServer
	ID                          string // tells several of one kind apart
	Routes                      []int
	Doors                       map[string]netip.AddrPort // of all kinds, by name
}

type benchServer struct {
	Name string
	Addr netip.AddrPort
}

// fill writes the named template to a file and returns its path.
func (v benchValues) fill(name, file string) (string, error) {
	t, err := template.ParseFS(benchTemplates, "bench/"+name+".tmpl")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return "", err
	}
	path := filepath.Join(v.Dir, file)
	return path, os.WriteFile(path, b.Bytes(), 0o644)
}

// start runs the contestant in a namespace and waits until it serves.
func (c *contestant) start(space *Space, v benchValues) error {
	v.Listen, v.H2, v.H3, v.Secure = c.listen, inH2(c.listen), inH3(c.listen), secureOf(c.listen)
	v.Doors = map[string]netip.AddrPort{"web": v.Listen, "h2": v.H2, "quic": v.H3, "secure": v.Secure}
	v.ID = strconv.Itoa(int(c.listen.Port()))
	for i := range c.routes {
		v.Routes = append(v.Routes, i)
	}
	config, err := v.fill(c.template, v.ID+"-"+c.template)
	if err != nil {
		return fmt.Errorf("configure %s: %w", c.Name, err)
	}
	if c.further != "" {
		if _, err := v.fill(c.further, v.ID+"-"+c.further); err != nil {
			return fmt.Errorf("configure %s: %w", c.Name, err)
		}
	}
	log := filepath.Join(v.Dir, c.Name+".out")
	err = space.Do(func() error {
		var err error
		c.process, _, err = start(command{name: c.Name, argv: c.argv(config), log: log})
		return err
	})
	if err != nil {
		return err
	}
	return within(context.Background(), startTime, c.Name+" to serve", func() (bool, error) {
		if !c.process.Alive() {
			return false, fmt.Errorf("it ended: %v; %s", c.process.Err(), tail(log, 8))
		}
		var o Outcome
		err := space.Do(func() error {
			l := newLoader(LoadSpec{Target: c.listen.String(), Host: benchHost, Path: "/small", Deadline: time.Second}, nil)
			o = l.once(context.Background())
			return nil
		})
		if err != nil {
			return false, err
		}
		return o == OK, notYet{fmt.Errorf("a request: %v", o)}
	})
}

// startTime is how long a contestant may take until it serves: some have many routes.
const startTime = time.Minute

// versionOf runs a command that prints a version and returns it.
func versionOf(argv []string) string {
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	// Not preceded by a letter: "go1.26.8" is not the program's.
	if m := regexp.MustCompile(`[ /]v?(\d+\.\d+(\.\d+)?[-+.\w]*)`).FindStringSubmatch(line); m != nil {
		return m[1]
	}
	return strings.TrimSpace(line)
}

// machine describes where a benchmark ran.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(b); m != nil {
			model = string(m[1])
		}
	}
	release := "?"
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		release = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%d cores, %s, Linux %s, %s", runtime.NumCPU(), model, release, runtime.Version())
}
