package lab

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Resume drill kills the holder of a VIP of whose HTTPS clients each has a session, and has
// all of them come back to the node that took over. Nearly all must resume theirs there: a full
// handshake of every client at once is what a node that has just taken over needs least.
type Resume struct {
	Plan    Plan
	Rounds  int // failovers
	Clients int // of each version of TLS; 0: 200
	Out     io.Writer
}

// resumePromise is the share of handshakes that resume a session after a failover.
const resumePromise = 0.95

// Resumed is what one version of TLS came to in all rounds.
type Resumed struct {
	Version uint16
	Asked   int     // clients that came back
	Resumed int     // of them those that were had with the session of the node that died
	Failed  []error // why others were not had at all
}

// share is the part of the clients that resumed; one that failed did not.
func (r *Resumed) share() float64 {
	if r.Asked == 0 {
		return 0
	}
	return float64(r.Resumed) / float64(r.Asked)
}

// Run plays all rounds and returns an error if a promise was not kept.
func (d Resume) Run(ctx context.Context) error {
	d.Rounds, d.Clients = cmp.Or(d.Rounds, 5), cmp.Or(d.Clients, 200)
	p := d.Plan
	p.Secure = true
	rig, err := NewRig(p, LoadSpec{Rate: 100, Deadline: 3 * time.Second})
	if err != nil {
		return err
	}
	defer rig.Close()
	if err := rig.Stage.Start(ctx, patience); err != nil {
		return err
	}
	all := []*Resumed{{Version: tls.VersionTLS13}, {Version: tls.VersionTLS12}}
	for round := range d.Rounds {
		if err := d.play(ctx, rig, all); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		for _, r := range all {
			fmt.Fprintf(d.Out, "%d/%d  %s: %d of %d resumed, %d failed so far\n", round+1, d.Rounds, tls.VersionName(r.Version), r.Resumed, r.Asked, len(r.Failed))
		}
	}
	return d.report(all)
}

// report prints the table and judges it.
func (d Resume) report(all []*Resumed) error {
	t := Table{Head: []string{"version", "failovers", "clients", "resumed", "failed", "share", "promise"}}
	var broken []error
	for _, r := range all {
		t.Add(tls.VersionName(r.Version), fmt.Sprint(d.Rounds), fmt.Sprint(r.Asked), fmt.Sprint(r.Resumed), fmt.Sprint(len(r.Failed)),
			fmt.Sprintf("%.1f %%", 100*r.share()), fmt.Sprintf(">= %.0f %%", 100*resumePromise))
		if r.share() < resumePromise {
			broken = append(broken, fmt.Errorf("%s: %d of %d clients resumed their sessions: %w at least %.0f %%",
				tls.VersionName(r.Version), r.Resumed, r.Asked, ErrPromise, 100*resumePromise), errors.Join(r.Failed...))
		}
	}
	if err := t.WriteText(d.Out); err != nil {
		return err
	}
	return errors.Join(broken...)
}

// play has one failover.
func (d Resume) play(ctx context.Context, rig *Rig, all []*Resumed) error {
	if err := rig.Steady(ctx, patience); err != nil {
		return err
	}
	holder := rig.Holder()
	if holder == nil {
		return fmt.Errorf("nobody alone answers for %s", rig.Stage.VIP)
	}
	at := netip.AddrPortFrom(rig.Stage.VIP, 443)
	clients := make([][]*tls.Config, len(all))
	for i, r := range all {
		for range d.Clients {
			// Each has a memory of its own, with nothing in it yet.
			clients[i] = append(clients[i], &tls.Config{InsecureSkipVerify: true, ServerName: benchHost,
				MinVersion: r.Version, MaxVersion: r.Version, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
		}
		resumed, failed := visit(ctx, rig.Stage.client.space, at, clients[i])
		if len(failed) > 0 || resumed > 0 {
			return fmt.Errorf("%s: of %d clients that were new %d resumed and %d failed: %w",
				tls.VersionName(r.Version), d.Clients, resumed, len(failed), errors.Join(failed...))
		}
	}
	if err := holder.Kill(); err != nil {
		return err
	}
	err := within(ctx, patience, "another node to hold "+rig.Stage.VIP.String(), func() (bool, error) {
		now := rig.Holder()
		return now != nil && now != holder, notYet{errors.New("nobody alone does")}
	})
	if err != nil {
		return err
	}
	for i, r := range all {
		resumed, failed := visit(ctx, rig.Stage.client.space, at, clients[i])
		r.Asked, r.Resumed, r.Failed = r.Asked+d.Clients, r.Resumed+resumed, append(r.Failed, failed...)
	}
	return rig.Stage.Mend()
}

// visitAtOnce is how many clients come at once.
const visitAtOnce = 16

// visit has every client make a request on a connection of its own, and returns how many
// resumed a session.
func visit(ctx context.Context, from *Space, at netip.AddrPort, clients []*tls.Config) (resumed int, failed []error) {
	l := newLoader(LoadSpec{Target: at.String(), Deadline: 10 * time.Second}, nil)
	var mu sync.Mutex // guards the results
	each(clients, func(conf *tls.Config) {
		again, err := l.visit(ctx, from, conf)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			failed = append(failed, err)
		} else if again {
			resumed++
		}
	})
	return resumed, failed
}

// each has clients do something, visitAtOnce at a time, and returns when all have.
func each[Client any](clients []Client, do func(Client)) {
	waiting := make(chan Client)
	var all sync.WaitGroup
	for range visitAtOnce {
		all.Go(func() {
			for c := range waiting {
				do(c)
			}
		})
	}
	for _, c := range clients {
		waiting <- c
	}
	close(waiting)
	all.Wait()
}

// visit has one client's request, and reports whether it resumed a session.
func (l *loader) visit(ctx context.Context, from *Space, conf *tls.Config) (resumed bool, err error) {
	var tcp net.Conn
	err = from.Do(func() error {
		var err error
		tcp, err = l.dial(ctx)
		return err
	})
	if err != nil {
		return false, err
	}
	defer tcp.Close()
	conn := tls.Client(tcp, conf)
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		return false, err
	}
	// What a client of TLS 1.3 needs to resume comes before the answer, and is read with it.
	if o := l.exchange(conn, bufio.NewReaderSize(conn, 1024), "Connection: close\r\n\r\n"); o != OK {
		return false, fmt.Errorf("request after the handshake: %v", o)
	}
	return conn.ConnectionState().DidResume, nil
}
