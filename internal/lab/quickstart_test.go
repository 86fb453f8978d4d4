package lab

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/freeport"
)

// nginxQuickstart is the configuration that docs/examples/nginx-quickstart.toml stands
// for, without its limiter and with cleartext in the place of TLS.
const nginxQuickstart = `
daemon off;
worker_processes 1;
error_log DIR/nginx.log;
pid DIR/nginx.pid;
events { worker_connections 100; }
http {
	access_log off;
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	upstream backend { server SERVER1 weight=3; server SERVER2 weight=2; server SERVER3 weight=1; }
	server {
		listen HTTP;
		server_name example.com www.example.com;
		return 301 https://$server_name$request_uri;
	}
	server {
		listen SITE;
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

// quickServer answers with its name and with what it was sent. /missing/ is a 404.
func quickServer(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server", name)
		w.Header().Set("Content-Type", "text/plain")
		if strings.HasPrefix(r.URL.Path, "/missing/") {
			w.WriteHeader(404)
		}
		h := r.Header
		fmt.Fprintf(w, "%s %s host=%s ip=%s for=%s proto=%s", r.Method, r.RequestURI, r.Host, h.Get("X-Real-IP"), h.Get("X-Forwarded-For"), h.Get("X-Forwarded-Proto"))
	})}
	go s.Serve(l) // ends with Close
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// quick asks one proxy and returns what is to be equal: the status, the fields that
// matter, the server that answered and what it was sent.
func quick(t *testing.T, listen, request string) []string {
	t.Helper()
	method, rest, _ := strings.Cut(request, " ")
	host, uri, _ := strings.Cut(rest, " ")
	c, err := net.Dial("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", method, uri, host)
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s from %s: %v", request, listen, err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%s from %s: %v", request, listen, err)
	}
	out := []string{fmt.Sprint("status ", r.StatusCode)}
	for _, name := range []string{"Location", "X-Server"} {
		out = append(out, name+" "+r.Header.Get(name))
	}
	// nginx writes two lines where one means the same (RFC 9110, 5.3).
	out = append(out, "Cache-Control "+strings.Join(r.Header.Values("Cache-Control"), ", "))
	if at, err := http.ParseTime(r.Header.Get("Expires")); err == nil {
		out = append(out, fmt.Sprint("expires after ", time.Until(at).Round(time.Minute)))
	}
	if r.StatusCode == 200 || r.StatusCode == 404 && r.Header.Get("X-Server") != "" {
		out = append(out, "type "+r.Header.Get("Content-Type"), "body "+string(body))
	}
	return out
}

// TestQuickstartIsNginx plays the same requests, in the same order, against nginx with a
// usual configuration and proxyd with the example that stands for it: the same statuses,
// fields and servers.
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
	servers := []string{quickServer(t, "one"), quickServer(t, "two"), quickServer(t, "three")}
	listen := map[string][2]string{
		"nginx":  {freeport.Address(t), freeport.Address(t)},
		"proxyd": {freeport.Address(t), freeport.Address(t)},
	}
	example, err := os.ReadFile("../../docs/examples/nginx-quickstart.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`":80"`, `"`+listen["proxyd"][0]+`"`, `":8443"`, `"`+listen["proxyd"][1]+`"`,
		"10.0.1.5:8080", servers[0], "10.0.1.6:8080", servers[1], "10.0.1.7:8080", servers[2]).Replace(string(example)) +
		"\n[admin]\nsocket = \"" + dir + "/admin.sock\"\nlisten = \"\"\n[node]\nname = \"edge-1\"\nstate = \"" + dir + "/state\"\n" +
		"[log]\naccess = { output = \"" + dir + "/access.log\" }\n"
	write(t, filepath.Join(dir, "proxyd.toml"), text)
	write(t, filepath.Join(dir, "nginx.conf"), strings.NewReplacer("DIR", dir, "HTTP", listen["nginx"][0], "SITE", listen["nginx"][1],
		"SERVER1", servers[0], "SERVER2", servers[1], "SERVER3", servers[2]).Replace(nginxQuickstart))
	for name, argv := range map[string][]string{
		"nginx":  {"nginx", "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "nginx.log")},
		"proxyd": {filepath.Join(bin, "proxyd"), "run", "-c", filepath.Join(dir, "proxyd.toml")},
	} {
		running(t, name, argv, listen[name][1], filepath.Join(dir, name+".out"))
	}

	for _, request := range []string{
		// On the port of http.
		"http GET example.com /", "http GET example.com /a/b?c=d&e=%20", "http GET www.example.com /x", "http POST example.com /form",
		// On that of the site.
		"site GET example.com /", "site GET example.com /", "site GET www.example.com /deep/er?q=1", "site POST example.com /form",
		"site GET example.com /logo.png", "site GET example.com /LOGO.PNG", "site GET example.com /style.css?v=2", "site GET example.com /api/app.js",
		"site GET example.com /api/items?id=7", "site DELETE example.com /api/items/7", "site GET example.com /apix",
		"site GET example.com /missing/page", "site GET example.com /missing/logo.png", "site HEAD example.com /logo.gif",
		"site GET example.com /health", "site GET example.com /health/x", "site GET example.com /photo.jpeg.html", "site GET example.com /",
	} {
		door, ask, _ := strings.Cut(request, " ")
		port := slices.Index([]string{"http", "site"}, door)
		want, got := quick(t, listen["nginx"][port], ask), quick(t, listen["proxyd"][port], ask)
		if !slices.Equal(got, want) {
			t.Errorf("%s:\nproxyd %q\nnginx  %q", request, got, want)
		}
	}
	// /health has no line in the log; everything else has.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err = within(ctx, patience, "the access log to be written", func() (bool, error) {
		b, err := os.ReadFile(filepath.Join(dir, "access.log"))
		return strings.Count(string(b), "\n") >= 21, err
	})
	if err != nil {
		t.Error(err)
	}
	log, err := os.ReadFile(filepath.Join(dir, "access.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), `"path":"/health"`) {
		t.Error("the access log has a line for /health")
	}
}

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
