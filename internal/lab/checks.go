package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"proxyd/internal/control"
)

// A Checks drill measures what it takes a node to check thousands of servers, beside one that
// has them and does not. No client asks anything. The servers are addresses of one, on the
// loopback interface: each check is a connection, a request and its answer.
type Checks struct {
	Plan    Plan
	Servers int           // 0: 5,000
	For     time.Duration // 0: 30 s
	Out     io.Writer
}

const (
	checksInterval = 5 * time.Second // the default
	checksPool     = 50              // servers of each pool

	// checksPromise is what a check may take of a processor.
	checksPromise = 400 * time.Microsecond

	// checksMemory is what a server with checks may take of memory, beyond one without.
	checksMemory = 8 << 10

	// checksDue is the share of the checks that are due which must be made.
	checksDue = 0.95

	// checksFailed is the share of them that may fail: a busy machine lets the server wait, too.
	checksFailed = 0.01
)

// checkKinds are what is measured, the node without checks first.
var checkKinds = []struct{ name, check string }{
	{"none", ""},
	{"http", `check = { path = "/healthz", interval = "5s" }`},
	{"tcp", `check = { type = "tcp", interval = "5s" }`},
}

// Checked is what a node with one kind of checks took.
type Checked struct {
	Kind     string
	Servers  int
	Passed   int // checks
	Failed   int
	In       time.Duration // how long those took
	CPU      float64       // share of a processor
	Resident int64
}

// rate returns how many checks were made a second.
func (c *Checked) rate() float64 { return float64(c.Passed+c.Failed) / c.In.Seconds() }

// each returns what a check took.
func (c *Checked) each() time.Duration {
	return time.Duration(c.CPU / max(c.rate(), 1) * float64(time.Second))
}

// Run measures every kind.
func (d Checks) Run(ctx context.Context) error {
	d.Servers, d.For = cmp.Or(d.Servers, 5000), cmp.Or(d.For, 30*time.Second)
	var all []*Checked
	for _, k := range checkKinds {
		c, err := d.measure(ctx, k.check)
		if err != nil {
			return fmt.Errorf("checks: %s: %w", k.name, err)
		}
		c.Kind = k.name
		fmt.Fprintf(d.Out, "%s: %d checks in %v, %.2f %% of a processor, %.1f MB\n", c.Kind, c.Passed+c.Failed, c.In.Round(time.Millisecond), 100*c.CPU, float64(c.Resident)/1e6)
		all = append(all, c)
	}
	return d.report(all)
}

// measure runs a node of its own, and looks at it once every server was asked and the turns have
// come apart.
func (d Checks) measure(ctx context.Context, check string) (*Checked, error) {
	dir, err := newRunDir()
	if err != nil {
		return nil, err
	}
	defer dir.remove()
	space, err := NewSpace()
	if err != nil {
		return nil, err
	}
	defer space.Close() // ends what was started in it
	conf, socket := dir.file("proxyd.toml"), dir.file("admin.sock")
	if err := os.WriteFile(conf, []byte(d.configuration(check, dir.path, socket)), 0o600); err != nil {
		return nil, err
	}
	var node *Process
	err = space.Do(func() error {
		if _, _, err := start(command{name: "server", argv: []string{d.Plan.Lab, "serve", "--plain", "--listen", ":" + strconv.Itoa(webPort)}, log: dir.file("server.log")}); err != nil {
			return err
		}
		var err error
		node, _, err = start(command{name: "proxyd", argv: []string{d.Plan.Proxyd, "run", "-c", conf}, log: dir.file("proxyd.log")})
		return err
	})
	if err != nil {
		return nil, err
	}
	client := control.Dial(socket)
	err = within(ctx, patience, "proxyd to answer", func() (bool, error) {
		if !node.Alive() {
			return false, fmt.Errorf("proxyd ended: %v; %s", node.Err(), tail(dir.file("proxyd.log"), 5))
		}
		_, err := client.Version(ctx)
		return err == nil, notYet{err}
	})
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*checksInterval); err != nil {
		return nil, err
	}
	// Memory first: a page of metrics of so many servers takes some for itself. It also takes a
	// while, in which checks go on: they are counted as it begins.
	c := &Checked{Servers: d.Servers}
	if c.Resident, err = resident(filepath.Join("/proc", strconv.Itoa(node.PID()))); err != nil {
		return nil, err
	}
	counted := Now()
	passed, failed, err := checksMade(ctx, client)
	if err != nil {
		return nil, err
	}
	before, err := takenBy(node.PID())
	if err != nil {
		return nil, err
	}
	began := Now()
	if err := pause(ctx, d.For); err != nil {
		return nil, err
	}
	after, err := takenBy(node.PID())
	if err != nil {
		return nil, err
	}
	now := Now()
	c.CPU, c.In = (after.cpu-before.cpu).Seconds()/now.Sub(began).Seconds(), now.Sub(counted)
	if c.Passed, c.Failed, err = checksMade(ctx, client); err != nil {
		return nil, err
	}
	c.Passed, c.Failed = c.Passed-passed, c.Failed-failed
	return c, nil
}

// configuration has pools of servers at addresses of the loopback interface.
func (d Checks) configuration(check, dir, socket string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[node]\nname = \"checks\"\nstate = %q\n[listener.http]\naddress = \"127.0.0.1:80\"\n[admin]\nsocket = %q\nlisten = \"\"\n[log]\naccess = false\n", filepath.Join(dir, "state"), socket)
	for i := range d.Servers {
		if i%checksPool == 0 {
			if i > 0 {
				fmt.Fprintf(&b, "]\n%s\n", check)
			}
			pool := i / checksPool
			fmt.Fprintf(&b, "[[route]]\nhost = \"h%d.example\"\npool = \"p%d\"\n[pool.p%d]\nservers = [", pool, pool, pool)
		}
		fmt.Fprintf(&b, "%q, ", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i / 250), byte(1 + i%250)}), webPort))
	}
	fmt.Fprintf(&b, "]\n%s\n", check)
	return b.String()
}

// checksMade sums up the checks that a node has made.
func checksMade(ctx context.Context, node *control.Client) (passed, failed int, err error) {
	page, err := node.Metrics(ctx)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(page) {
		labels, ok := strings.CutPrefix(line, "proxyd_upstream_checks_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(strings.TrimSpace(labels), "} ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("metrics: %q: %w", line, err)
		}
		if strings.Contains(labels, `result="ok"`) {
			passed += int(n)
		} else {
			failed += int(n)
		}
	}
	return passed, failed, nil
}

// report prints the table, and returns an error if a promise was not kept. The first node made no
// checks.
func (d Checks) report(all []*Checked) error {
	t := Table{Head: []string{"checks", "servers", "checks/s", "failed", "of a core", "a check", "promise", "resident", "a server", "promise"}}
	var broken []error
	none := all[0]
	for _, c := range all {
		share := fmt.Sprintf("%.2f %%", 100*c.CPU)
		if c == none {
			t.Add(c.Kind, fmt.Sprint(c.Servers), "-", "-", share, "-", "-", fmt.Sprintf("%.1f MB", float64(c.Resident)/1e6), "-", "-")
			continue
		}
		more := float64(c.Resident-none.Resident) / float64(c.Servers)
		t.Add(c.Kind, fmt.Sprint(c.Servers), fmt.Sprintf("%.0f", c.rate()), fmt.Sprint(c.Failed), share, fmt.Sprintf("%.0f us", float64(c.each())/1e3), fmt.Sprintf("< %d us", checksPromise.Microseconds()),
			fmt.Sprintf("%.1f MB", float64(c.Resident)/1e6), fmt.Sprintf("%.2f KB", more/1024), fmt.Sprintf("< %d KB", checksMemory>>10))
		if due := float64(c.Servers) / checksInterval.Seconds(); c.rate() < checksDue*due {
			broken = append(broken, fmt.Errorf("%s: %.0f checks a second: %w at least %.0f %% of %.0f", c.Kind, c.rate(), ErrPromise, 100*checksDue, due))
		}
		if made := c.Passed + c.Failed; float64(c.Failed) > checksFailed*float64(made) {
			broken = append(broken, fmt.Errorf("%s: %d of %d checks failed: %w at most %.0f %%", c.Kind, c.Failed, made, ErrPromise, 100*checksFailed))
		}
		if c.each() > checksPromise {
			broken = append(broken, fmt.Errorf("%s: %v of a processor for a check: %w less than %v", c.Kind, c.each(), ErrPromise, checksPromise))
		}
		if more > checksMemory {
			broken = append(broken, fmt.Errorf("%s: %.0f bytes for a server: %w less than %d", c.Kind, more, ErrPromise, checksMemory))
		}
	}
	return errors.Join(append(broken, t.WriteText(d.Out))...)
}
