package lab

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Browser drill has Chromium load a page through a proxyd, by HTTP/1.1, HTTP/2 and HTTP/3, that
// does what pages do: large downloads and uploads, many requests at once, one given up, a
// stream of events, a WebSocket. All of it is on the loopback of this machine.
type Browser struct {
	Plan  Plan
	Limit time.Duration // of each visit
	Out   io.Writer
}

//go:embed browser.html
var browserPage []byte

// browserWants is what the page has to report, besides the protocol that was spoken.
var browserWants = map[string]string{
	"download": "5000000", "upload": "5000000", "many": "200", "abort": "AbortError", "events": "3", "socket": "50 echoed, closed by 1000",
}

// Run visits the page by each protocol and returns an error that says what went wrong.
func (b Browser) Run(ctx context.Context) error {
	b.Limit = cmp.Or(b.Limit, time.Minute)
	if err := Install(ctx, []string{"chromium"}, b.Out); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	free, err := freeAddresses(2)
	if err != nil {
		return err
	}
	pair, err := writePair(filepath.Join(dir, "pair.pem"), benchHost)
	if err != nil {
		return err
	}
	pin, err := keyPin(pair)
	if err != nil {
		return err
	}
	reports := make(chan map[string]string, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: page(reports), ReadHeaderTimeout: 10 * time.Second}
	defer s.Close()
	go s.Serve(l) // ends with Close

	secure := free[1]
	n := &capped{plan: b.Plan, dir: dir, at: free[0], server: l.Addr().String(), plain: l.Addr().String(),
		more: fmt.Sprintf("[listener.https]\naddress = %q\ntls = true\nhttp3 = true\n[[cert]]\ncert = %q\nkey = %q\n", secure, pair, pair)}
	if err := n.start(0); err != nil {
		return err
	}
	defer n.stop()

	var broken []error
	for _, v := range []struct{ speaks, flag string }{
		{"http/1.1", "--disable-http2"}, {"h2", "--disable-quic"}, {"h3", "--origin-to-force-quic-on=" + secure},
	} {
		visit := func() (map[string]string, error) {
			return b.visit(ctx, filepath.Join(dir, filepath.Base(v.speaks)), "https://"+secure+"/", reports, v.flag, "--ignore-certificate-errors-spki-list="+pin)
		}
		got, err := visit()
		if errors.Is(err, errBrowserEnded) { // now and then it crashes at its start
			fmt.Fprintln(b.Out, err)
			got, err = visit()
		}
		if err != nil {
			broken = append(broken, fmt.Errorf("by %s: %w", v.speaks, err))
			continue
		}
		fmt.Fprintf(b.Out, "by %s:", v.speaks)
		for _, k := range slices.Sorted(maps.Keys(got)) {
			fmt.Fprintf(b.Out, "  %s %s", k, got[k])
		}
		fmt.Fprintln(b.Out)
		for k, want := range browserWants {
			if got[k] != want {
				broken = append(broken, fmt.Errorf("by %s: %s: %q, want %q", v.speaks, k, got[k], want))
			}
		}
		if got["protocol"] != v.speaks {
			broken = append(broken, fmt.Errorf("the browser spoke %q, want %s", got["protocol"], v.speaks))
		}
	}
	return errors.Join(append(broken, n.alive())...)
}

// page is the web server that the page is from.
func page(reports chan<- map[string]string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", site("browser"))
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(browserPage) })
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w)
		for pause(r.Context(), 50*time.Millisecond) == nil {
			io.WriteString(w, "data: x\n\n")
			flush.Flush()
		}
	})
	mux.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		var got map[string]string
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case reports <- got:
		default: // one is enough
		}
	})
	return mux
}

var errBrowserEnded = errors.New("the browser ended")

// visit has the browser load the page and returns what that reports.
func (b Browser) visit(ctx context.Context, profile, url string, reports <-chan map[string]string, flags ...string) (map[string]string, error) {
	log := profile + ".log"
	argv := append([]string{"chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", "--user-data-dir=" + profile}, flags...)
	p, _, err := start(command{name: "chromium", argv: append(argv, url), log: log})
	if err != nil {
		return nil, err
	}
	defer p.Kill()
	ctx, cancel := context.WithTimeout(ctx, b.Limit)
	defer cancel()
	select {
	case got := <-reports:
		return got, nil
	case <-p.Done():
		return nil, fmt.Errorf("%w: %v\n%s", errBrowserEnded, p.Err(), tail(log, 5))
	case <-ctx.Done():
		return nil, fmt.Errorf("no report of the page: %w\n%s", ctx.Err(), tail(log, 5))
	}
}

// keyPin returns how Chromium is told to trust the certificate in file.
func keyPin(file string) (string, error) {
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return "", err
	}
	c, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}
