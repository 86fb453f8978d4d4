package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"proxyd/internal/control"
)

// What the reload drill holds open and how often it reloads.
const (
	heldSockets = 500
	reloads     = 1000
	// warmReloads are played before memory is first looked at: buffers and the heap have
	// their size by then.
	warmReloads = 200
	// downloadSize is of the download that lasts until the last reload.
	downloadSize = 64 << 20
)

// changes are the events in which an operator changes a running pair. Nobody may notice.
func changes() []Fault {
	none := Promise{Outage: 100 * time.Millisecond, Failed: 0, Two: AddressLifetime}
	return []Fault{
		{Key: "upgrade", Name: "rolling upgrade of both nodes", Promise: none, Strike: func(ctx context.Context, s *Stage, h *Node) error {
			return upgradeAll(ctx, s, h, "")
		}},
		{Key: "downgrade", Name: "up a release and back again", Promise: none, Strike: downgrade},
		{Key: "voters", Name: "a third voter comes and goes", Promise: none, Strike: voters},
		{Key: "attack", Name: "a stranger plays back and forges", Promise: none, Strike: attack},
		{Key: "deploy", Name: "rolling deploy of three servers", Promise: none, Strike: deploy},
		{Key: "reload", Name: fmt.Sprintf("%d reloads", reloads), Promise: none, Strike: func(ctx context.Context, s *Stage, h *Node) error {
			return reloadAgain(ctx, s, h, heldSockets, reloads)
		}},
	}
}

// deploy replaces each web server by a new process, as an operator's script does.
func deploy(ctx context.Context, s *Stage, holder *Node) error {
	for _, web := range s.webs {
		name := fmt.Sprintf("web/%s:%d", web.Addr, webPort)
		steer := func(mode string, wait time.Duration) error {
			_, err := holder.Client().SteerServer(ctx, control.ServerWish{Server: name, Mode: &mode, WaitMS: wait.Milliseconds()})
			return err
		}
		if err := steer("drain", 10*time.Second); err != nil {
			return fmt.Errorf("drain %s: %w", name, err)
		}
		if err := web.stop(); err != nil {
			return err
		}
		if err := s.serve(web); err != nil {
			return err
		}
		if err := steer("serve", 0); err != nil {
			return fmt.Errorf("undo the drain of %s: %w", name, err)
		}
		// The other nodes' checks may have seen it away; the holder's, too.
		if err := pause(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

// stop kills the processes of a host.
func (h *Host) stop() error {
	h.mu.Lock()
	procs := append([]*Process(nil), h.procs...)
	h.mu.Unlock()
	var errs []error
	for _, p := range procs {
		errs = append(errs, p.Kill())
	}
	return errors.Join(errs...)
}

// reloadAgain reloads a node many times, each time with other routes and another listener,
// while WebSockets and a download through it must not notice, and it may not grow.
func reloadAgain(ctx context.Context, s *Stage, n *Node, sockets, times int) (err error) {
	before, err := os.ReadFile(n.Config)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, replace(n.Config, before))
		_, back := n.Client().Reload(context.WithoutCancel(ctx))
		err = errors.Join(err, back)
	}()
	// To the node's own address: whether the VIP stays where it is shows in the load.
	at := n.Addr.String()
	through := &http.Client{Transport: &http.Transport{DialContext: s.client.dialContext, DisableKeepAlives: true}}
	held, err := openSockets(ctx, through, at, sockets)
	if err != nil {
		return err
	}
	defer held.close()
	d := beginDownload(ctx, through, "http://"+at, downloadSize, 16<<10)
	defer d.cancel()

	var warm sizes
	for i := range times {
		if err := replace(n.Config, otherRoutes(before, i)); err != nil {
			return err
		}
		switch i % 3 { // the third way, node.watch, sees each of them
		case 0:
			_, err = n.Client().Reload(ctx)
		case 1:
			err = n.Reload()
		default:
			if i%99 == 2 {
				err = pause(ctx, 300*time.Millisecond) // so long that the watch acts
			}
		}
		if err != nil {
			return fmt.Errorf("reload %d: %w", i+1, err)
		}
		if i == min(warmReloads, times/2) {
			if warm, err = sizesOf(ctx, n); err != nil {
				return err
			}
		}
	}
	if err := held.all(ctx); err != nil {
		return err
	}
	now, err := sizesOf(ctx, n)
	if err != nil {
		return err
	}
	if err := d.end(ctx); err != nil {
		return err
	}
	return warm.flat(now)
}

// otherRoutes is a configuration with other routes and another listener each time, and a
// listener and routes that stay.
func otherRoutes(before []byte, i int) []byte {
	var b strings.Builder
	b.WriteString(strings.Replace(string(before), "[node]\n", "[node]\nwatch = true\n", 1))
	fmt.Fprintf(&b, "\n[listener.http]\naddress = \":80\"\n[listener.other]\naddress = \":%d\"\n", 8000+i%50)
	for k := range 1 + i%7 {
		fmt.Fprintf(&b, "[[route]]\nname = \"other-%d\"\nhost = \"%d.example.com\"\npool = \"web\"\n", k, i+k)
	}
	return []byte(b.String())
}

// replace puts a file in the place of another.
func replace(name string, text []byte) error {
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// sockets are open WebSockets to the echo of a web server.
type sockets []*websocket.Conn

func openSockets(ctx context.Context, through *http.Client, host string, n int) (sockets, error) {
	var all sockets
	for range n {
		c, _, err := websocket.Dial(ctx, "ws://"+host+"/ws", &websocket.DialOptions{HTTPClient: through})
		if err != nil {
			all.close()
			return nil, fmt.Errorf("open WebSocket %d of %d: %w", len(all)+1, n, err)
		}
		all = append(all, c)
	}
	return all, all.all(ctx)
}

// all asks each of them for an echo.
func (s sockets) all(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	broken := make([]error, len(s))
	var wait sync.WaitGroup
	for i, c := range s {
		wait.Go(func() {
			message := []byte("message " + strconv.Itoa(i))
			if broken[i] = c.Write(ctx, websocket.MessageText, message); broken[i] != nil {
				return
			}
			_, got, err := c.Read(ctx)
			if broken[i] = err; err == nil && string(got) != string(message) {
				broken[i] = fmt.Errorf("%q came back as %q", message, got)
			}
		})
	}
	wait.Wait()
	broken = slices.DeleteFunc(broken, func(err error) bool { return err == nil })
	if len(broken) > 0 {
		return fmt.Errorf("%d of %d WebSockets broke: %w", len(broken), len(s), broken[0])
	}
	return nil
}

func (s sockets) close() {
	for _, c := range s {
		_ = c.CloseNow() // it was seen to work, or what broke it is told
	}
}

// A download is read slowly until it is told to end.
type download struct {
	size, step int64 // of the whole, and of what is read every 20 ms
	cancel     context.CancelFunc
	hurry      chan struct{}
	done       chan error
}

func beginDownload(ctx context.Context, through *http.Client, site string, size, step int64) *download {
	ctx, cancel := context.WithCancel(ctx)
	d := &download{size: size, step: step, cancel: cancel, hurry: make(chan struct{}), done: make(chan error, 1)}
	go func() { d.done <- d.read(ctx, through, site) }() // ends with ctx
	return d
}

func (d *download) read(ctx context.Context, through *http.Client, site string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s/bytes/%d", site, d.size), nil)
	if err != nil {
		return err
	}
	resp, err := through.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	total := int64(0)
	for slow := true; slow; {
		select {
		case <-d.hurry:
			slow = false
		case <-time.After(20 * time.Millisecond):
		}
		n, err := io.CopyN(io.Discard, resp.Body, d.step)
		if total += n; err != nil {
			return fmt.Errorf("the download broke after %d bytes, before it was told to end: %w", total, err)
		}
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if total += n; err != nil || total != d.size {
		return fmt.Errorf("of a download of %d bytes came %d: %v", d.size, total, err)
	}
	return nil
}

// end reads the rest.
func (d *download) end(ctx context.Context) error {
	close(d.hurry)
	select {
	case err := <-d.done:
		return err
	case <-time.After(30 * time.Second):
		return errors.New("the rest of the download did not come within 30 s")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sizes are what a process must not have more and more of.
type sizes struct{ memory, goroutines, files float64 }

func sizesOf(ctx context.Context, n *Node) (sizes, error) {
	// The least of some looks: what is under way comes and goes.
	least := sizes{math.Inf(1), math.Inf(1), math.Inf(1)}
	for range 5 {
		page, err := n.Client().Metrics(ctx)
		if err != nil {
			return least, err
		}
		least.memory = min(least.memory, metric(page, "process_resident_memory_bytes"))
		least.goroutines = min(least.goroutines, metric(page, "go_goroutines"))
		least.files = min(least.files, metric(page, "process_open_fds"))
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return least, err
		}
	}
	return least, nil
}

// flat reports what has grown.
func (s sizes) flat(now sizes) error {
	const mib = 1 << 20
	switch {
	case now.memory > s.memory*1.1+8*mib:
		return fmt.Errorf("memory grew from %.1f to %.1f MiB", s.memory/mib, now.memory/mib)
	case now.goroutines > s.goroutines+20:
		return fmt.Errorf("goroutines grew from %.0f to %.0f", s.goroutines, now.goroutines)
	case now.files > s.files+20:
		return fmt.Errorf("open files grew from %.0f to %.0f", s.files, now.files)
	}
	return nil
}

// metric reads a metric without labels; NaN if it is not there.
func metric(page, name string) float64 {
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64); err == nil {
				return v
			}
		}
	}
	return math.NaN()
}
