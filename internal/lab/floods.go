package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/control"
)

// A Floods drill attacks a proxyd by HTTP/2, in clear and with TLS, while other clients ask at a
// modest rate: those may not notice. All of it is on the loopback of this machine.
//
// The attackers, and the server that they ask, have the processors that proxyd, its other server and its other clients leave, so
// that it is not their own work that the others wait for.
type Floods struct {
	Plan    Plan
	Rounds  int
	Attacks []string      // of these kinds alone; none: all
	Last    time.Duration // of each measurement
	Out     io.Writer
}

// A Siege is one attack of one round, and what others saw of it.
type Siege struct {
	Kind           string
	TLS            bool
	Before, During [2]Flood // of clients of HTTP/1.1 and of HTTP/2
	RSS            [3]int64 // before, the most during, and after
	Attacked       Attacked
	Closed         string // connections that the proxy has closed meanwhile, by reason
}

const (
	besideHTTP1, besideHTTP2 = 500, 250 // requests a second of the others
	// leastNormal is the shortest p99 that is taken for the normal one: below that the clients
	// see their own kernel more than the proxy.
	leastNormal = 5 * time.Millisecond
	// mostHeld is how many bytes an attack may have a proxy keep, by connection and by stream.
	mostHeldConn, mostHeldStream = 400 << 10, 64 << 10
	leftWeight                   = 10 // of attackers and the server that they ask
	// mostGrown is what any attack may cost besides: the collector's headroom.
	mostGrown = 64 << 20
)

// Run plays it all and returns an error that says which promise was not kept.
func (o Floods) Run(ctx context.Context) error {
	o.Rounds, o.Last = cmp.Or(o.Rounds, 3), cmp.Or(o.Last, 3*time.Second)
	dir, err := os.MkdirTemp("", "floods")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	leave, err := confine(os.Getpid(), "lab", share{weight: mostWeight})
	if err != nil {
		return err
	}
	defer leave()
	n, secure, end, err := o.stage(dir)
	if err != nil {
		return err
	}
	defer end()

	var broken []error
	t := Table{Head: []string{"attack", "by", "p99 h1", "during", "p99 h2", "during", "not 200", "RSS MB", "during", "after", "opened", "closed by reason", ""}}
	for _, k := range assaults {
		if len(o.Attacks) > 0 && !slices.Contains(o.Attacks, k.kind) {
			continue
		}
		for _, tls := range []bool{false, true} {
			var all []Siege
			for range o.Rounds {
				s, err := o.siege(ctx, n, secure, k, tls, dir)
				if err != nil {
					return err
				}
				all = append(all, s)
			}
			row, wrong := judgeSieges(k, all)
			t.Add(row...)
			for _, why := range wrong {
				broken = append(broken, fmt.Errorf("%s by %s: %s", k.kind, row[1], why))
			}
			fmt.Fprintln(o.Out, strings.Join(row, "  "))
		}
	}
	fmt.Fprintln(o.Out)
	if err := t.WriteText(o.Out); err != nil {
		return err
	}
	return errors.Join(broken...)
}

// stage starts servers and node. secure is its listener with TLS.
func (o Floods) stage(dir string) (n *capped, secure string, end func(), err error) {
	n, endServers, err := cappedStage(o.Plan, dir)
	if err != nil {
		return nil, "", nil, err
	}
	free, err := freeAddresses(1)
	if err == nil {
		var pair string
		pair, err = writePair(filepath.Join(dir, "pair.pem"))
		secure = free[0]
		n.more = fmt.Sprintf("[listener.https]\naddress = %q\ntls = true\n[[cert]]\ncert = %q\nkey = %q\n", secure, pair, pair)
		n.h2c = true
	}
	if err == nil {
		err = n.start(0)
	}
	leave := func() {}
	if err == nil { // the attackers' server has what is left, as they have
		leave, err = confine(n.serves.PID(), "server", share{weight: leftWeight})
	}
	if err != nil {
		n.stop()
		endServers()
		return nil, "", nil, err
	}
	return n, secure, func() { n.stop(); leave(); endServers() }, nil
}

// siege plays one attack.
func (o Floods) siege(ctx context.Context, n *capped, secure string, k assault, tls bool, dir string) (s Siege, err error) {
	s.Kind, s.TLS = k.kind, tls
	at := n.at
	if tls {
		at = secure
	}
	if err := pause(ctx, time.Second); err != nil { // for what the last one has left
		return s, err
	}
	if s.Before, err = o.beside(ctx, n, at, tls); err != nil {
		return s, err
	}
	s.RSS[0] = n.rss()
	metrics := control.Dial(filepath.Join(n.dir, "admin.sock"))
	closed, err := closings(ctx, metrics)
	if err != nil {
		return s, err
	}
	argv := []string{o.Plan.Lab, "attack", "--target", at, "--kind", k.kind, "--conns", strconv.Itoa(k.conns), "--last", (o.Last + 3*time.Second).String()}
	if tls {
		argv = append(argv, "--tls")
	}
	p, out, err := start(command{name: "attack", argv: argv, pipe: true})
	if err != nil {
		return s, err
	}
	defer out.Close()
	defer p.Kill()
	leave, err := confine(p.PID(), "attack", share{weight: leftWeight})
	if err != nil {
		return s, err
	}
	defer leave()
	if err := pause(ctx, 2*time.Second); err != nil { // the attack is there as a whole
		return s, err
	}
	most := make(chan int64)
	watching, enough := context.WithCancel(ctx)
	defer enough()
	go func() { // ends with watching
		rss := n.rss()
		for pause(watching, 50*time.Millisecond) == nil {
			rss = max(rss, n.rss())
		}
		most <- rss
	}()
	s.During, err = o.beside(ctx, n, at, tls)
	enough()
	s.RSS[1] = <-most
	if err != nil {
		return s, err
	}
	if err := json.NewDecoder(out).Decode(&s.Attacked); err != nil {
		return s, fmt.Errorf("attack %s: %w", k.kind, err)
	}
	<-p.Done()
	now, err := closings(ctx, metrics)
	if err != nil {
		return s, err
	}
	for _, reason := range slices.Sorted(maps.Keys(now)) {
		if more := now[reason] - closed[reason]; more > 0 {
			s.Closed += fmt.Sprintf("%s %d ", reason, more)
		}
	}
	s.RSS[2] = n.rss()
	return s, n.alive()
}

// closings returns how many connections of clients a node has closed, by reason.
func closings(ctx context.Context, c *control.Client) (map[string]int, error) {
	text, err := c.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]int{}
	for line := range strings.Lines(text) {
		rest, of := strings.CutPrefix(line, "proxyd_connections_closed_total{")
		if !of {
			continue
		}
		_, rest, _ = strings.Cut(rest, `reason="`)
		reason, rest, _ := strings.Cut(rest, `"} `)
		n, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		all[reason] += int(n)
	}
	return all, nil
}

// beside has the others ask for a while. Those of HTTP/2 are a process of their own: in this one
// the thread of the flood would hold them up.
func (o Floods) beside(ctx context.Context, n *capped, at string, tls bool) (both [2]Flood, err error) {
	argv := []string{o.Plan.Lab, "steady", "--target", at, "--conns", "5", "--rate", strconv.Itoa(besideHTTP2), "--for", o.Last.String(), "--from", (o.Last / 6).String()}
	if tls {
		argv = append(argv, "--tls")
	}
	p, out, err := start(command{name: "clients", argv: argv, pipe: true})
	if err != nil {
		return both, err
	}
	defer out.Close()
	defer p.Kill()
	leave, err := confine(p.PID(), "clients", share{weight: mostWeight})
	if err != nil {
		return both, err
	}
	defer leave()
	f := &flood{to: netip.MustParseAddrPort(n.at), rate: besideHTTP1, conns: 20}
	err = f.run(ctx, o.Last)
	both[0] = f.between(o.Last/6, o.Last)
	if err != nil {
		return both, err
	}
	err = json.NewDecoder(out).Decode(&both[1])
	<-p.Done() // its control group must be empty
	return both, err
}

// judgeSieges returns a row of the table, of the medians of all rounds, and what was not kept.
func judgeSieges(k assault, all []Siege) (row, broken []string) {
	median := func(of func(Siege) float64) float64 {
		var each []float64
		for _, s := range all {
			each = append(each, of(s))
		}
		slices.Sort(each)
		return each[len(each)/2]
	}
	by := "h2c"
	if all[0].TLS {
		by = "TLS"
	}
	row = []string{k.kind, by}
	for i, name := range []string{"HTTP/1.1", "HTTP/2"} {
		before := median(func(s Siege) float64 { return s.Before[i].P99.Seconds() })
		during := median(func(s Siege) float64 { return s.During[i].P99.Seconds() })
		row = append(row, fmt.Sprintf("%.1f ms", before*1000), fmt.Sprintf("%.1f ms", during*1000))
		if during >= 2*max(before, leastNormal.Seconds()) {
			broken = append(broken, fmt.Sprintf("p99 of %s is %.1f ms, without it %.1f ms", name, during*1000, before*1000))
		}
	}
	bad := median(func(s Siege) float64 {
		return float64(s.During[0].Shed + s.During[0].Failed + s.During[1].Shed + s.During[1].Failed)
	})
	if bad > 0 {
		broken = append(broken, fmt.Sprintf("%.0f requests a second of others were not answered 200", bad))
	}
	row = append(row, fmt.Sprintf("%.0f/s", bad))
	for i := range 3 {
		row = append(row, fmt.Sprintf("%.1f", median(func(s Siege) float64 { return float64(s.RSS[i]) })/1e6))
	}
	bound := float64(mostGrown + k.conns*mostHeldConn)
	if !k.cut {
		bound += float64(k.conns * attackStreams * mostHeldStream)
	}
	if grown := median(func(s Siege) float64 { return float64(s.RSS[1] - s.RSS[0]) }); grown > bound {
		broken = append(broken, fmt.Sprintf("it costs %.0f MB, want at most %.0f", grown/1e6, bound/1e6))
	}
	opened := median(func(s Siege) float64 { return float64(s.Attacked.Opened) })
	if k.cut && median(func(s Siege) float64 { return float64(s.Attacked.Closed) }) == 0 {
		broken = append(broken, "its connections are not closed")
	}
	verdict := "ok"
	if len(broken) > 0 {
		verdict = "BROKEN"
	}
	return append(row, fmt.Sprintf("%.0f", opened), strings.TrimSpace(all[len(all)-1].Closed), verdict), broken
}
