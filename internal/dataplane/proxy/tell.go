package proxy

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/files"
)

var (
	nameProxyStatus  = []byte("Proxy-Status")
	nameServerTiming = []byte("Server-Timing")
)

// tell puts on the head of an answer what its listener tells clients of its way: Proxy-Status
// (RFC 9209) and Server-Timing. Both come behind those of the server, in lines of their own. They
// name no server and no address.
func (p *Plane) tell(x *dataplane.Exchange) {
	if x.Response.Status < 200 {
		return
	}
	h := &x.Response.Header
	if x.Listener.ProxyStatus {
		h.Add(dataplane.Other, nameProxyStatus, proxyStatus(x))
	}
	if x.Listener.ServerTiming {
		h.Add(dataplane.Other, nameServerTiming, serverTiming(x, p.opt.Now()))
	}
}

// proxyStatus says where the answer comes from: from a server, with the status that it had, or
// from here, with why. The name is that of Via.
func proxyStatus(x *dataplane.Exchange) []byte {
	from := len(x.Text)
	b := append(x.Text, "proxyd; "...)
	if x.Mark.Local {
		b = append(append(b, "error="...), errorType(x)...)
		b = append(append(append(b, `; details="`...), x.Mark.Reason...), '"')
	} else {
		b = strconv.AppendInt(append(b, "received-status="...), int64(x.Response.Status), 10)
	}
	x.Text = b
	return b[from:len(b):len(b)]
}

// errorType is the type of RFC 9209, 2.3, of an answer made here.
func errorType(x *dataplane.Exchange) string {
	if x.Mark.Fault != "" {
		return x.Mark.Fault
	}
	switch x.Mark.Reason {
	case noRoute, unknownHost:
		return "destination_not_found"
	case "method", "host", "rewrite", "encoded_slash", "misdirected", "early", "too_large", "client_body", "client_slow":
		return "http_request_error"
	case "client_cert":
		return "http_request_denied"
	case "template", "internal", files.Failed:
		return "proxy_internal_error"
	case "no_server":
		return "destination_unavailable"
	case "queue_full", "queue_wait":
		return "connection_limit_reached"
	case "connect":
		return "connection_refused"
	case "broken":
		return "connection_terminated"
	case "bad_response":
		return "http_protocol_error"
	case "timeout":
		return "http_response_timeout"
	}
	return "proxy_internal_response" // on purpose, without a server
}

// faultOf is the type of RFC 9209, 2.3, of what went wrong with a server, where err says more than
// the reason; or "".
func faultOf(x *dataplane.Exchange, err error) string {
	var bad *dataplane.Malformed
	var verify *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.Is(err, dataplane.ErrConnectTime):
		return "connection_timeout"
	case errors.Is(err, dataplane.ErrSendTime):
		return "connection_write_timeout"
	case errors.Is(err, dataplane.ErrReadTime):
		return "connection_read_timeout"
	case errors.Is(err, dataplane.ErrServerDown):
		return "destination_unavailable"
	case errors.Is(err, dataplane.ErrResponse) && errors.As(err, &bad):
		switch {
		case bad.Reason == "header_size" || bad.Reason == "fields":
			return "http_response_header_section_size"
		case strings.HasPrefix(bad.Reason, "transfer_encoding"):
			return "http_response_transfer_coding"
		}
		return ""
	case !errors.Is(err, dataplane.ErrConnect):
		return ""
	case x.Server != nil && !x.Server.Addr().IsValid():
		return "dns_error"
	case errors.As(err, &verify):
		return "tls_certificate_error"
	case errors.As(err, &noTLS):
		return "tls_protocol_error"
	case errors.As(err, &op) && op.Op == "remote error":
		return "tls_alert_received"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "destination_ip_unroutable"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	}
	return "destination_unavailable"
}

// serverTiming says how long it took until the head of the answer, in the parts of the access log
// (t_wait, t_connect, t_ttfb) and milliseconds.
func serverTiming(x *dataplane.Exchange, now time.Time) []byte {
	from := len(x.Text)
	b, t := x.Text, &x.Times
	if !t.Sent.IsZero() {
		b = appendTiming(b, "wait;dur=", t.Sent.Sub(t.Head)-t.Dial)
		b = appendTiming(b, "connect;dur=", t.Dial)
		if !t.FirstByte.IsZero() {
			b = appendTiming(b, "server;dur=", t.FirstByte.Sub(t.Sent))
		}
	}
	b = appendTiming(b, "total;dur=", now.Sub(t.Start))
	x.Text = b[:len(b)-len(", ")]
	return x.Text[from:len(x.Text):len(x.Text)]
}

// appendTiming appends a part of Server-Timing, and what parts it from the next.
func appendTiming(b []byte, name string, d time.Duration) []byte {
	us := max(d.Microseconds(), 0)
	b = strconv.AppendInt(append(b, name...), us/1000, 10)
	b = append(b, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
	return append(b, ", "...)
}
