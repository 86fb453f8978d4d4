package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"proxyd/internal/control"
	"proxyd/internal/dataplane/proxy"
	"proxyd/internal/freeport"
)

// hactl builds the program and returns a way to run it against p.
func (p *program) hactl() func(args ...string) (stdout, stderr string, code int) {
	p.t.Helper()
	binary := filepath.Join(p.dir, "hactl")
	if out, err := exec.Command("go", "build", "-o", binary, "proxyd/cmd/hactl").CombinedOutput(); err != nil {
		p.t.Fatalf("go build: %v\n%s", err, out)
	}
	return func(args ...string) (string, string, int) {
		var out, err bytes.Buffer
		cmd := exec.Command(binary, append([]string{"--socket", p.dir + "/admin.sock"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &err
		ended := cmd.Run()
		if exit := (*exec.ExitError)(nil); ended != nil && !errors.As(ended, &exit) {
			p.t.Fatal(ended)
		}
		return out.String(), err.String(), cmd.ProcessState.ExitCode()
	}
}

// want fails unless text has every one of the parts.
func want(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s lacks %q:\n%s", what, part, text)
		}
	}
}

func TestExplainOverTheAdminSocket(t *testing.T) {
	address, a, b := freeport.Address(t), newBackend(t), newBackend(t)
	text := "include = \"conf.d/*.toml\"\n" + balanced(address, a, b) +
		"use = \"edge\"\n[policy.edge]\nheaders = { request_set = { X-Region = \"eu\" }, response_remove = [\"Server\"] }\nexpires = { after = \"1h\" }\n"
	p := launch(t, text)
	included := filepath.Join(p.dir, "conf.d", "api.toml")
	if err := os.MkdirAll(filepath.Dir(included), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(included, []byte("\n[[route]]\nname = \"api\"\npath = \"/api/*\"\nmethod = \"GET\"\nstrip_prefix = \"/api\"\npool = \"app\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.mustEdit(control.Edit{Put: &control.File{Name: "stdin", Text: "[[route]]\nname = \"added\"\npath = \"/added\"\nrespond = { status = 200, body = \"hi\" }\n"}})
	hactl := p.hactl()
	url := "http://" + address

	// Each route stands in the file that it is from, live and read from the file alike.
	for _, where := range [][]string{nil, {"-f", p.file}} {
		out, _, code := hactl(append([]string{"explain", "GET", url + "/api/x"}, where...)...)
		want(t, "explain", out, "normalised   http "+address+" /api/x", "listener     web ("+address+"), speaks http\n", `route        "api"`, included+":2", `"site"   the taken one has a more specific path   `+p.file+":", "strip -> strip_prefix -> forwarded fields -> pool", "would send   GET /x HTTP/1.1", "X-Forwarded-Prefix: /api")
		if code != 0 {
			t.Errorf("explain ends with %d", code)
		}
		out, _, _ = hactl(append([]string{"explain", "GET", url + "/added"}, where...)...)
		want(t, "explain of what was added", out, `route        "added"`, p.dir+"/state/changes.toml:", "answer       200 (respond)")
	}
	out, _, _ := hactl("explain", "GET", url, "-f", p.file)
	want(t, "explain of a file", out, "(configuration of a file, ")
	out, _, _ = hactl("explain", "GET", "https://"+address)
	want(t, "explain of a scheme that the listener does not speak", out, "\n  mismatch     the listener speaks http: a client that speaks https there is answered 400 (tls)", "normalised   http ")
	out, _, _ = hactl("explain", "GET", url)
	want(t, "explain", out, "(configuration 3, ", "policies     edge", "strip -> request headers -> forwarded fields -> pool -> expires -> response headers", "set X-Region", "max-age=3600", "remove Server", "X-Region: eu")

	// What operators want is seen.
	drain, weight := "drain", 7
	if _, err := p.SteerServer(t.Context(), control.ServerWish{Server: "app/" + a.address, Mode: &drain}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.SteerServer(t.Context(), control.ServerWish{Server: "app/" + b.address, Weight: &weight}); err != nil {
		t.Fatal(err)
	}
	out, _, _ = hactl("explain", "GET", url)
	want(t, "explain", out, a.address+"   weight 1, drain (an operator's), 0 active\n", b.address+"   weight 7 (an operator's; configured 1), up, 0 active   <- next")
	if _, err := p.SteerRoute(t.Context(), control.RouteWish{Route: "site", Closed: true, Status: 503, RetryAfter: 60}); err != nil {
		t.Fatal(err)
	}
	out, _, code := hactl("explain", "GET", url)
	want(t, "explain", out, "maintenance  closed by an operator", "answer       503 (maintenance)", "Retry-After: 60")
	if status, _ := get(t, url); status != 503 || code != 0 {
		t.Errorf("%d is answered, explain ends with %d", status, code)
	}

	// Nothing was counted or sent.
	if n := a.served.Load() + b.served.Load(); n != 0 {
		t.Errorf("servers got %d requests from explain", n)
	}
	out, _, code = hactl("explain", "GET", url+"/api/x", "-o", "json")
	var e proxy.Explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 || !e.Live || e.Route.Name != "api" || e.Servers[1].Name != b.address || !e.Servers[1].Chosen {
		t.Errorf("explain -o json ends with %d, %v: %s", code, err, out)
	}
}

func TestExplainEndsWithItsExitCodes(t *testing.T) {
	address := freeport.Address(t)
	p := launch(t, site(address, "one"))
	hactl := p.hactl()
	bad := filepath.Join(p.dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("[pool.web]\nchek = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"GET http://h/", 0, ""},
		{"GET http://h/a%00b", 0, ""}, // it is answered 400, which is an explanation
		{"GET ftp://h/", 64, "http or https"},
		{"GET http://h/ --client nobody", 64, "want an address"},
		{"GET http://h/ --listener none", 64, "there are: web"},
		{"GET ftp://h/ -f " + p.file, 64, "http or https"},
		{"GET", 64, "METHOD and URL"},
		{"GET http://h/ -o xml", 64, "text or json"},
		{"GET http://h/ -f " + bad, 78, bad + `:2:1: unknown key "chek"`},
		{"GET http://h/ -f " + bad + ".none", 78, "no such file"},
		{"GET http://h/ --socket " + p.dir + "/none.sock", 69, "none.sock"},
	} {
		out, said, code := hactl(append([]string{"explain"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(said, c.says) || (code != 0) != (out == "") {
			t.Errorf("hactl explain %s: code %d, %q, %q; want code %d and %q", c.args, code, out, said, c.code, c.says)
		}
	}
	p.stop()
	if _, said, code := hactl("explain", "GET", "http://h/"); code != 69 {
		t.Errorf("without proxyd: code %d, %q; want 69", code, said)
	}
	if out, _, code := hactl("explain", "GET", fmt.Sprintf("http://%s/", address), "-f", p.file); code != 0 || !strings.Contains(out, `route        "site"`) {
		t.Errorf("-f without proxyd: code %d, %s", code, out)
	}
}
