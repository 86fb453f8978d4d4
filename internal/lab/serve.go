package lab

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
)

// Serve is a web server of the stage. It ends when ctx does.
//
//	/               its name
//	/healthz        ok
//	/bytes/N        N bytes, with a Content-Length
//	/chunked/N      N chunks of its name, without one
//	/slow/DURATION  its name, after a while
//	/status/CODE    that status
//	/echo           what was sent
//	/seen           method, target, host and fields of the request as it came, as JSON
//	/ws             a WebSocket that echoes
func Serve(ctx context.Context, name, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: site(name), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }() // ends with Close
	select {
	case <-ctx.Done():
		return s.Close()
	case err := <-ended:
		return err
	}
}

func site(name string) http.Handler {
	hello := []byte(name + "\n")
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(hello)))
		w.Write(hello)
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 {
			http.Error(w, "want a number of bytes", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		io.CopyN(w, pattern{}, n)
	})
	mux.HandleFunc("/chunked/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.PathValue("n"))
		if err != nil || n < 0 {
			http.Error(w, "want a number of chunks", http.StatusBadRequest)
			return
		}
		flush := http.NewResponseController(w)
		for range n {
			w.Write(hello)
			flush.Flush()
		}
	})
	mux.HandleFunc("/slow/{d}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("d"))
		if err != nil {
			http.Error(w, "want a duration", http.StatusBadRequest)
			return
		}
		if pause(r.Context(), d) == nil {
			w.Write(hello)
		}
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "want a status code", http.StatusBadRequest)
			return
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	mux.HandleFunc("/seen", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"server": name, "method": r.Method, "target": r.RequestURI, "host": r.Host, "from": r.RemoteAddr, "header": r.Header,
		})
	})
	mux.HandleFunc("/ws", echo)
	return mux
}

// echo answers every message of a WebSocket with itself until the client closes it.
func echo(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// A pattern never ends; it is made of lines of 64 bytes.
type pattern struct{}

const patternLine = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-\n"

func (pattern) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], patternLine)
	}
	return n, nil
}
