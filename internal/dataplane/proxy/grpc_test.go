package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/grpc/status"
)

// A interopLog makes the failure of an interop case, which would end the process, a panic.
type interopLog struct{ grpclog.LoggerV2 }

func (interopLog) FatalDepth(_ int, args ...any) { panic(fmt.Sprint(args...)) }
func (interopLog) InfoDepth(int, ...any)         {}
func (interopLog) WarningDepth(int, ...any)      {}
func (interopLog) ErrorDepth(int, ...any)        {}

var catchFatal = sync.OnceFunc(func() {
	grpclog.SetLoggerV2(interopLog{grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)})
})

// grpcServer is a server of gRPC's interop cases, in clear.
func grpcServer(t *testing.T) string {
	t.Helper()
	catchFatal()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	recorder := orca.NewServerMetricsRecorder()
	s := grpc.NewServer(orca.CallMetricsServerOption(recorder))
	testgrpc.RegisterTestServiceServer(s, interop.NewTestServer(interop.NewTestServerOptions{MetricsRecorder: recorder}))
	go s.Serve(socket)
	t.Cleanup(s.Stop)
	return socket.Addr().String()
}

func grpcClient(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func TestGRPCInterop(t *testing.T) {
	w := inClear(t, `protocol = "h2c"`, grpcServer(t))
	cc := grpcClient(t, w.address)
	tc := testgrpc.NewTestServiceClient(cc)
	for name, do := range map[string]func(context.Context){
		"empty_unary":                 func(ctx context.Context) { interop.DoEmptyUnaryCall(ctx, tc) },
		"large_unary":                 func(ctx context.Context) { interop.DoLargeUnaryCall(ctx, tc) },
		"client_streaming":            func(ctx context.Context) { interop.DoClientStreaming(ctx, tc) },
		"server_streaming":            func(ctx context.Context) { interop.DoServerStreaming(ctx, tc) },
		"ping_pong":                   func(ctx context.Context) { interop.DoPingPong(ctx, tc) },
		"empty_stream":                func(ctx context.Context) { interop.DoEmptyStream(ctx, tc) },
		"timeout_on_sleeping_server":  func(ctx context.Context) { interop.DoTimeoutOnSleepingServer(ctx, tc) },
		"cancel_after_begin":          func(ctx context.Context) { interop.DoCancelAfterBegin(ctx, tc) },
		"cancel_after_first_response": func(ctx context.Context) { interop.DoCancelAfterFirstResponse(ctx, tc) },
		"custom_metadata":             func(ctx context.Context) { interop.DoCustomMetadata(ctx, tc) },
		"status_code_and_message":     func(ctx context.Context) { interop.DoStatusCodeAndMessage(ctx, tc) },
		"special_status_message":      func(ctx context.Context) { interop.DoSpecialStatusMessage(ctx, tc) },
		"unimplemented_method":        func(ctx context.Context) { interop.DoUnimplementedMethod(ctx, cc) },
		"unimplemented_service": func(ctx context.Context) {
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(cc))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			defer func() {
				if p := recover(); p != nil {
					t.Error(p)
				}
			}()
			do(ctx)
		})
	}
}

// TestGRPCErrorsAreSaidAsStatus: what is answered here is understood as a status of gRPC.
func TestGRPCErrorsAreSaidAsStatus(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	w := inClear(t, `protocol = "h2c"`, nobody.Addr().String())
	tc := testgrpc.NewTestServiceClient(grpcClient(t, w.address))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = tc.EmptyCall(ctx, &testgrpc.Empty{})
	if status.Code(err) != grpccodes.Unavailable || !strings.Contains(err.Error(), "connect") {
		t.Errorf("without a server: %v", err)
	}
}

func TestGRPCTimeout(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1m": time.Millisecond, "20S": 20 * time.Second, "99999999H": -1, "100n": 100, "3u": 3 * time.Microsecond, "2M": 2 * time.Minute,
		"": -1, "S": -1, "1": -1, "1x": -1, "-1S": -1, "123456789S": -1,
	} {
		got, limited := grpcTimeout([]byte(in))
		if !limited {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// h2Server is a server in clear that speaks HTTP/2 alone.
func h2Server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: only}
	go s.Serve(socket)
	t.Cleanup(func() { s.Close() })
	return socket.Addr().String()
}

// An HTTP/1.1 client and one of HTTP/2 get the same of a server that speaks HTTP/2.
func TestHTTP2ToServers(t *testing.T) {
	origin := h2Server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Seen", fmt.Sprint(r.Proto, " ", r.ContentLength, " ", r.Host, " ", r.Header.Get("Te"), r.Header.Get("Connection")))
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		case "/trailers":
			w.Header().Set("Trailer", "X-Sum")
			io.WriteString(w, "body")
			w.Header().Set("X-Sum", "42")
		case "/empty":
			w.WriteHeader(204)
		default:
			hello(w, r)
		}
	})
	c := to(t, `protocol = "h2c"`, origin)
	c.Listener["web"].H2C = true
	w := newWhole(t, c)
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	for name, client := range map[string]*http.Client{
		"HTTP/1.1": w.client,
		"HTTP/2":   {Transport: &http.Transport{DisableCompression: true, Protocols: h2}},
	} {
		t.Run(name, func(t *testing.T) {
			large := strings.Repeat("x", 700<<10)
			for _, c := range []struct {
				method, path string
				body         io.Reader
				length       int
				status       int
				want         string
			}{
				{"GET", "/", nil, 0, 200, "hello\n"},
				{"HEAD", "/", nil, 0, 200, ""},
				{"GET", "/empty", nil, 0, 204, ""},
				{"POST", "/echo", strings.NewReader("four"), 4, 200, "four"},
				{"POST", "/echo", io.MultiReader(strings.NewReader("fo"), strings.NewReader("ur")), -1, 200, "four"},
				{"POST", "/echo", strings.NewReader(large), len(large), 200, large},
				{"POST", "/echo", io.MultiReader(strings.NewReader(large)), -1, 200, large},
			} {
				q, _ := http.NewRequest(c.method, "http://"+w.address+c.path, c.body)
				r, err := client.Do(q)
				if err != nil {
					t.Fatal(c.method, c.path, err)
				}
				got, err := io.ReadAll(r.Body)
				r.Body.Close()
				if err != nil || r.StatusCode != c.status || string(got) != c.want {
					t.Errorf("%s %s: %d, %d bytes, %v", c.method, c.path, r.StatusCode, len(got), err)
				}
				if want := fmt.Sprint("HTTP/2.0 ", c.length, " ", w.address, " trailers"); c.path == "/echo" && r.Header.Get("X-Seen") != want {
					t.Errorf("the server saw %q, want %q", r.Header.Get("X-Seen"), want)
				}
			}
		})
	}
	r, err := (&http.Client{Transport: &http.Transport{Protocols: h2}}).Get("http://" + w.address + "/trailers")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	if string(body) != "body" || r.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%q, trailers %v", body, r.Trailer)
	}
}
