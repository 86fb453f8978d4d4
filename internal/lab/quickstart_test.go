package lab

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/freeport"
)

// nginxQuickstart is the configuration that docs/examples/nginx-quickstart.toml stands
// for, without its limiter.
const nginxQuickstart = `
daemon off;
worker_processes 1;
error_log DIR/nginx.err;
pid DIR/nginx.pid;
events { worker_connections 100; }
http {
	access_log DIR/nginx.log;
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	upstream backend { server SERVER1 weight=3; server SERVER2 weight=2; server SERVER3 weight=1; }
	server {
		listen HTTP;
		server_name example.com www.example.com;
		return 301 https://$server_name$request_uri;
	}
	server {
		listen SITE ssl http2;
		ssl_certificate PAIR; ssl_certificate_key PAIR;
		server_name example.com www.example.com;
		proxy_set_header Host $host;
		proxy_set_header X-Real-IP $remote_addr;
		proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		proxy_set_header X-Forwarded-Proto $scheme;
		proxy_connect_timeout 5s; proxy_send_timeout 10s; proxy_read_timeout 10s;
		location = /health { access_log off; default_type text/plain; return 200 "OK"; }
		location ~* \.(jpg|jpeg|png|gif|css|js)$ { proxy_pass http://backend; expires 1d; add_header Cache-Control "public, immutable"; }
		location /api/ { proxy_pass http://backend; }
		location / { proxy_pass http://backend; }
	}
}
`

// TestQuickstartIsNginx plays the same requests, in the same order, against nginx with a
// usual configuration and proxyd with the example that stands for it, by TLS: the same
// answers, sent to the same servers, but for the differences that are documented.
func TestQuickstartIsNginx(t *testing.T) {
	if testing.Short() {
		t.Skip("end to end")
	}
	if err := Install(t.Context(), []string{"nginx"}, os.Stderr); err != nil {
		t.Fatal(err)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	servers := []*quickServer{startQuickServer(t, "one"), startQuickServer(t, "two"), startQuickServer(t, "three")}
	pair, err := writePair(filepath.Join(dir, "pair.pem"), "example.com", "www.example.com")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(pair)
	if err != nil {
		t.Fatal(err)
	}
	client := quickClient{x509.NewCertPool()}
	if !client.roots.AppendCertsFromPEM(text) {
		t.Fatal("no certificate")
	}
	nginx := &quickProxy{name: "nginx", http: freeport.Address(t), site: freeport.Address(t)}
	proxyd := &quickProxy{name: "proxyd", http: freeport.Address(t), site: freeport.Address(t)}
	example, err := os.ReadFile("../../docs/examples/nginx-quickstart.toml")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "proxyd.toml"), strings.NewReplacer(
		`":80"`, `"`+proxyd.http+`"`, `":443"`, `"`+proxyd.site+`"`,
		"/etc/ssl/example.com.crt", pair, "/etc/ssl/example.com.key", pair,
		"10.0.1.5:8080", servers[0].address, "10.0.1.6:8080", servers[1].address, "10.0.1.7:8080", servers[2].address).Replace(string(example))+
		"\n[admin]\nsocket = \""+dir+"/admin.sock\"\nlisten = \"\"\n[node]\nname = \"edge-1\"\nstate = \""+dir+"/state\"\n"+
		"[log]\naccess = { format = \"combined\", output = \""+dir+"/proxyd.log\" }\n")
	write(t, filepath.Join(dir, "nginx.conf"), strings.NewReplacer("DIR", dir, "HTTP", nginx.http, "SITE", nginx.site, "PAIR", pair,
		"SERVER1", servers[0].address, "SERVER2", servers[1].address, "SERVER3", servers[2].address).Replace(nginxQuickstart))
	running(t, nginx.name, []string{"nginx", "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "nginx.err")}, nginx.site, filepath.Join(dir, "nginx.out"))
	running(t, proxyd.name, []string{filepath.Join(bin, "proxyd"), "run", "-c", filepath.Join(dir, "proxyd.toml")}, proxyd.site, filepath.Join(dir, "proxyd.out"))

	turn := play{door: "site", request: "GET /turn"}
	ask := func(p play) (ofNginx, ofProxyd []string) {
		t.Helper()
		var both sync.WaitGroup
		both.Go(func() { ofNginx = nginx.ask(t, client, servers, p) })
		both.Go(func() { ofProxyd = proxyd.ask(t, client, servers, p) })
		both.Wait()
		return ofNginx, ofProxyd
	}
	seen := map[string]bool{} // differences
	for _, p := range readPlays(t, "testdata/quickstart.txt") {
		switch p.event {
		case "":
		case "one and two break off":
			for n := nginx.turns; n%6 != 0; n++ { // from here on it is the turn of one, two, one, three, two, one
				ask(turn)
			}
			servers[0].breakOff()
			servers[1].breakOff()
			continue
		case "all are gone":
			for _, s := range servers {
				s.serve.Close()
			}
			continue
		default:
			t.Fatalf("line %d: %q", p.line, p.event)
		}
		ofNginx, ofProxyd := ask(p)
		for _, problem := range judge(p, ofNginx, ofProxyd, seen) {
			t.Errorf("%v: %s", p, problem)
		}
		// Where one alone has asked a server, the other one has a turn left to take.
		for n := proxyd.turns - nginx.turns; n > 0; n-- {
			nginx.ask(t, client, servers, turn)
		}
		for n := nginx.turns - proxyd.turns; n > 0; n-- {
			proxyd.ask(t, client, servers, turn)
		}
	}
	for _, d := range differences {
		if !seen[d.name] {
			t.Errorf("no difference of %q any more", d.name)
		}
	}

	// /health has no line in the logs; everything else has.
	for _, proxy := range []string{nginx.name, proxyd.name} {
		var log string
		err = within(t.Context(), patience, "the log of "+proxy+" to be written", func() (bool, error) {
			b, err := os.ReadFile(filepath.Join(dir, proxy+".log"))
			log = string(b)
			return strings.Contains(log, " /the-last "), err
		})
		if err != nil {
			t.Error(err)
		}
		if line := answeredHealth.FindString(log); line != "" {
			t.Errorf("the log of %s has a line for /health: %s", proxy, line)
		}
		if !strings.Contains(log, " /health/x ") {
			t.Errorf("the log of %s has no line for /health/x", proxy)
		}
	}
}

// A quickProxy is one of the two.
type quickProxy struct {
	name       string
	http, site string // its doors
	turns      int    // that servers had
}

// ask plays p and returns all that is known of it.
func (q *quickProxy) ask(t *testing.T, client quickClient, servers []*quickServer, p play) []string {
	door := q.site
	if p.door == "http" {
		door = q.http
	}
	facts, err := client.ask(t.Context(), p, door)
	if err != nil {
		facts = append(facts, "error "+err.Error())
	}
	for _, s := range servers {
		sent := s.take(q.name)
		for _, fact := range sent {
			if fact == "to "+s.name {
				q.turns++
			}
		}
		facts = append(facts, sent...)
	}
	return facts
}

// answeredHealth is in a line of a log, in the form "combined", for a /health that was answered.
var answeredHealth = regexp.MustCompile(`/health(\?\S*)? HTTP/[0-9.]+" 200`)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// running starts a program that serves on an address until the test ends.
func running(t *testing.T, name string, argv []string, listen, log string) {
	t.Helper()
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the program
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		f.Close()
	})
	err = within(t.Context(), patience, name+" to serve", func() (bool, error) {
		select {
		case err := <-ended:
			ended <- err
			return false, fmt.Errorf("it ended: %v; %s", err, tail(log, 8))
		default:
		}
		c, err := net.DialTimeout("tcp", listen, time.Second)
		if err != nil {
			return false, notYet{err}
		}
		return true, c.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
}
