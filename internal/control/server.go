package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Bounds of what may be sent in one call, in bytes.
const (
	maxBody = 1 << 20
	maxText = 48 << 20 // of a call that carries a configuration: 16 MiB of text, escaped
)

// Pages are what is shown besides the Operator's answers.
type Pages struct {
	Metrics http.Handler
	// Ready says whether this node can serve, and if not, why not.
	Ready func() (bool, string)
}

// SocketHandler answers everything: what it is served on must let only operators in.
func SocketHandler(op Operator, pages Pages, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	readOnly(mux, op, pages, log)
	mux.HandleFunc("GET /v1/config", text(log, op.Config))
	mux.HandleFunc("GET /v1/certificates", answer(log, func(ctx context.Context, _ struct{}) ([]Certificate, error) { return op.Certificates(ctx) }))
	mux.HandleFunc("POST /v1/certificates/renew", answer(log, op.RenewCertificate))
	mux.HandleFunc("GET /v1/changes", text(log, op.Changes))
	mux.HandleFunc("POST /v1/changes", answerUpTo(maxText, log, op.Edit))
	mux.HandleFunc("POST /v1/reload", answer(log, func(ctx context.Context, _ struct{}) (*Reload, error) { return op.Reload(ctx) }))
	mux.HandleFunc("POST /v1/diff", answerUpTo(maxText, log, op.Diff))
	mux.HandleFunc("POST /v1/apply", answerUpTo(maxText, log, op.Apply))
	mux.HandleFunc("POST /v1/rollback", answer(log, op.Rollback))
	mux.HandleFunc("POST /v1/member", answer(log, op.Member))
	mux.HandleFunc("GET /v1/keys", answer(log, func(ctx context.Context, _ struct{}) (*Keys, error) { return op.Keys(ctx) }))
	mux.HandleFunc("POST /v1/keys/rotate", answer(log, op.RotateKeys))
	mux.HandleFunc("GET /v1/backup", answer(log, func(ctx context.Context, _ struct{}) (*Backup, error) { return op.Backup(ctx) }))
	mux.HandleFunc("GET /v1/generations", answer(log, func(ctx context.Context, _ struct{}) ([]Generation, error) { return op.Generations(ctx) }))
	mux.HandleFunc("POST /v1/failover", answer(log, op.Failover))
	mux.HandleFunc("POST /v1/upgrade", lasting(answer(log, op.Upgrade)))
	mux.HandleFunc("POST /v1/explain", answer(log, op.Explain))
	mux.HandleFunc("POST /v1/server", answer(log, op.SteerServer))
	mux.HandleFunc("POST /v1/node", answer(log, op.SteerNode))
	mux.HandleFunc("POST /v1/pause", answer(log, op.Pause))
	mux.HandleFunc("POST /v1/route", answer(log, op.SteerRoute))
	mux.HandleFunc("POST /v1/history", answer(log, op.History))
	mux.HandleFunc("POST /v1/why", answer(log, op.Why))
	mux.HandleFunc("POST /v1/doctor", answer(log, func(ctx context.Context, _ struct{}) (*Doctor, error) { return op.Doctor(ctx) }))
	mux.HandleFunc("POST /v1/simulate", answer(log, op.Simulate))
	mux.HandleFunc("GET /v1/watch", lasting(stream(log, op.Watch)))
	return mux
}

// connKey is by which a call's context has the connection that it came on.
type connKey struct{}

// lasting makes a handler of a call of which nobody may wait for the end: a connection that has a
// method Lasts is told so.
func lasting(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(interface{ Lasts() }); ok {
			c.Lasts()
		}
		h(w, r)
	}
}

// text makes a handler of a call that gives TOML.
func text(log *slog.Logger, call func(context.Context) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out, err := call(r.Context())
		if err != nil {
			fail(w, err, log)
			return
		}
		w.Header().Set("Content-Type", "application/toml")
		// The peer may be gone; there is nobody left to tell.
		_, _ = io.WriteString(w, out)
	}
}

// PublicHandler answers what is safe to show to anyone who can reach the address:
// metrics, health, status. It changes nothing. Host must be an address literal or
// localhost, so that no web page can read it by DNS rebinding.
func PublicHandler(op Operator, pages Pages, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	readOnly(mux, op, pages, log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !literal(r.Host) {
			http.Error(w, "the admin address is reached by address, not by name", http.StatusMisdirectedRequest)
			return
		}
		bounded(mux).ServeHTTP(w, r)
	})
}

// pageTime is how long whoever reached a TCP address may take for one page. There is room
// for a few at once, and who stops reading must not keep the others out for ever.
const pageTime = 30 * time.Second

// bounded gives each call pageTime.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What has no deadlines is no connection, and nobody holds it.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(pageTime))
		h.ServeHTTP(w, r)
	})
}

// MetricsHandler answers metrics and health alone, for the scrapers and checkers of other
// hosts, under whatever name they know this one by.
func MetricsHandler(pages Pages) http.Handler {
	mux := http.NewServeMux()
	health(mux, pages)
	return bounded(mux)
}

func readOnly(mux *http.ServeMux, op Operator, pages Pages, log *slog.Logger) {
	health(mux, pages)
	mux.HandleFunc("GET /v1/status", answer(log, func(ctx context.Context, _ struct{}) (*Status, error) { return op.Status(ctx) }))
	mux.HandleFunc("GET /v1/pools", answer(log, func(ctx context.Context, _ struct{}) ([]Pool, error) { return op.Pools(ctx) }))
	mux.HandleFunc("GET /v1/version", answer(log, func(ctx context.Context, _ struct{}) (*Version, error) { return op.Version(ctx) }))
}

// health adds the pages of which machines are the readers.
func health(mux *http.ServeMux, pages Pages) {
	mux.Handle("GET /metrics", pages.Metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ok, why := pages.Ready(); !ok {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready\n")
	})
}

// answer makes a handler of one call: JSON in (an empty body is the zero value), JSON out.
func answer[In, Out any](log *slog.Logger, call func(context.Context, In) (Out, error)) http.HandlerFunc {
	return answerUpTo(maxBody, log, call)
}

// answerUpTo is answer for a body of at most limit bytes.
func answerUpTo[In, Out any](limit int64, log *slog.Logger, call func(context.Context, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil && !errors.Is(err, io.EOF) {
			fail(w, Invalid(fmt.Sprintf("request body: %v", err)), log)
			return
		}
		out, err := call(r.Context(), in)
		if err != nil {
			fail(w, err, log)
			return
		}
		reply(w, http.StatusOK, out)
	}
}

func fail(w http.ResponseWriter, err error, log *slog.Logger) {
	f, status := failure{Error: err.Error(), Kind: "error"}, http.StatusInternalServerError
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			f.Kind, status = k.word, k.status
		}
	}
	if status == http.StatusInternalServerError {
		log.Error("admin call", "error", err)
	}
	reply(w, status, f)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The peer may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(body)
}

func literal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return host == "localhost" || net.ParseIP(host) != nil
}

// ListenSocket opens the admin socket at path with mode 0660, for the group "proxyd" if
// there is one. A socket left behind by a dead process is replaced; one that answers
// is an error.
func ListenSocket(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("admin socket %s: another proxyd answers there", path)
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("admin socket %s: %w", path, err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if g, err := user.LookupGroup("proxyd"); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			// Without the right to give it to the group it stays with ours.
			_ = os.Chown(path, -1, gid)
		}
	}
	return l, nil
}

// sendTime is how long whoever connected may take to say what is asked for.
const sendTime = 5 * time.Second

// Serve answers on l until ctx ends, one call on each connection: a client that keeps one has it
// reset if its next call and our end meet. It returns after the calls in progress have ended,
// those too of who has connected and is yet to ask, or a little more than that has passed.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: sendTime, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // so that streams end with it
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	s.SetKeepAlivesEnabled(false)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }() // ends with Shutdown
	select {
	case err := <-done:
		if ctx.Err() == nil {
			return err
		}
	case <-ctx.Done():
		// Accepting ends first: Shutdown waits only for the calls that the server knows of.
		l.Close()
		<-done
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTime+time.Second)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		s.Close()
	}
	return nil
}
