package lab

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"proxyd/internal/vip/fence"
)

// programs builds the binaries under test, once and when the first test wants them, into a
// directory that TestMain removes.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "proxyd-e2e-"); err != nil {
		return "", err
	}
	built.Store(&dir)
	build := exec.Command("go", "build", "-o", dir+"/", "proxyd/cmd/proxyd", "proxyd/cmd/hactl", "proxyd/cmd/lab")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

var built atomic.Pointer[string]

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := built.Load(); dir != nil {
		os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// plan of a pair; without the right to make namespaces the test cannot be run here.
func pairPlan(t *testing.T) Plan {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end")
	}
	if err := mayUnshare(); err != nil {
		t.Skipf("network namespaces: %v", err)
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return Plan{Proxyd: filepath.Join(dir, "proxyd"), Lab: filepath.Join(dir, "lab")}
}

// pair starts two nodes under load and under watch.
func pair(t *testing.T) *Rig {
	t.Helper()
	return pairOf(t, pairPlan(t))
}

func pairOf(t *testing.T, p Plan) *Rig {
	t.Helper()
	r, err := NewRig(p, DrillLoad())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range r.Stage.Nodes {
				t.Logf("%s: %s", n.Name, tail(n.Log, 30))
			}
		}
		r.Close()
	})
	if err := r.Stage.Start(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	if err := r.Steady(t.Context(), patience); err != nil {
		t.Fatal(err)
	}
	return r
}

// get asks the VIP as the stage's client does.
func get(t *testing.T, s *Stage, path string) (status int, body string) {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       s.client.dialContext,
	}}
	resp, err := client.Get("http://" + s.VIP.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestPairForwards(t *testing.T) {
	r := pair(t)
	seen := map[string]bool{}
	for range 12 {
		status, body := get(t, r.Stage, "/")
		if status != http.StatusOK {
			t.Fatalf("GET / = %d %q", status, body)
		}
		seen[strings.TrimSpace(body)] = true
	}
	if len(seen) != len(r.Stage.webs) {
		t.Errorf("12 requests reached %v, want all of %d web servers", seen, len(r.Stage.webs))
	}
	if _, body := get(t, r.Stage, "/bytes/1000000"); len(body) != 1000000 {
		t.Errorf("a body of 1000000 bytes came with %d", len(body))
	}
	if _, body := get(t, r.Stage, "/chunked/50"); strings.Count(body, "web-") != 50 {
		t.Errorf("50 chunks came as %d", strings.Count(body, "web-"))
	}
	if status, _ := get(t, r.Stage, "/status/418"); status != 418 {
		t.Errorf("a status of 418 came as %d", status)
	}
	if _, body := get(t, r.Stage, "/seen"); !strings.Contains(body, r.Stage.client.Addr.String()) {
		t.Errorf("the server was not told the client's address: %s", body)
	}
}

// The bounds here are for a machine that does other work too; the drill judges promises.
func TestFaultsMoveTheAddress(t *testing.T) {
	r := pair(t)
	for _, key := range []string{"handover", "kill", "term", "cut"} {
		f, err := FaultByKey(key)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(key, func(t *testing.T) {
			measures, err := r.Try(t.Context(), f)
			for _, m := range measures {
				t.Log(m)
			}
			if err != nil {
				t.Fatal(err)
			}
			if m := measures[0]; m.Before == m.After || m.After == "" {
				t.Errorf("the holder was %q and is %q, want another", m.Before, m.After)
			}
			for _, m := range measures {
				if m.Outage > 3*time.Second {
					t.Errorf("%s: %v without service", m.Event, m.Outage)
				}
				if m.Two > 2*AddressLifetime {
					t.Errorf("%s: two hosts answered for %v", m.Event, m.Two)
				}
			}
		})
	}
}

func TestBadFileKeepsServing(t *testing.T) {
	r := pair(t)
	n := r.Holder()
	good, err := os.ReadFile(n.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.Config, append(good, "\n[pool.web2]\nservrs = []\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	from := Now()
	if _, err := n.Client().Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "servrs") {
		t.Errorf("reload of a bad file: %v, want an error that names the key", err)
	}
	if err := os.WriteFile(n.Config, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Client().Reload(t.Context()); err != nil {
		t.Errorf("reload of a good file: %v", err)
	}
	if err := r.Steady(t.Context(), patience); err != nil {
		t.Error(err)
	}
	if m := r.Measure("reload", unnoticed(), from, Now()); m.FailedAll() > 0 {
		t.Errorf("reloads were noticed: %v", m)
	}
	if h := r.Holder(); h != n {
		t.Errorf("after reloads the holder is %v, want %s", h, n.Name)
	}
}

func TestReloadsAndDeploysAreNotNoticed(t *testing.T) {
	r := pair(t)
	n := r.Holder()
	from := Now()
	if err := reloadAgain(t.Context(), r.Stage, n, 50, 100); err != nil {
		t.Error(err)
	}
	if err := deploy(t.Context(), r.Stage, n); err != nil {
		t.Error(err)
	}
	if m := r.Measure("reloads and a deploy", unnoticed(), from, Now()); m.FailedAll() > 0 && m.Before == m.After {
		t.Errorf("they were noticed: %v", m)
	}
}

// The drill itself looks that no VIP moved and none was unheld.
func TestVotersComeAndGoUnnoticed(t *testing.T) {
	p := pairPlan(t)
	p.Timing = "slow"
	r := pairOf(t, p)
	from := Now()
	if err := voters(t.Context(), r.Stage, r.Holder()); err != nil {
		t.Error(err)
	}
	if m := r.Measure("voters come and go", unnoticed(), from, Now()); m.FailedAll() > 0 || m.Changes > 0 {
		t.Errorf("it was noticed: %v", m)
	}
}

func TestHTTP3OutlivesAHandOver(t *testing.T) {
	p := pairPlan(t)
	p.Timing = "slow"
	d := HandOver3{Plan: p, Rounds: 2, Live: 8, Rate: 5, Out: t.Output(), kinds: []handOver3Kind{{name: "auto"}}}
	if err := d.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// The drill itself looks that each forgery is counted by its cause and changes nothing.
func TestStrangersOnTheLANChangeNothing(t *testing.T) {
	p := pairPlan(t)
	p.Timing = "slow"
	r := pairOf(t, p)
	from := Now()
	if err := attack(t.Context(), r.Stage, r.Holder()); err != nil {
		t.Error(err)
	}
	if m := r.Measure("an attack", unnoticed(), from, Now()); m.FailedAll() > 0 || m.Changes > 0 {
		t.Errorf("it was noticed: %v", m)
	}
}

func TestReleaseTakesTheAddressAway(t *testing.T) {
	r := pair(t)
	n := r.Holder()
	if err := n.Kill(); err != nil {
		t.Fatal(err)
	}
	err := n.Do(func() error {
		out, err := exec.CommandContext(t.Context(), n.binary, "release", "-c", n.Config).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = within(t.Context(), 500*time.Millisecond, "the dead node to be silent", func() (bool, error) {
		asks := r.Watch.Asks(Now().Add(-150*time.Millisecond), Now())
		for _, name := range SeenBy(asks) {
			if name == n.Name {
				return false, nil
			}
		}
		return len(asks) > 0, nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A node that crashed as the holder, and comes back with a file that has no VIPs, takes away what is
// left of them; so does `proxyd release` with that file.
func TestALifeWithoutVIPsTakesAwayWhatTheOneBeforeLeft(t *testing.T) {
	for _, kind := range []string{"ebpf", "nftables"} {
		t.Run(kind, func(t *testing.T) {
			p := pairPlan(t)
			p.Fence = kind
			r := pairOf(t, p)
			n := r.Holder()
			state := filepath.Join(filepath.Dir(n.Config), "state")
			left := func() (left map[string][]netip.Addr) {
				if err := n.Do(func() error { left = fence.Left(state); return nil }); err != nil {
					t.Fatal(err)
				}
				return left
			}
			crash := func() {
				if err := n.Kill(); err != nil {
					t.Fatal(err)
				}
				if got := left(); len(got[hostInterface]) == 0 {
					t.Fatalf("a holder that was killed leaves %v, want a fence of %s", got, hostInterface)
				}
			}
			gone := func(what string) {
				t.Helper()
				err := within(t.Context(), patience, "nothing to be left", func() (bool, error) { return len(left()) == 0, nil })
				if err != nil {
					t.Errorf("%s leaves %v", what, left())
				}
			}
			crash()
			good, err := os.ReadFile(n.Config)
			if err != nil {
				t.Fatal(err)
			}
			before, rest, _ := strings.Cut(string(good), "\n[vip.")
			_, after, _ := strings.Cut(rest, "\n\n")
			without := func() {
				if err := os.WriteFile(n.Config, []byte(before+"\n"+after), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			without()
			if err := n.Start(); err != nil {
				t.Fatal(err)
			}
			gone("a start without VIPs")

			if err := errors.Join(n.Kill(), os.WriteFile(n.Config, good, 0o600), n.Start(), r.Stage.Healthy(t.Context(), patience)); err != nil {
				t.Fatal(err)
			}
			crash()
			without()
			err = n.Do(func() error {
				out, err := exec.CommandContext(t.Context(), n.binary, "release", "-c", n.Config).CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			gone("release without VIPs")
		})
	}
}

func TestStageLeavesNothing(t *testing.T) {
	p := pairPlan(t)
	r, err := NewRig(p, DrillLoad())
	if err != nil {
		t.Fatal(err)
	}
	dir, web := r.Stage.Dir(), r.Stage.webs[0].procs[0].PID()
	if err := r.Stage.Nodes[0].Start(); err != nil {
		t.Fatal(err)
	}
	node := r.Stage.Nodes[0].PID()
	r.Close()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory of the run: %v", err)
	}
	for _, pid := range []int{web, node} {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
			t.Errorf("process %d is still there: %v", pid, err)
		}
	}
}

func TestStaleDirectoriesAreSwept(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	stale := filepath.Join(temp, dirPattern+"1")
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stale, "lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := newRunDir()
	if err != nil {
		t.Fatal(err)
	}
	defer first.remove()
	second, err := newRunDir()
	if err != nil {
		t.Fatal(err)
	}
	defer second.remove()
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("a dead run's directory was not removed: %v", err)
	}
	if _, err := os.Stat(first.path); err != nil {
		t.Errorf("a living run's directory: %v", err)
	}
}

func TestCablesCanBeCutAndIsolated(t *testing.T) {
	if err := mayUnshare(); err != nil {
		t.Skipf("network namespaces: %v", err)
	}
	l, err := newLAN()
	if err != nil {
		t.Fatal(err)
	}
	defer l.space.Close()
	var hosts []*Host
	for i, name := range []string{"a", "b", "c"} {
		h, err := newHost(l, name, address(1+i))
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		hosts = append(hosts, h)
	}
	a, b, c := hosts[0], hosts[1], hosts[2]
	reach := func(from, to *Host) bool {
		// Nothing listens there: a refusal is an answer.
		_, err := from.Dial(netip.AddrPortFrom(to.Addr, 9), 300*time.Millisecond)
		return outcome(err) == Refused
	}
	check := func(when string, ab, ac bool) {
		t.Helper()
		// A link that comes back is used by the kernel within about a second.
		err := within(t.Context(), 5*time.Second, "the network to be so", func() (bool, error) {
			gotAB, gotAC := reach(a, b), reach(a, c)
			return gotAB == ab && gotAC == ac, notYet{fmt.Errorf("a reaches b: %v (want %v), a reaches c: %v (want %v)", gotAB, ab, gotAC, ac)}
		})
		if err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	do := func(f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	check("at first", true, true)
	do(func() error { return a.Isolate(true) })
	do(func() error { return b.Isolate(true) })
	check("a and b isolated", false, true)
	do(func() error { return a.Isolate(false) })
	do(func() error { return b.Isolate(false) })
	check("healed", true, true)
	do(a.Silence)
	check("a silenced", false, false)
	do(a.Unsilence)
	check("a heard again", true, true)
	do(b.Cut)
	check("b cut", false, true)
	do(b.Uncut)
	check("b back", true, true)
}
