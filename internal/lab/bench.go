package lab

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Bench measures proxyd beside its peers, in turns, on one machine and one server.
type Bench struct {
	Plan    Plan
	Rounds  int           // every contestant takes a turn in each
	Turn    time.Duration // of one run of wrk
	Idle    int           // connections that are opened to see what an idle one costs; 0: none
	Only    []string      // names of contestants; none: all
	Traefik string        // the program; "": it is not measured
	Works   []string      // parts of the names of workloads; none: all
	Out     io.Writer     // progress

	dir string // of this run's files
}

// A workload is what clients do in a benchmark, and what is aimed at.
type workload struct {
	name    string
	path    string
	head    []string // further fields of the requests
	post    int      // bytes of a body to POST; 0: GET
	conns   int
	streams int      // of HTTP/2, on each connection at once; 0: HTTP/1.1
	quic    bool     // HTTP/3, with streams on each connection at once
	rate    int      // requests a second; 0: as many as can be
	tls     bool     // over TLS 1.3, with the same key exchange, cipher and certificate for all
	whole   bool     // each request has a connection, whose handshake resumes no session
	half    bool     // the rate is half of what the slowest of the proxies can do
	among   []string // contestants; none: all of the ordinary ones
	goal    float64  // CPU per request, as a ratio to the best of to
	goal99  float64  // p99 beyond that of the server itself, likewise
	own     string   // the contestant that has the goal; none: proxyd
	to      []string // the contestants of the goal's other side; none: nginx and HAProxy
}

const benchConns = 64

const (
	fewRoutes  = 10
	manyRoutes = 100_000
)

func workloads() []workload {
	return []workload{
		{name: "small GET, 64 kept connections", path: "/small", conns: benchConns, goal: 0.80},
		{name: "small GET, 512 kept connections", path: "/small", conns: 512, goal: 0.80},
		{name: "POST of 4 KB, 64 kept connections", path: "/small", conns: benchConns, post: 4 << 10, goal: 0.85},
		{name: "100 KB answer, 64 kept connections", path: "/100k", conns: benchConns, goal: 0.85},
		{name: "small GET, a connection each", path: "/small", conns: benchConns, head: []string{"Connection: close"}, goal: 1.00},
		{name: "small GET, 5,000 a second", path: "/small", conns: benchConns, rate: 5000, goal: 0.85},
		{name: "POST of 4 KB, 5,000 a second", path: "/small", conns: benchConns, post: 4 << 10, rate: 5000, goal: 0.85},
		{name: "100 KB answer, 5,000 a second", path: "/100k", conns: benchConns, rate: 5000, goal: 0.85},
		{name: "small GET, a connection each, 5,000 a second", path: "/small", conns: benchConns, head: []string{"Connection: close"}, rate: 5000, goal: 0.85},
		{name: "small GET, half load", path: "/small", conns: benchConns, half: true, goal99: 1.00, among: []string{direct, proxydName, "nginx", "HAProxy"}},
		{name: "small GET, HTTP/2, 16 connections x 32", path: "/small", conns: 16, streams: 32, goal: 1.20, among: []string{proxydName, "nginx", "HAProxy", traefikName}, to: []string{"nginx"}},
		{name: "HTTPS small GET, 64 kept connections", path: "/small", conns: benchConns, tls: true, goal: 0.70, among: []string{proxydName, "nginx", "HAProxy", traefikName}},
		{name: "HTTPS small GET, a full handshake each", path: "/small", conns: 16, whole: true, goal: 1.00, among: []string{proxydName, "nginx", "HAProxy"}},
		{name: "HTTPS small GET, a session resumed each", path: "/small", conns: 16, tls: true, head: []string{"Connection: close"}, goal: 1.00, among: []string{proxydName, "nginx", "HAProxy"}},
		{name: "small GET, HTTP/3, 16 connections x 8", path: "/small", conns: 16, streams: 8, quic: true, among: []string{proxydName, traefikName}},
		{name: "100 KB answer, HTTP/3, 16 connections", path: "/100k", conns: 16, streams: 1, quic: true, among: []string{proxydName, traefikName}},
		{name: "small GET, 100,000 routes", path: "/small", conns: benchConns, goal: 1.05, among: []string{fewName, manyName}, own: manyName, to: []string{fewName}},
	}
}

// Names of contestants that have a part of their own.
const (
	proxydName  = "proxyd"
	traefikName = "Traefik"
	direct      = "server" // without a proxy
	fewName     = "proxyd, 10 routes"
	manyName    = "proxyd, 100,000 routes"
)

// wanted reports whether a workload is one of those asked for.
func (b *Bench) wanted(w *workload) bool {
	return len(b.Works) == 0 || slices.ContainsFunc(b.Works, func(part string) bool { return strings.Contains(w.name, part) })
}

// has reports whether a contestant does this work.
func (w *workload) has(name string) bool {
	if len(w.among) == 0 {
		return name != direct && name != fewName && name != manyName
	}
	return slices.Contains(w.among, name)
}

// A Turn is what one contestant did with one workload once.
type Turn struct {
	WrkResult
	CPU float64 // microseconds of user and system time per request
}

// A BenchResult is all turns of a benchmark.
type BenchResult struct {
	Machine  string
	Versions map[string]string
	Names    []string             // of the contestants, the first is what others are compared with
	Works    []string             // of the workloads
	Turns    map[[2]string][]Turn // by workload and contestant, in the order of the rounds
	works    []workload
	Idle     map[string]float64 // bytes per idle connection
	Resident map[string]int64   // bytes before the first request
}

// Run plays all rounds. What was measured until an error is returned with it.
func (b *Bench) Run(ctx context.Context) (*BenchResult, error) {
	dir, err := newRunDir()
	if err != nil {
		return nil, err
	}
	defer dir.remove()
	space, err := NewSpace()
	if err != nil {
		return nil, err
	}
	defer space.Close()
	v, err := b.prepare(space, dir)
	if err != nil {
		return nil, err
	}
	backend, err := b.startBackend(space, v)
	if err != nil {
		return nil, err
	}
	defer backend.Kill()

	r := &BenchResult{
		Machine: machine(), Versions: map[string]string{}, Turns: map[[2]string][]Turn{},
		Idle: map[string]float64{}, Resident: map[string]int64{},
	}
	r.works = slices.DeleteFunc(workloads(), func(w workload) bool { return !b.wanted(&w) })
	for _, w := range r.works {
		r.Works = append(r.Works, w.name)
	}
	var players []*contestant
	for _, c := range contestants(b.Plan.Proxyd, b.Traefik) {
		if !b.Wants(c.Name) {
			continue
		}
		if _, err := exec.LookPath(c.version[0]); err != nil && c.optional {
			fmt.Fprintf(b.Out, "%s is not there and not measured\n", c.Name)
			continue
		}
		if c.Name == direct {
			c.process = backend
		} else {
			if err := c.start(space, v); err != nil {
				return r, err
			}
			defer c.process.Kill()
		}
		players = append(players, c)
		r.Names = append(r.Names, c.Name)
		r.Versions[c.Name] = versionOf(c.version)
	}
	if err := b.idle(ctx, space, v, players, r); err != nil {
		return r, err
	}
	for round := range b.Rounds {
		for _, w := range r.works {
			if w.half {
				if w.rate, err = b.half(ctx, space, w, players); err != nil {
					return r, err
				}
			}
			// Nobody is always the first, when caches are cold, or the last.
			for k := range players {
				c := players[(k+round)%len(players)]
				if !w.has(c.Name) {
					continue
				}
				t, err := b.turn(ctx, space, w, c)
				if err != nil {
					return r, fmt.Errorf("%s, %s: %w", c.Name, w.name, err)
				}
				key := [2]string{w.name, c.Name}
				r.Turns[key] = append(r.Turns[key], t)
				fmt.Fprintf(b.Out, "%d/%d  %-36s %-22s %6.1f us CPU a request  %8.0f/s  p99 %v  errors %d\n",
					round+1, b.Rounds, w.name, c.Name, t.CPU, t.PerSec, t.P99, t.Errors)
			}
		}
	}
	return r, nil
}

// half returns half of what the slowest of a workload's proxies does in a second.
func (b *Bench) half(ctx context.Context, space *Space, w workload, players []*contestant) (int, error) {
	w.half, w.rate = false, 0
	slowest := math.Inf(1)
	for _, c := range players {
		if !w.has(c.Name) || c.Name == direct {
			continue
		}
		t, err := b.turn(ctx, space, w, c)
		if err != nil {
			return 0, fmt.Errorf("%s, %s: %w", c.Name, w.name, err)
		}
		slowest = min(slowest, t.PerSec)
	}
	if math.IsInf(slowest, 1) {
		return 0, fmt.Errorf("%s: no proxy takes part", w.name)
	}
	return int(slowest / 2), nil
}

// postScript tells wrk to POST.
const postScript = "post.lua"

// Wants reports whether a contestant is one of those asked for.
func (b *Bench) Wants(name string) bool { return len(b.Only) == 0 || containsFold(b.Only, name) }

func containsFold(names []string, name string) bool {
	for _, n := range names {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// prepare makes the files and settles the limits that every contestant meets.
func (b *Bench) prepare(space *Space, dir *runDir) (benchValues, error) {
	v := benchValues{
		Cores: runtime.NumCPU(), Conns: b.Idle + 2000, Dir: dir.path, Host: benchHost, Backend: loopback(9000),
	}
	limit, err := raiseFiles()
	if err != nil {
		return v, err
	}
	v.Files = int(limit)
	v.Conns = min(v.Conns, v.Files-1000)
	for _, sub := range []string{"www", "state"} {
		if err := os.Mkdir(dir.file(sub), 0o755); err != nil {
			return v, err
		}
	}
	// nginx gives its workers to an unprivileged user, who must reach the files.
	if err := os.Chmod(dir.path, 0o755); err != nil {
		return v, err
	}
	body := make([]byte, 100<<10)
	if _, err := io.ReadFull(pattern{}, body); err != nil {
		return v, err
	}
	if err := os.WriteFile(dir.file("www", "100k"), body, 0o644); err != nil {
		return v, err
	}
	b.dir = dir.path
	script := fmt.Sprintf("wrk.method = %q\nwrk.body = string.rep(\"x\", %d)\n", "POST", 4<<10)
	if err := os.WriteFile(dir.file(postScript), []byte(script), 0o644); err != nil {
		return v, err
	}
	if v.Pair, err = writePair(dir.file("pair.pem")); err != nil {
		return v, err
	}
	return v, space.Do(func() error {
		// Thousands of short connections a second from one address.
		return sysctl("net/ipv4/ip_local_port_range", "10240 65535")
	})
}

func (b *Bench) startBackend(space *Space, v benchValues) (*Process, error) {
	config, err := v.fill("backend.conf", "backend.conf")
	if err != nil {
		return nil, err
	}
	var p *Process
	err = space.Do(func() error {
		var err error
		p, _, err = start(command{name: "server", argv: []string{"nginx", "-c", config}, log: filepath.Join(v.Dir, "server.out")})
		return err
	})
	return p, err
}

// turn runs wrk against one contestant and reads what that cost it.
func (b *Bench) turn(ctx context.Context, space *Space, w workload, c *contestant) (Turn, error) {
	if w.rate > 0 {
		return b.pacedTurn(ctx, space, w, c)
	}
	if w.quic {
		return b.h3Turn(ctx, space, w, c)
	}
	if w.streams > 0 {
		return b.h2Turn(ctx, space, w, c)
	}
	if w.whole {
		return b.shakeTurn(ctx, space, w, c)
	}
	argv := []string{"-t2", "-c" + strconv.Itoa(w.conns), "-d" + strconv.Itoa(max(int(b.Turn.Seconds()), 1)) + "s", "--latency", "-H", "Host: " + benchHost}
	for _, h := range w.head {
		argv = append(argv, "-H", h)
	}
	if w.post > 0 {
		argv = append(argv, "-s", filepath.Join(b.dir, postScript))
	}
	url := "http://" + c.listen.String()
	if w.tls {
		url = "https://" + secureOf(c.listen).String()
	}
	argv = append(argv, url+w.path)
	return b.load(ctx, space, c, "wrk", argv, parseWrk)
}

// load has a load generator run against one contestant, and reads what that cost it.
func (b *Bench) load(ctx context.Context, space *Space, c *contestant, generator string, argv []string, parse func(out string) (WrkResult, error)) (Turn, error) {
	before, err := usage(c.process.PID())
	if err != nil {
		return Turn{}, err
	}
	var out []byte
	err = space.Do(func() error {
		var err error
		out, err = exec.CommandContext(ctx, generator, argv...).CombinedOutput()
		return err
	})
	if err != nil {
		return Turn{}, fmt.Errorf("%s: %w: %s", generator, err, out)
	}
	after, err := usage(c.process.PID())
	if err != nil {
		return Turn{}, err
	}
	t := Turn{}
	if t.WrkResult, err = parse(string(out)); err != nil {
		return t, err
	}
	if t.Requests == 0 {
		return t, fmt.Errorf("no request was answered: %s", out)
	}
	t.CPU = float64((after.CPU - before.CPU).Microseconds()) / float64(t.Requests)
	return t, nil
}

// idle opens connections, has one request answered on each, and looks at what they cost
// while nothing happens on them.
func (b *Bench) idle(ctx context.Context, space *Space, v benchValues, players []*contestant, r *BenchResult) error {
	n := min(b.Idle, v.Conns-100)
	for _, c := range players {
		if c.part {
			continue
		}
		before, err := usage(c.process.PID())
		if err != nil {
			return err
		}
		r.Resident[c.Name] = before.Resident
		if n <= 0 {
			continue
		}
		conns, err := openIdle(ctx, space, c.listen, n)
		if err != nil {
			return fmt.Errorf("%s, %d idle connections: %w", c.Name, n, err)
		}
		// A collector gives memory back some time after it was used.
		err = pause(ctx, 3*time.Second)
		after, usageErr := usage(c.process.PID())
		for _, conn := range conns {
			conn.Close()
		}
		if err != nil {
			return err
		}
		if usageErr != nil {
			return usageErr
		}
		r.Idle[c.Name] = float64(after.Resident-before.Resident) / float64(n)
		fmt.Fprintf(b.Out, "%-8s resident %.1f MB, %.2f KB for each of %d idle connections\n", c.Name, float64(before.Resident)/1e6, r.Idle[c.Name]/1024, n)
	}
	return nil
}
