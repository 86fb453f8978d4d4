package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"proxyd/internal/cert"
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/http1"
	"proxyd/internal/dataplane/route"
	"proxyd/internal/dataplane/upstream"
)

// A Question is a request that nobody sends.
type Question struct {
	Method   string
	URL      string   // "http://example.com/path?query"; the scheme may be left out
	Header   []string // "Name: value"
	Client   string   // the peer's address; default 192.0.2.1, of nobody
	Listener string   // default: one with the URL's port, or the first
}

// An Explanation is what the data plane does with a request. It is what hactl prints as
// JSON.
type Explanation struct {
	Config      string          `json:"config"`            // hash
	Version     uint64          `json:"version,omitempty"` // among those of this process, as in proxyd_config_info; of a file there is none
	Node        string          `json:"node"`
	Live        bool            `json:"live"` // servers are as they are now
	Request     string          `json:"request"`
	Peer        string          `json:"peer"`
	Client      string          `json:"client"` // found through trusted proxies
	Listener    string          `json:"listener"`
	Addresses   []string        `json:"addresses"`             // of the listener
	Speaks      string          `json:"speaks"`                // the listener: http or https
	Mismatch    string          `json:"mismatch,omitempty"`    // what becomes of a client that speaks as the URL says, where that is another way
	Connections *Connections    `json:"connections"`           // null: of a file
	Cert        string          `json:"certificate,omitempty"` // that a client of a listener with tls gets now
	Refused     string          `json:"refused,omitempty"`     // why it is no request that is routed
	Scheme      string          `json:"scheme,omitempty"`      // that the client asked in, as far as is known here
	Host        string          `json:"host"`
	Port        string          `json:"port,omitempty"` // that the client asked for, or its scheme's
	Path        string          `json:"path"`           // in its normal form
	Query       string          `json:"query,omitempty"`
	Route       *RouteVerdict   `json:"route"` // null: none
	Others      []RouteVerdict  `json:"others"`
	Policies    []string        `json:"policies"`
	Closed      *Closed         `json:"closed"` // by an operator, for maintenance; null: it serves
	Stages      []filter.Stage  `json:"stages"` // what is done, in its order
	Pool        string          `json:"pool,omitempty"`
	Balance     string          `json:"balance,omitempty"`
	Split       map[string]int  `json:"split,omitempty"`
	Hash        string          `json:"hash,omitempty"`   // what balance = "hash" goes by
	Cookie      string          `json:"cookie,omitempty"` // what the cookie of a sticky pool says
	Drawn       bool            `json:"drawn"`            // chance decides between the servers
	Waits       bool            `json:"waits"`            // in the pool's queue, until one has room
	Servers     []ServerVerdict `json:"servers"`
	Status      int             `json:"status,omitempty"` // of an answer made here; 444: closed without one
	Reason      string          `json:"reason,omitempty"` // of that answer, as in the access log
	Answer      []string        `json:"answer"`           // its fields
	Sends       []string        `json:"sends"`            // the head that the server gets
}

// Connections are those of the peer's address now.
type Connections struct {
	Open   int  `json:"open"`
	Most   int  `json:"most"`   // that it may have; 0: as many as it likes
	Barred bool `json:"barred"` // it has flooded, and may have no new one
}

// Closed is the maintenance of a route.
type Closed struct {
	Status  int  `json:"status"`  // that others get
	Allowed bool `json:"allowed"` // this client is let through
}

// A RouteVerdict is what was thought of one route.
type RouteVerdict struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Matches bool   `json:"matches"`
	Host    bool   `json:"host"` // it is for the request's listener and host
	Why     string `json:"why"`

	index int
}

// A ServerVerdict is a server that the request may go to.
type ServerVerdict struct {
	Name   string `json:"name"`
	State  string `json:"state"`             // as in hactl pools; of a file: up, or unknown
	Why    string `json:"why,omitempty"`     // it is not up
	Weight int    `json:"weight"`            // in force
	Wanted int    `json:"configured_weight"` // another one if an operator overrides it
	Backup bool   `json:"backup"`
	Active int64  `json:"active"` // exchanges in progress
	Chosen bool   `json:"chosen"` // it would be the next
}

// A BadQuestion is a Question that is none.
type BadQuestion struct{ error }

func badQuestion(format string, args ...any) error {
	return BadQuestion{fmt.Errorf(format, args...)}
}

// Explain tells what a Plane with that configuration would do with a request. It opens
// nothing and asks no server.
func Explain(c *config.Config, q Question) (*Explanation, error) {
	s, err := compile(c, nil, Steering{}, nil, 0, nil, filter.Env{Node: c.Node.Name, Now: time.Now, Coders: new(filter.Coders)})
	if err != nil {
		return nil, err
	}
	disk := cert.ThisDisk()
	p := &Plane{opt: Options{Now: time.Now, Disk: disk}, answers: newAnswers(), conns: newConns(), tls: &handshakes{certs: cert.NewStore(disk, slog.New(slog.DiscardHandler))}}
	return p.explain(s, q, false)
}

// Explain tells what is done with such a request now. It is not counted, and takes no place
// on a server.
func (p *Plane) Explain(q Question) (*Explanation, error) {
	s := p.current.Load()
	if s == nil {
		return nil, errors.New("no configuration is in force")
	}
	return p.explain(s, q, true)
}

func (p *Plane) explain(s *snapshot, q Question, live bool) (*Explanation, error) {
	x, head, err := s.fabricate(q)
	if err != nil {
		return nil, err
	}
	e := &Explanation{
		Config: s.conf.Hash, Node: s.conf.Node.Name, Live: live, Request: q.Method + " " + q.URL,
		Others: []RouteVerdict{}, Policies: []string{}, Stages: []filter.Stage{}, Servers: []ServerVerdict{}, Answer: []string{}, Sends: []string{},
		Peer: x.Client.Addr().String(), Client: x.Client.Addr().String(),
		Listener: x.Listener.Name, Addresses: s.addresses(x.Listener.Name), Speaks: "http",
	}
	if x.TLS != nil {
		e.Speaks = "https"
	}
	if live {
		e.Version, e.Connections = s.generation, p.connectionsOf(s, x.Client.Addr().Unmap())
	}
	if n, err := http1.ParseRequest(head, &x.Request, http1.LimitsOf(&x.Listener.Limits)); err != nil || n != len(head) {
		e.Refused = "not a whole request head"
		var m *dataplane.Malformed
		if errors.As(err, &m) {
			e.Status, e.Reason, e.Refused = m.Status, m.Reason, m.Error()
		}
		e.Mismatch = mismatch(q.URL, e.Speaks, e.Speaks)
		return e, nil
	}
	r := &x.Request
	e.Host, e.Path, e.Query = string(r.Host), string(r.Path), string(r.Query)
	if x.TLS != nil {
		e.Cert = p.certificateFor(s.conf, e.Host, live)
	}
	s.origin(x)
	e.Scheme = string(x.Mark.Scheme)
	e.Port = cmp.Or(string(r.Port), portOf(e.Scheme))
	e.Mismatch = mismatch(q.URL, e.Speaks, e.Scheme)
	from := route.From{Client: x.Mark.ClientIP, Trusted: s.trusts(x.Client.Addr().Unmap())}
	e.Client = from.Client.String()
	s.verdicts(e, x, from)

	p.choose(x, s)
	_, taken := of(x)
	if taken == s.toHTTPS[x.Listener.Name] { // whatever the routes are
		e.Route, e.Others = nil, []RouteVerdict{}
		e.Stages = append(e.Stages, filter.Stage{Name: "redirect", Does: "to https, as the listener says"})
	}
	e.Policies = append(e.Policies, taken.policies...)
	if e.Route != nil {
		conf := s.conf.Route[e.Route.index]
		e.Split, e.Stages = conf.Split, taken.stages(conf)
	}
	if c := taken.closed.Load(); c != nil {
		e.Closed = &Closed{c.answer.status, c.lets(from.Client)}
	}
	v := p.prepare(x, s, taken, true)
	if v == dataplane.Next {
		v = p.explainPool(e, s, x, taken)
	}
	if v != dataplane.Next {
		if v == dataplane.Answer {
			p.finish(x, s, taken)
		}
		closeBody(&x.Response)
		e.Status, e.Reason = x.Response.Status, x.Mark.Reason
		for _, f := range x.Response.Header {
			e.Answer = append(e.Answer, string(f.Name)+": "+string(f.Value))
		}
		return e, nil
	}
	e.Sends = strings.Split(strings.TrimRight(string(http1.AppendRequest(nil, r)), "\r\n"), "\r\n")
	return e, nil
}

// addresses are those of a listener, as the configuration has them.
func (s *snapshot) addresses(listener string) []string {
	if l := s.conf.Listener[listener]; l != nil {
		return slices.Clone(l.Address)
	}
	return []string{defaultAddress}
}

// portOf is the port of URLs that name none.
func portOf(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// mismatch says what becomes of a client that does what the URL says, where the listener
// speaks otherwise. A trusted proxy may well have been asked in another scheme than it asks us.
func mismatch(url, speaks, asked string) string {
	scheme, _, found := strings.Cut(url, "://")
	if !found || scheme == speaks || scheme == asked {
		return ""
	}
	word := "cleartext"
	if speaks == "http" {
		word = "tls"
	}
	return fmt.Sprintf("the listener speaks %s: a client that speaks %s there is answered 400 (%s); what follows is of one that speaks %s", speaks, scheme, word, speaks)
}

// connectionsOf tells how many connections a peer has and may have.
func (p *Plane) connectionsOf(s *snapshot, peer netip.Addr) *Connections {
	c := &Connections{Open: p.conns.of(peer)}
	if !s.trusts(peer) {
		c.Most, c.Barred = s.conf.Limits.ConnsPerIP, p.floods.barred(peer, p.opt.Now())
	}
	return c
}

// certificateFor says which certificate a client that asks for a host gets now. Of a file it
// is one of those that the file names.
func (p *Plane) certificateFor(conf *config.Config, host string, live bool) string {
	set := p.tls.certs.Set()
	if !live {
		if slices.ContainsFunc(conf.Ordered, func(name string) bool { return covers(name, host) }) {
			return "by ACME: a file does not say whether it has come"
		}
		var err error
		if set, err = p.opt.Disk.LoadAll(pairsOf(conf)); err != nil {
			return "not known: " + err.Error()
		}
	}
	found := set.Find(host)
	if len(found) == 0 {
		return "none: the handshake fails"
	}
	c := found[0]
	text := fmt.Sprintf("%s (%s, %s", c.Subject, c.Source(), c.Issuer)
	if left := c.NotAfter.Sub(p.opt.Now()); left > 0 {
		text += fmt.Sprintf(", %d d left)", int(left.Hours()/24))
	} else {
		text += ", expired)"
	}
	return text
}

// covers reports whether a certificate for a name, which may be a wildcard, is one for a host.
func covers(name, host string) bool {
	if rest, wild := strings.CutPrefix(name, "*"); wild {
		label, found := strings.CutSuffix(host, rest)
		return found && label != "" && !strings.Contains(label, ".")
	}
	return name == host
}

// closeBody closes what an answer that nobody gets would be read from.
func closeBody(r *dataplane.Response) {
	if r.File != nil {
		r.File.File.Close()
	}
	if r.Read != nil {
		r.Read.Close()
	}
}

// verdicts tells of each route why it is taken or not.
func (s *snapshot) verdicts(e *Explanation, x *dataplane.Exchange, from route.From) {
	taken, all := s.table.Explain(x.Listener.Name, &x.Request, from)
	for _, v := range all {
		conf := s.conf.Route[v.Index]
		rv := RouteVerdict{Name: conf.Name, File: conf.File, Line: conf.Line, Matches: v.Matches, Host: v.Host, Why: cmp.Or(v.Less, v.Why), index: v.Index}
		if v.Index == taken {
			e.Route = &rv
		} else {
			e.Others = append(e.Others, rv)
		}
	}
}

// explainPool tells which server x goes to, and lets x be as it is sent. If there is none
// x is answered.
func (p *Plane) explainPool(e *Explanation, s *snapshot, x *dataplane.Exchange, r *compiledRoute) dataplane.Verdict {
	e.Pool, e.Balance = r.Pool, cmp.Or(r.pool.Config.Balance, "round_robin")
	now := p.opt.Now()
	e.Hash, e.Cookie = r.pool.Grounds(&x.Request, x.Mark.ClientIP, now)
	kept, _ := r.pool.Kept(&x.Request, now)
	next, err := r.pool.Peek(upstream.Ask{Now: now, Hash: r.pool.Hash(&x.Request, x.Mark.ClientIP), Keep: kept})
	servers := r.pool.Servers()
	unknown := !e.Live && slices.ContainsFunc(servers, func(s *upstream.Server) bool { return !s.Addr().IsValid() })
	if unknown {
		next, err = nil, nil
	}
	for i, server := range servers {
		v := ServerVerdict{Name: server.Name, Active: server.Active.Load(), Chosen: server == next, Wanted: s.conf.Pool[r.Pool].Server[i].Weight}
		if v.State, v.Why = server.State(); !e.Live && !server.Addr().IsValid() {
			v.State, v.Why = "unknown", "no name is looked up for a file"
		}
		v.Weight, v.Backup = r.pool.Weight(server)
		e.Servers = append(e.Servers, v)
	}
	switch q := r.pool.Config.Queue; {
	case err == upstream.ErrFull && q != nil && r.pool.QueueLength() < int64(q.Size):
		e.Waits = true
	case err == upstream.ErrFull:
		return p.refuseFull(x, r, "queue_full")
	case err != nil:
		return p.refuse(x, "no_server")
	}
	if e.Drawn = next == nil && !unknown && !e.Waits; next == nil {
		next = servers[0] // it is sent what the others would be
	}
	r.send(x, next)
	return dataplane.Next
}

// stages lists what is done with the requests of a route and their answers, in that order.
func (r *compiledRoute) stages(conf *config.Route) []filter.Stage {
	stages := []filter.Stage{{Name: "strip", Does: "hop-by-hop fields and what former hops say"}}
	if r.vouched {
		stages = append(stages, filter.Stage{Name: "client_cert", Does: "403 without a certificate by client_ca of the listener, 421 on a connection for another host"})
	}
	if c := r.closed.Load(); c != nil {
		stages = append(stages, filter.Stage{Name: "maintenance", Does: fmt.Sprintf("%d but for those let through", c.answer.status)})
	}
	if r.slashes {
		stages = append(stages, filter.Stage{Name: "encoded_slash", Does: "400 for a path with %2F"})
	}
	ofAnswer := slices.IndexFunc(r.filters.Stages, func(f filter.Stage) bool { return f.Answer })
	if ofAnswer < 0 {
		ofAnswer = len(r.filters.Stages)
	}
	stages = append(stages, r.filters.Stages[:ofAnswer]...)
	if conf.StripPrefix != "" {
		stages = append(stages, filter.Stage{Name: "strip_prefix", Does: conf.StripPrefix})
	}
	if conf.Rewrite != nil {
		stages = append(stages, filter.Stage{Name: "rewrite", Does: conf.Rewrite.From + " to " + conf.Rewrite.To})
	}
	switch {
	case r.answer != nil:
		stages = append(stages, filter.Stage{Name: "respond", Does: fmt.Sprint(r.answer.status)})
	case r.redirect != nil:
		stages = append(stages, filter.Stage{Name: "redirect", Does: fmt.Sprintf("%d to %s", r.redirect.status, conf.Redirect.To)})
	case r.files != nil:
		stages = append(stages, filter.Stage{Name: "files", Does: conf.Files.Root})
	default:
		stages = append(stages, filter.Stage{Name: "forwarded fields"})
		if r.buffers {
			stages = append(stages, filter.Stage{Name: "buffer", Does: fmt.Sprintf("bodies up to %d bytes", r.Buffer)})
		}
		if r.mirror != nil {
			stages = append(stages, filter.Stage{Name: "mirror", Does: fmt.Sprintf("%d%% to %s", r.mirror.percent, r.mirror.pool)})
		}
		does := ""
		if r.pool.Secure() != nil {
			does = "by TLS"
		}
		stages = append(stages, filter.Stage{Name: "pool", Does: does})
	}
	if stages = append(stages, r.filters.Stages[ofAnswer:]...); r.Log {
		stages = append(stages, filter.Stage{Name: "log", Answer: true})
	}
	return stages
}

// fabricate makes the exchange of a question and the head that the client would send.
func (s *snapshot) fabricate(q Question) (*dataplane.Exchange, []byte, error) {
	scheme, rest, ok := strings.Cut(q.URL, "://")
	if !ok {
		scheme, rest = "http", q.URL
	}
	if scheme != "http" && scheme != "https" {
		return nil, nil, badQuestion("%q: want an http or https URL", q.URL)
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	host, target := rest[:end], rest[end:]
	if target == "" || target[0] != '/' && target[0] != '*' {
		target = "/" + target
	}
	head := q.Method + " " + target + " HTTP/1.1\r\n"
	if !slices.ContainsFunc(q.Header, func(line string) bool { return strings.HasPrefix(strings.ToLower(line), "host:") }) {
		head += "Host: " + host + "\r\n"
	}
	for _, line := range q.Header {
		head += line + "\r\n"
	}
	if strings.ContainsAny(q.Method+target+host+strings.Join(q.Header, ""), "\r\n") {
		return nil, nil, badQuestion("a line feed in the request")
	}
	client, err := netip.ParseAddr(cmp.Or(q.Client, "192.0.2.1"))
	if err != nil {
		return nil, nil, badQuestion("client %q: want an address", q.Client)
	}
	l, err := s.listenerFor(q.Listener, host, scheme)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	x := &dataplane.Exchange{Listener: l, Client: netip.AddrPortFrom(client, 40000), Replayable: true, Times: dataplane.Times{Start: now, Head: now}}
	if s.shakes(l.Name) {
		x.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: host}
		if name, _, err := net.SplitHostPort(host); err == nil {
			x.TLS.ServerName = name
		}
	}
	return x, []byte(head + "\r\n"), nil
}

// listenerFor returns the listener of that name, or the one that the URL's port leads to. Where
// none has that port, as behind a port that is forwarded, it is the one that speaks the URL's scheme.
func (s *snapshot) listenerFor(name, host, scheme string) (*dataplane.Listener, error) {
	all := wanted(s.conf, &listenerSet{}, nil, nil, nil)
	slices.SortFunc(all, func(a, b *door) int {
		return cmp.Or(strings.Compare(a.listener.Name, b.listener.Name), strings.Compare(a.address, b.address))
	})
	port := portOf(scheme)
	if _, given, err := net.SplitHostPort(host); err == nil && given != "" {
		port = given
	}
	var names, speak []string
	var last *dataplane.Listener
	for _, d := range all {
		l := d.listener
		if l.Name == name || name == "" && strings.HasSuffix(d.address, ":"+port) {
			return l, nil
		}
		if names = append(names, l.Name); s.conf.Listener[l.Name].TLS == (scheme == "https") {
			speak, last = append(speak, l.Name), l
		}
	}
	names, speak = slices.Compact(names), slices.Compact(speak)
	switch {
	case name != "":
		return nil, badQuestion("listener %q is not there (there are: %s)", name, strings.Join(names, ", "))
	case len(names) == 1:
		return all[0].listener, nil
	case len(speak) == 1:
		return last, nil
	}
	return nil, badQuestion("no listener has port %s: say which with --listener (there are: %s)", port, strings.Join(names, ", "))
}
