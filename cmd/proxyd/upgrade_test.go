package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/control"
	"proxyd/internal/freeport"
)

// upgraded is a program that may have been followed by others.
type upgraded struct {
	*program
	pid int
}

// upgrade puts another process of binary ("" for the same) in the place of the running one.
func (u *upgraded) upgrade(binary string) *control.Upgraded {
	u.t.Helper()
	r, err := u.Upgrade(u.t.Context(), control.Upgrade{Binary: binary})
	if err != nil {
		u.t.Fatal(err)
	}
	before := u.pid
	u.pid = r.PID
	u.t.Cleanup(func() { endProcess(u.t, r.PID) })
	if before == r.PID {
		u.t.Fatalf("the process is still %d", before)
	}
	return r
}

func launchUpgradable(t *testing.T, text string) *upgraded {
	p := launch(t, text)
	return &upgraded{p, p.cmd.Process.Pid}
}

// endProcess ends a process that is nobody's child any more.
func endProcess(t *testing.T, pid int) {
	t.Helper()
	_ = syscall.Kill(pid, syscall.SIGTERM)
	for range 500 {
		if !living(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d did not end", pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// living reports whether a process is there and no zombie.
func living(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z")
}

// origin is a server with something short and something long.
func origin(t *testing.T) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one") })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		for i := range 40 {
			fmt.Fprintf(w, "%d\n", i)
			http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func behind(address string, s *httptest.Server) string {
	return fmt.Sprintf("listener.http.address = %q\npool.web.servers = [%q]\nroute = [{ pool = \"web\" }]\n", address, strings.TrimPrefix(s.URL, "http://"))
}

// pressure opens connections one after the other, as fast as they are answered, until stop,
// which returns how many there were and what went wrong.
func pressure(address string) (stop func() (int64, error)) {
	var over atomic.Bool
	var asked atomic.Int64
	var mu sync.Mutex
	var wrong error
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { // ends with over
			client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			for !over.Load() {
				resp, err := client.Get("http://" + address + "/")
				if err == nil {
					var b []byte
					b, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					if err == nil && string(b) != "one" {
						err = fmt.Errorf("%d %q", resp.StatusCode, b)
					}
				}
				asked.Add(1)
				if err != nil {
					mu.Lock()
					wrong = errors.Join(wrong, err)
					mu.Unlock()
				}
			}
		})
	}
	return func() (int64, error) {
		over.Store(true)
		all.Wait()
		return asked.Load(), wrong
	}
}

func TestAnUpgradeCostsNoRequest(t *testing.T) {
	address := freeport.Address(t)
	p := launchUpgradable(t, behind(address, origin(t)))
	stop := pressure(address)
	resp, err := http.Get("http://" + address + "/long")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := p.pid
	for range 3 {
		r := p.upgrade("")
		if st, err := p.Status(t.Context()); err != nil || st.Upgrade == nil || st.Upgrade.From != version {
			t.Errorf("status after an upgrade: %+v, %v", st, err)
		}
		t.Logf("%+v", r)
	}
	lines := 0
	for s := bufio.NewScanner(resp.Body); s.Scan(); lines++ {
	}
	if lines != 40 {
		t.Errorf("a download that was under way has %d lines, want 40", lines)
	}
	if n, err := stop(); err != nil || n < 100 {
		t.Errorf("%d requests: %v", n, err)
	}
	p.eventually("the first process ends", func() bool { return !living(first) })
	if got := p.metric(`proxyd_upgrades_total{result="done"}`); got != 3 {
		t.Errorf("upgrades done = %v, want 3", got)
	}
}

// A process that was upgraded twice has connections in both that were before it.
func TestConnectionsOfAllProcessesBeforeAreCounted(t *testing.T) {
	let := make(chan struct{})
	held := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-let
	}))
	defer held.Close()
	address := freeport.Address(t)
	p := launchUpgradable(t, behind(address, held))
	pids := []int{p.pid}
	var downloads []*http.Response
	for range 2 {
		client := http.Client{Transport: &http.Transport{}} // a connection of its own
		resp, err := client.Get("http://" + address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		downloads = append(downloads, resp)
		p.upgrade("")
		pids = append(pids, p.pid)
	}
	p.eventually("both are counted", func() bool {
		st, err := p.Status(t.Context())
		return err == nil && st.Upgrade != nil && st.Upgrade.Draining != nil && st.Upgrade.Draining.Connections == 2
	})
	// The service ends when all of them have.
	if err := syscall.Kill(p.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.eventually("it ends", func() bool { return strings.Contains(p.log.String(), "ending: handing addresses over") })
	time.Sleep(500 * time.Millisecond) // in which it has nothing else to wait for
	for _, pid := range pids {
		if !living(pid) {
			t.Errorf("process %d of %d has ended before the downloads", pid, pids)
		}
	}
	close(let)
	for _, d := range downloads {
		if _, err := io.ReadAll(d.Body); err != nil {
			t.Errorf("a download over the upgrades: %v", err)
		}
	}
	p.eventually("all have ended", func() bool {
		return !slices.ContainsFunc(pids, living)
	})
}

func TestAFailedUpgradeChangesNothing(t *testing.T) {
	address := freeport.Address(t)
	conf := behind(address, origin(t))
	p := launch(t, conf)
	stop := pressure(address)
	fake := func(script string) string {
		name := filepath.Join(p.dir, "fake")
		self, _ := os.Executable()
		text := "#!/bin/sh\ncase \"$1\" in version|check) exec " + self + " \"$@\";; esac\n" + script + "\n"
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, c := range []struct{ name, script, want string }{
		{"ends at once", "echo 'no room at the inn' >&2; exit 3", "no room at the inn"},
		{"panics", "echo 'panic: runtime error: oops' >&2; echo 'goroutine 1' >&2; exit 2", "panic: runtime error: oops"},
		{"says nothing", "exec sleep 60", "hello"},
	} {
		_, err := p.Upgrade(t.Context(), control.Upgrade{Binary: fake(c.script)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Upgrade = %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := p.Upgrade(t.Context(), control.Upgrade{Binary: "/bin/true"}); !errors.Is(err, control.ErrInvalid) {
		t.Errorf("another program: %v", err)
	}
	// A script that is killed leaves a child behind which holds its output open.
	began := time.Now()
	if _, err := p.Upgrade(t.Context(), control.Upgrade{Binary: slow(t)}); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "does not say") {
		t.Errorf("a program that hangs: %v", err)
	} else if took := time.Since(began); took > vetTime+10*time.Second {
		t.Errorf("a program that hangs was given up after %v", took)
	}
	p.write("nonsense = 1\n" + conf)
	if _, err := p.Upgrade(t.Context(), control.Upgrade{}); !errors.Is(err, control.ErrInvalid) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad file: %v", err)
	}
	// The file is good for `check`, and what it asks for is not there.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p.write(strings.Replace(conf, address, taken.Addr().String(), 1))
	if _, err := p.Upgrade(t.Context(), control.Upgrade{}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("an address that is taken: %v", err)
	}
	if n, err := stop(); err != nil || n < 100 {
		t.Errorf("%d requests: %v", n, err)
	}
	p.write(conf)
	if _, err := p.Reload(t.Context()); err != nil {
		t.Errorf("a reload after failed upgrades: %v", err)
	}
	if got := p.metric(`proxyd_upgrades_total{result="failed"}`); got != 7 {
		t.Errorf("failed upgrades = %v, want 7", got)
	}
}

// slow is a program that says nothing, in a process of its own.
func slow(t *testing.T) string {
	name := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(name, []byte("#!/bin/sh\nsleep 60\necho never\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// Whoever asks while processes change places is answered: on connections of their own, and on
// what a client thinks is kept.
func TestAnUpgradeCostsNoCall(t *testing.T) {
	all := launchCluster(t, 2, answering(200))
	p := &upgraded{all[0], all[0].cmd.Process.Pid}
	var over atomic.Bool
	var asked atomic.Int64
	var callers sync.WaitGroup
	for i := range 6 {
		callers.Go(func() { // ends with over
			kept := control.Dial(p.dir + "/admin.sock")
			for !over.Load() {
				c := kept
				if i%2 == 0 {
					c = control.Dial(p.dir + "/admin.sock")
				}
				_, err := c.Status(t.Context())
				if err == nil {
					_, err = c.History(t.Context(), control.HistoryQuery{}) // is not repeated by itself
				}
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
				asked.Add(1)
			}
		})
	}
	for range 8 {
		p.upgrade("")
	}
	over.Store(true)
	callers.Wait()
	t.Logf("%d calls", asked.Load())
}

func TestSIGUSR2Upgrades(t *testing.T) {
	address := freeport.Address(t)
	p := launchUpgradable(t, behind(address, origin(t)))
	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	var pid int
	p.eventually("another process serves", func() bool {
		st, err := p.Status(t.Context())
		if err != nil || st.Upgrade == nil || st.Upgrade.Draining != nil {
			return false
		}
		_, _ = fmt.Sscanf(p.log.String()[strings.Index(p.log.String(), "another process serves now"):], "another process serves now; this one lets its exchanges end\" pid=%d", &pid)
		return true
	})
	t.Cleanup(func() { endProcess(t, pid) })
	if _, body := get(t, "http://"+address); body != "one" {
		t.Errorf("the answer is %q", body)
	}
}
