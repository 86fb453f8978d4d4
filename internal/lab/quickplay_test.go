package lab

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A play is one request, at both proxies, or an event between two of them.
type play struct {
	line    int    // of the transcript
	event   string // "": a request
	door    string
	request string // the request line; its version is HTTP/1.1 unless it says another
	fields  []string
	body    string
	differs []string // the differences that the play is to show
}

func (p play) String() string { return fmt.Sprintf("line %d: %s %s", p.line, p.door, p.request) }

// readPlays reads a transcript; its own head says how it is written.
func readPlays(t *testing.T, name string) (all []play) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("l", 9000)
	var now *play
	for i, line := range strings.Split(string(text), "\n") {
		mark, rest, _ := strings.Cut(strings.ReplaceAll(line, "LONG", long), " ")
		switch mark {
		case "", "#":
			now = nil
			continue
		case "!":
			all = append(all, play{line: i + 1, event: rest})
			continue
		case "http", "site", "h2", "clear":
			all = append(all, play{line: i + 1, door: mark, request: rest})
			now = &all[len(all)-1]
			continue
		}
		switch {
		case now == nil:
			t.Fatalf("%s:%d: no play", name, i+1)
		case mark == ">":
			now.fields = append(now.fields, rest)
		case mark == "=":
			now.body = strings.ReplaceAll(rest, `\r\n`, "\r\n")
		case mark == "~":
			now.differs = append(now.differs, rest)
		default:
			t.Fatalf("%s:%d: %q", name, i+1, line)
		}
	}
	return all
}

// text is the request as HTTP/1 has it. Host and Content-Length are added where the play
// says nothing of them; an empty Host is none.
func (p play) text() string {
	request := p.request
	if !strings.Contains(request, " HTTP/") {
		request += " HTTP/1.1"
	}
	lines, host, framed := []string{request}, false, p.body == ""
	for _, f := range p.fields {
		host = host || strings.HasPrefix(f, "Host:")
		framed = framed || strings.HasPrefix(f, "Content-Length:") || strings.HasPrefix(f, "Transfer-Encoding:")
	}
	if !host {
		lines = append(lines, "Host: example.com")
	}
	if !framed {
		lines = append(lines, fmt.Sprint("Content-Length: ", len(p.body)))
	}
	for _, f := range p.fields {
		if f != "Host:" {
			lines = append(lines, f)
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + p.body
}

// A quickClient asks proxies whose certificate it knows.
type quickClient struct{ roots *x509.CertPool }

// ask plays p at a door and returns the facts of the answer, each a text.
func (c quickClient) ask(ctx context.Context, p play, door string) (facts []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if p.door == "h2" {
		return c.ask2(ctx, p, door)
	}
	d := net.Dialer{}
	conn, err := d.DialContext(ctx, "tcp", door)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	if p.door == "site" {
		conn = tls.Client(conn, &tls.Config{RootCAs: c.roots, ServerName: "example.com", NextProtos: []string{"http/1.1"}})
	}
	if _, err := io.WriteString(conn, p.text()); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(p.request, " ")
	var raw strings.Builder
	in := bufio.NewReader(io.TeeReader(conn, &raw))
	var r *http.Response
	for r == nil || r.StatusCode < 200 && r.StatusCode != 101 {
		if r, err = http.ReadResponse(in, &http.Request{Method: method}); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	rest := raw.String()
	for { // The head as it was written: net/http changes names and leaves fields out.
		var head string
		head, rest, _ = strings.Cut(rest, "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		_, status, _ := strings.Cut(lines[0], " ")
		status, reason, _ := strings.Cut(status, " ")
		facts = append(facts, "status "+status)
		if status < "200" && status != "101" {
			continue
		}
		facts = append(facts, "reason "+reason)
		facts = append(facts, named("field", lines[1:])...)
		return append(facts, "body "+shown(string(body))), nil
	}
}

// ask2 is ask by HTTP/2.
func (c quickClient) ask2(ctx context.Context, p play, door string) (facts []string, err error) {
	only2 := new(http.Protocols)
	only2.SetHTTP2(true)
	via := &http.Transport{
		Protocols:          only2,
		DisableCompression: true,
		TLSClientConfig:    &tls.Config{RootCAs: c.roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, door)
		},
	}
	defer via.CloseIdleConnections()
	method, target, _ := strings.Cut(p.request, " ")
	var body io.Reader
	if p.body != "" {
		body = strings.NewReader(p.body)
	}
	q, err := http.NewRequestWithContext(ctx, method, "https://example.com"+target, body)
	if err != nil {
		return nil, err
	}
	for _, f := range p.fields {
		name, value, _ := strings.Cut(f, ": ")
		if name == "Host" {
			q.Host = value
		} else {
			q.Header.Add(name, value)
		}
	}
	r, err := via.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.ProtoMajor != 2 {
		return nil, fmt.Errorf("answered by %s", r.Proto)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var lines []string
	for name, values := range r.Header {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	facts = append([]string{fmt.Sprint("status ", r.StatusCode)}, named("field", lines)...)
	return append(facts, "body "+shown(string(text))), nil
}

// named makes a fact of each field. Their order means nothing but among those of one name
// (RFC 9110, 5.3), which are numbered. Moments are told by how far off they are.
func named(what string, lines []string) (facts []string) {
	times := map[string]int{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if at, err := http.ParseTime(value); err == nil && (name == "Date" || name == "Expires") {
			if far := time.Until(at).Round(time.Minute); far > -time.Hour {
				value = fmt.Sprint("in ", far)
			}
		}
		key := strings.ToLower(name)
		if times[key]++; times[key] > 1 {
			name = fmt.Sprintf("%s (%d)", name, times[key])
		}
		facts = append(facts, fmt.Sprintf("%s %s: %s", what, name, value))
	}
	return facts
}

// shown is a body as a fact tells it.
func shown(body string) string {
	if len(body) > 200 {
		body = fmt.Sprintf("%.100s... and %d bytes more", body, len(body)-100)
	}
	return fmt.Sprintf("%q", body)
}
