package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"proxyd/internal/config"
)

// asker is a client of HTTP/2 on a connection that stands. Checks are rare: they need none of
// the engine's budgets, and the library's client is well tried.
func asker(conn net.Conn) *http.Transport {
	var only http.Protocols
	only.SetHTTP2(true)
	only.SetUnencryptedHTTP2(true)
	stands := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	return &http.Transport{DialContext: stands, DialTLSContext: stands, Protocols: &only, DisableCompression: true, MaxResponseHeaderBytes: 32 << 10}
}

// speaksHTTP2 reports whether the question is put by HTTP/2: to servers that speak it. At
// another port there is another service, which is asked by HTTP/2 where its TLS has agreed to that.
func (q *question) speaksHTTP2(conn net.Conn) bool {
	if q.Type == "tcp" || !q.http2 {
		return false
	}
	if sealed, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return sealed.ConnectionState().NegotiatedProtocol == "h2"
	}
	return q.Port == 0 || q.Type == "grpc"
}

// judgeHTTP2 asks the server of that name and judges its answer. It waits until ctx ends.
func (q *question) judgeHTTP2(ctx context.Context, conn net.Conn, server string) string {
	r, err := q.request(ctx, server)
	if err != nil {
		return wording("ask", err)
	}
	client := asker(conn)
	defer client.CloseIdleConnections()
	a, err := client.RoundTrip(r)
	if err != nil {
		return wording("read", untimely(ctx, err))
	}
	defer a.Body.Close()
	if q.Type == "grpc" {
		return judgeGRPC(ctx, a)
	}
	if !q.wanted.has(a.StatusCode) {
		return "status " + strconv.Itoa(a.StatusCode)
	}
	if q.want.empty() {
		return ""
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	switch {
	case q.want.in(body):
		return ""
	case err != nil:
		return wording("read", untimely(ctx, err))
	}
	return "the body lacks what must match"
}

// untimely returns the end of ctx if that is why err came about.
func untimely(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// request is what is sent to the server of that name.
func (q *question) request(ctx context.Context, server string) (*http.Request, error) {
	method, path, body := q.Method, q.Path, []byte(q.Body)
	if method == "" {
		method = http.MethodGet
	}
	if q.Type == "grpc" {
		method, path, body = http.MethodPost, healthMethod, healthRequest(q.Service)
	}
	to, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, err
	}
	to.Scheme, to.Host = "http", server // the connection stands: they become :scheme and :authority
	if q.sealed {
		to.Scheme = "https"
	}
	r, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if q.Host != "" {
		r.Host = q.Host
	}
	r.Header.Set("User-Agent", "proxyd-check")
	if q.Type == "grpc" {
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Te", "trailers")
		r.Header.Set("Grpc-Timeout", strconv.FormatInt(max(q.Timeout.Milliseconds(), 1), 10)+"m")
	} else {
		r.Header.Set("Accept", "*/*")
	}
	for name, value := range q.Header {
		r.Header.Set(name, value)
	}
	return r, nil
}

// healthMethod is what a server of gRPC is asked, by its health checking protocol
// (grpc/health/v1/health.proto).
const healthMethod = "/grpc.health.v1.Health/Check"

// healthRequest is a HealthCheckRequest for a service in the frame of gRPC: a byte that says
// that it is not compressed, and its length.
func healthRequest(service string) []byte {
	var m []byte
	if service != "" {
		m = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}

// judgeGRPC says what is wrong with an answer to a HealthCheckRequest, or "".
func judgeGRPC(ctx context.Context, a *http.Response) string {
	if a.StatusCode != http.StatusOK {
		return "status " + strconv.Itoa(a.StatusCode)
	}
	if kind := a.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/grpc") {
		return fmt.Sprintf("no gRPC: content type %q", kind)
	}
	body, err := io.ReadAll(io.LimitReader(a.Body, maxAnswer))
	if err != nil {
		return wording("read", untimely(ctx, err))
	}
	fields := a.Trailer
	if fields.Get("Grpc-Status") == "" {
		fields = a.Header // an answer of trailers only
	}
	switch code := fields.Get("Grpc-Status"); code {
	case "0":
	case "5":
		return "gRPC status 5: it does not know that service"
	case "12":
		return "gRPC status 12: it has no grpc.health.v1.Health"
	case "":
		return "no gRPC: no status"
	default:
		return "gRPC status " + code
	}
	serving, err := servingStatus(body)
	switch {
	case err != nil:
		return "no acceptable gRPC: " + err.Error()
	case serving == 1:
		return ""
	case serving == 2:
		return "NOT_SERVING"
	}
	return "serving status " + strconv.FormatUint(serving, 10)
}

// servingStatus reads the status of a HealthCheckResponse in its frame; 1 is SERVING.
func servingStatus(b []byte) (status uint64, err error) {
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return 0, errors.New("not one whole message")
	}
	for b = b[5:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
		if number == 1 && kind == protowire.VarintType {
			status, n = protowire.ConsumeVarint(b)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		b = b[n:]
	}
	return status, nil
}

// byHTTP2 reports whether what a pool's servers speak is HTTP/2.
func byHTTP2(pool *config.Pool) bool { return pool.Protocol == "h2" || pool.Protocol == "h2c" }
