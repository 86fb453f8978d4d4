package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"proxyd/internal/baton"
	"proxyd/internal/clock"
	"proxyd/internal/config"
	"proxyd/internal/control"
)

// An admin is where operators and their tools reach this node: the socket, which stays for
// life, and the TCP addresses, which a reload may move. node.mu guards it once it is open.
type admin struct {
	log      *slog.Logger
	from     *predecessor
	gate     *gate  // before all of them
	path     string // of the socket
	socket   net.Listener
	unsocket context.CancelFunc // ends the service of socket
	life     context.Context    // ends all of them
	parts    *sync.WaitGroup
	handlers map[string]http.Handler // by key of the configuration
	doors    map[string]*adminDoor   // likewise; those that are open
}

// An adminDoor is one open TCP address.
type adminDoor struct {
	address  string // as configured
	listener net.Listener
	stop     context.CancelFunc
}

// openAdmin opens the admin socket and, if they are wanted, the read-only TCP addresses.
func (n *node) openAdmin(life context.Context, parts *sync.WaitGroup, c config.Admin) error {
	pages := control.Pages{
		Metrics: promhttp.HandlerFor(n.metrics, promhttp.HandlerOpts{
			ErrorHandling:       promhttp.ContinueOnError,
			EnableOpenMetrics:   true, // exemplars have no place in the older form
			MaxRequestsInFlight: maxScrapes,
		}),
		Ready: n.ready,
	}
	socket, err := n.from.listenSocket(c.Socket)
	if err != nil {
		return err
	}
	n.admin = &admin{
		log: n.log, from: n.from, gate: newGate(n.from == nil), path: c.Socket, life: life, parts: parts, doors: map[string]*adminDoor{},
		handlers: map[string]http.Handler{
			"admin.socket":  control.SocketHandler(n, pages, n.log),
			"admin.listen":  control.PublicHandler(n, pages, n.log),
			"admin.metrics": control.MetricsHandler(pages),
		},
	}
	n.admin.openSocket(socket)
	settle, err := n.admin.move(c)
	if err == nil {
		settle(true)
	}
	return err
}

// openSocket serves the admin socket.
func (a *admin) openSocket(l net.Listener) {
	ctx, stop := context.WithCancel(a.life)
	a.socket, a.unsocket = a.gate.guard(l), stop
	a.serve(ctx, a.socket, a.handlers["admin.socket"])
}

// socketEvery is how often the admin socket is looked for.
const socketEvery = time.Second

// followSocket makes the admin socket anew when somebody has removed it, as one does who
// cleans up below /run, until ctx ends: nobody else could reach this node any more.
func (n *node) followSocket(ctx context.Context) {
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(clock.Next(socketEvery)):
		}
		n.mu.Lock()
		err := n.renewSocket()
		n.mu.Unlock()
		if err != nil && err.Error() != said {
			said = err.Error()
			n.log.Error("the admin socket was removed and cannot be made again", "error", err)
		}
	}
}

// renewSocket makes the admin socket anew if it is not there. n.mu is held.
func (n *node) renewSocket() error {
	a := n.admin
	if _, err := os.Lstat(a.path); n.succeeding || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := control.ListenSocket(a.path)
	if err != nil {
		return err
	}
	if u, ok := bare(a.socket).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is that of the new one
	}
	a.unsocket()
	a.openSocket(l)
	a.log.Warn("the admin socket was removed by somebody else; made anew", "path", a.path)
	return nil
}

// move opens the addresses that c has anew. Those that it has no more are closed when the
// caller settles for c, or the new ones if it does not. On error all is as before.
func (a *admin) move(c config.Admin) (settle func(take bool), err error) {
	wanted := map[string]string{"admin.listen": c.Listen, "admin.metrics": c.Metrics}
	stale, fresh := map[string]*adminDoor{}, map[string]*adminDoor{}
	aside := false // the stale ones were in the way, and are closed
	for key, d := range a.doors {
		if d.address != wanted[key] {
			stale[key] = d
		}
	}
	settle = func(take bool) {
		if take {
			for key, d := range stale {
				d.close()
				delete(a.doors, key)
			}
			for key, d := range fresh {
				a.open(key, d)
			}
			return
		}
		for _, d := range fresh {
			d.listener.Close()
		}
		for key, d := range stale {
			if !aside {
				break
			}
			if d.listener, err = net.Listen("tcp", d.address); err != nil {
				a.log.Error("an admin address is lost", "key", key, "address", d.address, "error", err)
				delete(a.doors, key)
				continue
			}
			a.open(key, d)
		}
	}
	for key, address := range wanted {
		if d := a.doors[key]; address == "" || d != nil && d.address == address {
			continue
		}
		l, err := a.from.listenTCP(address)
		if errors.Is(err, syscall.EADDRINUSE) && len(stale) > 0 && !aside {
			for _, d := range stale {
				d.close()
			}
			aside = true
			l, err = net.Listen("tcp", address)
		}
		if err != nil {
			settle(false)
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		fresh[key] = &adminDoor{address: address, listener: l}
	}
	return settle, nil
}

// open serves a door whose listener is open.
func (a *admin) open(key string, d *adminDoor) {
	ctx, stop := context.WithCancel(a.life)
	d.listener, d.stop = a.gate.guard(d.listener), stop
	a.doors[key] = d
	a.serve(ctx, d.listener, a.handlers[key])
}

// close frees the address at once; calls in progress end.
func (d *adminDoor) close() {
	d.stop()
	d.listener.Close()
}

// serve answers on l until ctx ends.
func (a *admin) serve(ctx context.Context, l net.Listener, h http.Handler) {
	a.parts.Go(func() {
		if err := control.Serve(ctx, l, h); err != nil && ctx.Err() == nil {
			a.log.Error("admin", "address", l.Addr(), "error", err)
		}
	})
}

// sockets returns copies of all open ones, for the process that takes this one's place.
func (a *admin) sockets() ([]baton.File, error) {
	listeners := map[string]net.Listener{adminSocket + " " + a.path: a.socket}
	for _, d := range a.doors {
		listeners[adminPrefix+d.address] = d.listener
	}
	var files []baton.File
	for name, l := range listeners {
		c, ok := bare(l).(syscall.Conn)
		if !ok {
			continue
		}
		f, err := baton.Copy(name, c)
		if err != nil {
			baton.CloseFiles(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// keepSocket has the admin socket's path stay when this process closes it: another one
// listens there. It comes before the end of what serves it, which closes it.
func (a *admin) keepSocket() {
	if u, ok := bare(a.socket).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

// leave closes the sockets for this process alone: another one has them too.
func (a *admin) leave() {
	a.socket.Close()
	for _, d := range a.doors {
		d.listener.Close()
	}
}
