package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"proxyd/internal/baton"
	"proxyd/internal/config"
	"proxyd/internal/control"
)

// An admin is where operators and their tools reach this node: the socket, which stays for
// life, and the TCP addresses, which a reload may move. node.mu guards it once it is open.
type admin struct {
	log      *slog.Logger
	from     *predecessor
	path     string // of the socket
	socket   net.Listener
	life     context.Context // ends all of them
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
		log: n.log, from: n.from, path: c.Socket, socket: socket, life: life, parts: parts, doors: map[string]*adminDoor{},
		handlers: map[string]http.Handler{
			"admin.listen":  control.PublicHandler(n, pages, n.log),
			"admin.metrics": control.MetricsHandler(pages),
		},
	}
	n.admin.serve(life, socket, control.SocketHandler(n, pages, n.log))
	settle, err := n.admin.move(c)
	if err == nil {
		settle(true)
	}
	return err
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
	d.stop = stop
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

// leave closes the sockets for this process alone: another one has them too.
func (a *admin) leave() {
	if u, ok := bare(a.socket).(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	a.socket.Close()
	for _, d := range a.doors {
		d.listener.Close()
	}
}
