package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/control"
)

// asProgram makes this test binary the program itself.
const asProgram = "PROXYD_TEST_AS_PROGRAM"

// asTraitor makes it one that takes the place of a running one and ends in that moment.
const asTraitor = "PROXYD_TEST_AS_TRAITOR"

func TestMain(m *testing.M) {
	if to := os.Getenv(asHook); to != "" {
		if err := hook(to, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(asTraitor) != "" && os.Args[1] == "run" {
		betray()
		return
	}
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A program is a proxyd that runs as a process of its own, on loopback.
type program struct {
	*control.Client
	t     *testing.T
	file  string
	dir   string
	name  string // of the node; default: edge-1
	above string // more lines above the text, of a cluster

	address string // of its listener, in a cluster
	cmd     *exec.Cmd
	log     *output
	stdout  *os.File // where its standard output goes; default: log
	done    chan struct{}
}

// output keeps what a process writes. It is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// launch writes a configuration, the text with node and admin above it and without an
// access log if it has none, and runs it.
func launch(t *testing.T, text string) *program {
	t.Helper()
	if testing.Short() {
		t.Skip("end to end")
	}
	dir := t.TempDir()
	p := &program{t: t, dir: dir, file: filepath.Join(dir, "proxyd.toml")}
	p.write(text)
	p.start()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("proxyd said:\n%s", p.log)
		}
	})
	return p
}

// write replaces the configuration file at once.
func (p *program) write(text string) {
	p.t.Helper()
	above := "log.access = false\n"
	if strings.Contains(text, "[log.access]") {
		above = ""
	}
	if !strings.Contains(text, "admin.listen") {
		above += "admin.listen = \"\"\n"
	}
	name := "edge-1"
	if p.name != "" {
		name = p.name
	}
	head := above + p.above + fmt.Sprintf("node.name = %q\nnode.state = %q\nadmin.socket = %q\n", name, p.dir+"/state", p.dir+"/admin.sock")
	if err := os.WriteFile(p.file+".new", []byte(head+text), 0o644); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.file+".new", p.file); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) start() {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self, "run", "-c", p.file)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.log = &output{}
	p.cmd.Stderr, p.cmd.Stdout = p.log, p.log
	if p.stdout != nil {
		p.cmd.Stdout = p.stdout
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	go func() { // ends with the process
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	p.Client = control.Dial(p.dir + "/admin.sock")
	p.eventually("proxyd is up", func() bool {
		select {
		case <-p.done:
			p.t.Fatalf("proxyd ended:\n%s", p.log)
		default:
		}
		_, err := p.Status(p.t.Context())
		return err == nil && strings.Contains(p.log.String(), "proxyd is up")
	})
}

func (p *program) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// eventually waits for a state of another process.
func (p *program) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within a minute: %s\n%s", what, p.log)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// metric returns the value of the line of the metrics page that begins with series.
func (p *program) metric(series string) float64 {
	p.t.Helper()
	page, err := p.Metrics(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return v
		}
	}
	p.t.Fatalf("no metric %s", series)
	return 0
}

// get asks once and returns the status and the body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
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

// getUnix asks once on a socket.
func getUnix(t *testing.T, socket, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
	resp, err := client.Get("http://localhost" + path)
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
