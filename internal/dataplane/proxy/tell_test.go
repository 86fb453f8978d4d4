package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/engine"
	"proxyd/internal/freeport"
)

// errorTypes are those of RFC 9209, 2.3.
var errorTypes = []string{
	"dns_timeout", "dns_error", "destination_not_found", "destination_unavailable", "destination_ip_prohibited", "destination_ip_unroutable",
	"connection_refused", "connection_terminated", "connection_timeout", "connection_read_timeout", "connection_write_timeout",
	"connection_limit_reached", "tls_protocol_error", "tls_certificate_error", "tls_alert_received", "http_request_error", "http_request_denied",
	"http_response_incomplete", "http_response_header_section_size", "http_response_header_size", "http_response_body_size",
	"http_response_trailer_section_size", "http_response_trailer_size", "http_response_transfer_coding", "http_response_content_coding",
	"http_response_timeout", "http_upgrade_failed", "http_protocol_error", "proxy_internal_response", "proxy_internal_error",
	"proxy_configuration_error", "proxy_loop_detected",
}

func TestEveryCauseHasATypeOfRFC9209(t *testing.T) {
	onPurpose := []string{"drain", "held_full", "shed"}
	for _, c := range causes {
		x := &dataplane.Exchange{Mark: dataplane.Mark{Local: true, Reason: c.word}}
		got := errorType(x)
		if !slices.Contains(errorTypes, got) {
			t.Errorf("%s: %s is no type", c.word, got)
		}
		if c.status >= 500 && !slices.Contains(onPurpose, c.word) && got == "proxy_internal_response" || c.status < 400 && got != "proxy_internal_response" {
			t.Errorf("%s, %d: %s", c.word, c.status, got)
		}
		if want := `proxyd; error=` + got + `; details="` + c.word + `"`; string(proxyStatus(x)) != want {
			t.Errorf("%s: %q, want %q", c.word, proxyStatus(x), want)
		}
	}
}

func TestFaultsOfServersHaveTypesOfRFC9209(t *testing.T) {
	known := &dataplane.Server{}
	known.SetAddr(netip.MustParseAddrPort("192.0.2.1:80"))
	wrap := func(kind, err error) error { return fmt.Errorf("%w: dial tcp 192.0.2.1:80: %w", kind, err) }
	bad := func(reason string) error { return &dataplane.Malformed{Status: 502, Reason: reason} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{wrap(dataplane.ErrConnect, syscall.ECONNREFUSED), "connection_refused"},
		{wrap(dataplane.ErrConnect, syscall.EHOSTUNREACH), "destination_ip_unroutable"},
		{wrap(dataplane.ErrConnect, syscall.ENETUNREACH), "destination_ip_unroutable"},
		{wrap(dataplane.ErrConnect, io.EOF), "destination_unavailable"},
		{wrap(dataplane.ErrConnect, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), "tls_certificate_error"},
		{wrap(dataplane.ErrConnect, tls.RecordHeaderError{Msg: "no TLS"}), "tls_protocol_error"},
		{wrap(dataplane.ErrConnect, &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}), "tls_alert_received"},
		{dataplane.ErrConnectTime, "connection_timeout"},
		{dataplane.ErrSendTime, "connection_write_timeout"},
		{dataplane.ErrReadTime, "connection_read_timeout"},
		{dataplane.ErrServerDown, "destination_unavailable"},
		{wrap(dataplane.ErrResponse, bad("header_size")), "http_response_header_section_size"},
		{wrap(dataplane.ErrResponse, bad("fields")), "http_response_header_section_size"},
		{wrap(dataplane.ErrResponse, bad("transfer_encoding_twice")), "http_response_transfer_coding"},
		{wrap(dataplane.ErrResponse, bad("obs_fold")), ""},
		{wrap(dataplane.ErrRead, io.EOF), ""},
		{dataplane.ErrTotalTime, ""},
		{dataplane.ErrTooLarge, ""},
	} {
		x := &dataplane.Exchange{Server: known}
		if got := faultOf(x, c.err); got != c.want || got != "" && !slices.Contains(errorTypes, got) {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
	x := &dataplane.Exchange{Server: &dataplane.Server{}}
	if got := faultOf(x, dataplane.ErrConnect); got != "dns_error" {
		t.Errorf("a server without an address: %q", got)
	}
}

func TestServerTimingHasThePartsOfTheLog(t *testing.T) {
	begun := time.Unix(1_000_000, 0)
	at := func(ms int) time.Time { return begun.Add(time.Duration(ms) * time.Millisecond) }
	x := &dataplane.Exchange{}
	x.Times = dataplane.Times{Start: begun, Head: at(1), Dial: 2500 * time.Microsecond, Sent: at(5), FirstByte: at(1007)}
	for want, change := range map[string]func(){
		"wait;dur=1.500, connect;dur=2.500, server;dur=1002.000, total;dur=1008.000": func() {},
		"wait;dur=1.500, connect;dur=2.500, total;dur=1008.000":                      func() { x.Times.FirstByte = time.Time{} },
		"total;dur=1008.000": func() { x.Times.Sent = time.Time{} },
	} {
		was := x.Times
		change()
		if got := string(serverTiming(x, at(1008))); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		x.Times = was
	}
}

// telling is a configuration whose listener tells, before a server that answers by path.
func telling(t *testing.T, more string, servers ...string) *config.Config {
	c := to(t, "[[route]]\nname = \"gone\"\nhost = \"h\"\npath = \"/gone\"\nto = [\""+freeport.Address(t)+"\"]\n"+
		"[[route]]\nname = \"here\"\nhost = \"h\"\npath = \"/here\"\nrespond = { body = \"x\" }\n"+more, servers...)
	c.Listener["web"].ProxyStatus, c.Listener["web"].ServerTiming = true, true
	for _, p := range c.Pool {
		p.Retry.Attempts = 1
	}
	c.Route[len(c.Route)-1].Host = []string{"h"}
	return c
}

var timing = regexp.MustCompile(`(?m)^Server-Timing: (wait;dur=\d+\.\d{3}, connect;dur=\d+\.\d{3}, (server;dur=\d+\.\d{3}, )?)?total;dur=\d+\.\d{3}\r$`)

// Each answer says where it comes from, and none names a server. So do those of the engines to
// what never became a request.
func TestProxyStatusOfAnswers(t *testing.T) {
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		a := attack(t, newEngine, "")
		a.witness.answer = func(q *http.Request) string {
			switch q.URL.Path {
			case "/bad":
				return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"
			case "/large":
				return "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n"
			case "/none":
				return ""
			case "/chain":
				return "HTTP/1.1 404 Not Found\r\nProxy-Status: inner; error=dns_error\r\nServer-Timing: db;dur=5\r\nContent-Length: 0\r\n\r\n"
			}
			return plainAnswer
		}
		c := telling(t, "", a.witness.address)
		gone := c.Pool[c.Route[slices.IndexFunc(c.Route, func(r *config.Route) bool { return r.Name == "gone" })].Pool].Server[0].Addr
		a.apply(c)
		for _, c := range []struct {
			raw, want string
			sent      bool // to a server
			timed     bool
		}{
			{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "proxyd; received-status=200", true, true},
			{"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", "proxyd; received-status=200", true, true},
			{"GET /chain HTTP/1.1\r\nHost: h\r\n\r\n", "proxyd; received-status=404", true, true},
			{"GET /bad HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=http_protocol_error; details="bad_response"`, true, true},
			{"GET /large HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=http_response_header_section_size; details="bad_response"`, true, true},
			{"GET /none HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=connection_terminated; details="broken"`, true, true},
			{"GET /gone HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=connection_refused; details="connect"`, false, true},
			{"GET /here HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=proxy_internal_response; details="respond"`, false, true},
			{"GET / HTTP/1.1\r\nHost: other\r\n\r\n", `proxyd; error=destination_not_found; details="no_route"`, false, true},
			{"TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", `proxyd; error=http_request_error; details="method"`, false, true},
			{"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", "proxyd; error=http_request_error", false, false},
		} {
			r := a.send(c.raw, 1)
			line, _, _ := strings.Cut(c.raw, "\r\n")
			if !strings.Contains(r.text, "\r\nProxy-Status: "+c.want+"\r\n") || timing.MatchString(r.text) != c.timed || strings.Contains(r.text, "wait;dur=") != c.sent {
				t.Errorf("%s: %q, want %s", line, r.text, c.want)
			}
			if strings.Contains(r.text, a.witness.address) || strings.Contains(r.text, gone) || strings.Contains(r.text, "app") {
				t.Errorf("%s: names a server: %q", line, r.text)
			}
			if strings.Contains(c.raw, "/chain") && !strings.Contains(r.text, "Proxy-Status: inner; error=dns_error\r\n") {
				t.Errorf("%s: what the server says is gone: %q", line, r.text)
			}
		}
	})
}

func TestNothingIsToldUnasked(t *testing.T) {
	onEachEngine(t, func(t *testing.T, newEngine func(engine.Config) engine.Engine) {
		a := attack(t, newEngine, "")
		for _, raw := range []string{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n", "GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n"} {
			if r := a.send(raw, 1); len(r.status) != 1 || strings.Contains(r.text, "Proxy-Status") || strings.Contains(r.text, "Server-Timing") {
				t.Errorf("%q: %q", raw, r.text)
			}
		}
	})
}

func TestProxyStatusByHTTP2AndHTTP3(t *testing.T) {
	w := inClear(t, "", server(t, hello))
	c := telling(t, "", w.current.Load().pools["app"].Servers()[0].Name)
	c.Listener["web"].H2C = true
	c.Route[len(c.Route)-1].Host = nil
	w.apply(c)
	s := newSecureSite(t, func(c *config.Config) {
		withHTTP3(c)
		c.Listener["https"].ProxyStatus, c.Listener["https"].ServerTiming = true, true
	})
	quic, secure := quicClient(t, s)
	for _, site := range []struct {
		client *http.Client
		base   string
	}{{w.client, "http://" + w.address}, {quic, secure}} {
		for path, want := range map[string]string{"/": "proxyd; received-status=200", "/%00": "proxyd; error=http_request_error"} {
			r, err := site.client.Get(site.base + path)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if got := r.Header.Get("Proxy-Status"); got != want || (r.Header.Get("Server-Timing") != "") != (path == "/") {
				t.Errorf("%s %s: %v", r.Proto, path, r.Header)
			}
		}
	}
}
