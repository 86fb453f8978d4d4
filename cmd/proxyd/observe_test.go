package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"proxyd/internal/freeport"
)

func TestSIGUSR1OpensTheAccessLogAgain(t *testing.T) {
	address, dir := freeport.Address(t), t.TempDir()
	name := filepath.Join(dir, "access.log")
	p := launch(t, site(address, "one")+"[log.access]\nformat = \"combined\"\noutput = \""+name+"\"\n")
	lines := func(name string) int {
		b, _ := os.ReadFile(name)
		return strings.Count(string(b), `"GET / HTTP/1.1" 200 `)
	}
	get(t, "http://"+address)
	p.eventually("the line is there", func() bool { return lines(name) == 1 })
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Process.Signal(syscall.SIGUSR1)
	p.eventually("there is a new file", func() bool { _, err := os.Stat(name); return err == nil })
	get(t, "http://"+address)
	p.eventually("the next line is in it", func() bool { return lines(name) == 1 && lines(name+".1") == 1 })
}

func TestMetricsHaveAnAddressOfTheirOwn(t *testing.T) {
	address := freeport.Address(t)
	launch(t, "admin.metrics = \""+address+"\"\n"+site(freeport.Address(t), "one"))
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 200, "/v1/status": 404, "/": 404} {
		status, body := get(t, "http://"+address+path)
		if status != want {
			t.Errorf("%s answers %d, want %d", path, status, want)
		}
		if path == "/metrics" && !strings.Contains(body, "proxyd_http_requests_total{") {
			t.Errorf("%s lacks the requests", path)
		}
	}
	// Under the name by which a scraper knows this host.
	r, _ := http.NewRequest("GET", "http://"+address+"/healthz", nil)
	r.Host = "edge-1.example.com"
	if a, err := http.DefaultClient.Do(r); err != nil || a.StatusCode != 200 {
		t.Errorf("by name: %v, %v", a, err)
	}
}

// A reader of standard output that goes away costs lines, not the service.
func TestABrokenPipeIsNoEnd(t *testing.T) { // E8
	address := freeport.Address(t)
	p := launch(t, site(address, "one"))
	p.stop()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.write(site(address, "one") + "[log.access]\noutput = \"stdout\"\n")
	p.stdout = write
	p.start()
	write.Close()
	read.Close()
	for range 3 {
		get(t, "http://"+address)
	}
	p.eventually("it is said", func() bool { return strings.Contains(p.log.String(), "access log cannot be written") })
	if _, body := get(t, "http://"+address); body != "one" {
		t.Errorf("the answer is %q, want one", body)
	}
}
