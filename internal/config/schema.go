// Package config is the language of proxyd.toml: its words, their defaults and the
// rules they must keep. It knows nothing of the rest of the program.
package config

import (
	"net/netip"
	"time"
)

// A Config is one checked configuration with every default filled in. Parse makes it;
// it is read-only from then on and may be shared.
type Config struct {
	Node     Node                 `toml:"node"`
	Cluster  Cluster              `toml:"cluster"`
	VIP      map[string]*VIP      `toml:"vip"`
	Listener map[string]*Listener `toml:"listener"`
	Limits   Limits               `toml:"limits"`
	Pool     map[string]*Pool     `toml:"pool"`
	Route    []*Route             `toml:"route"`
	Admin    Admin                `toml:"admin"`
	Log      Log                  `toml:"log"`

	Name     string    `toml:"-"` // the file it was read from, for messages
	Hash     string    `toml:"-"` // of all that must be equal on every node: not [node], cluster.bind, cluster.secret, [admin], [log]
	Warnings []Problem `toml:"-"` // what is allowed but hardly meant
}

// Node is this host.
type Node struct {
	Name           string         `toml:"name"`            // default: the hostname
	State          string         `toml:"state"`           // directory for what must outlive a restart; default /var/lib/proxyd
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"` // the only peers whose X-Forwarded-* and Forwarded fields are believed
}

// Cluster is the set of nodes that share the virtual addresses. No join, no cluster.
type Cluster struct {
	Name   string           `toml:"name"`   // default "proxyd"
	Join   []netip.AddrPort `toml:"join"`   // every voter, the same list on every node; default port 7946
	Secret Secret           `toml:"secret"` // "file:PATH" or "env:NAME" in the file; here the trimmed text, at least 16 characters
	Bind   netip.AddrPort   `toml:"bind"`   // default: the address of join that this host has
	Timing Timing           `toml:"timing"`

	SecretRef string `toml:"-"` // what stands in the file for Secret
}

// Timing is how fast silence is believed: a preset name, or its own numbers.
type Timing struct {
	Preset    string        `toml:"-"`         // "fast", "normal", "slow", or "" for own numbers
	Heartbeat time.Duration `toml:"heartbeat"` // between two beats
	Lease     time.Duration `toml:"lease"`     // how long a promise lasts for the one who asked; at least 5 beats
	Guard     time.Duration `toml:"guard"`     // how much longer the voter keeps it; at least half a beat
}

// A VIP is a virtual address that one node of the cluster holds.
type VIP struct {
	Name      string       `toml:"-"`
	Address   netip.Prefix `toml:"address"`   // with the length of its subnet
	Interface string       `toml:"interface"` // where the subnet is
	Prefer    []string     `toml:"prefer"`    // node names, best first; default: any fit node
	Preempt   Preempt      `toml:"preempt"`   // false (default), or how long the preferred node must be well before it takes over
	Follow    string       `toml:"follow"`    // the VIP whose holder holds this one too
}

// Preempt is false or a duration.
type Preempt struct {
	On    bool
	After time.Duration
}

// A Listener is an address for clients. Without any [listener.*] there is one on :80.
type Listener struct {
	Name    string   `toml:"-"`
	Address []string `toml:"address"` // one or a list; ":80" is both families
}

// Limits protect this node from its clients. Every default is on.
type Limits struct {
	Conns       int           `toml:"conns"`        // open client connections of this node; default 50000
	ConnsPerIP  int           `toml:"conns_per_ip"` // 0, the default: off. IPv6 counts by /64
	HeaderBytes Size          `toml:"header_bytes"` // default 32KiB; 431 above
	URIBytes    Size          `toml:"uri_bytes"`    // default 8KiB, or header_bytes if that is less; 414 above
	Fields      int           `toml:"fields"`       // default 100; 431 above
	Body        Size          `toml:"body"`         // default 10MiB; 413 above
	HeaderTime  time.Duration `toml:"header_time"`  // default 10s
	Idle        time.Duration `toml:"idle"`         // default 60s
	MinRate     Size          `toml:"min_rate"`     // bytes a second, averaged over 10 s, of an unfinished body or a waiting answer; default 512B
}

// A Pool is servers that serve the same.
type Pool struct {
	Name    string   `toml:"-"`       // of an anonymous pool (route.to): "route:" and the route's name
	Servers []string `toml:"servers"` // short form, equal weights; Parse moves them into Server
	Server  []Server `toml:"server"`
	Balance string   `toml:"balance"`  // round_robin (default) | least_conn | hash
	HashKey string   `toml:"hash_key"` // of balance = "hash": ip
	Host    string   `toml:"host"`     // Host sent on: client (default) | server | a name
	Passive Passive  `toml:"passive"`
	Check   *Check   `toml:"check"` // nil: no active check
	Retry   Retry    `toml:"retry"`
	Timeout Timeout  `toml:"timeout"`
}

// A Server is one upstream of a pool.
type Server struct {
	Addr   string `toml:"addr"`   // host:port
	Weight int    `toml:"weight"` // default 1
	Backup bool   `toml:"backup"` // used only while no other server is up
}

// Passive is what real exchanges teach about a server.
type Passive struct {
	MaxFails    int           `toml:"max_fails"`    // default 3; 0 turns it off
	FailTimeout time.Duration `toml:"fail_timeout"` // default 30s: within which they count, and for which the server is left out
	On          []string      `toml:"on"`           // default connect, timeout, 502, 503, 504
}

// A Check asks a server for its health.
type Check struct {
	Path     string        `toml:"path"`     // default "/"
	Interval time.Duration `toml:"interval"` // default 5s
	Timeout  time.Duration `toml:"timeout"`  // shorter than interval; default 2s, or half the interval if that is less
	Rise     int           `toml:"rise"`     // default 2
	Fall     int           `toml:"fall"`     // default 3
	Status   string        `toml:"status"`   // default "200-399"; a list of codes and ranges
	Host     string        `toml:"host"`     // Host of the probe; default the server's address
}

// Retry is for idempotent requests of which the client got no byte, on another server.
type Retry struct {
	Attempts int   `toml:"attempts"` // in all; default 2
	Budget   Share `toml:"budget"`   // of the pool's requests; default 20%
}

// Timeout is the time-outs towards the servers of a pool.
type Timeout struct {
	Connect time.Duration `toml:"connect"` // default 5s
	Send    time.Duration `toml:"send"`    // between two successes; default 60s
	Read    time.Duration `toml:"read"`    // between two successes; default 60s
	Tunnel  time.Duration `toml:"tunnel"`  // default 1h
	Idle    time.Duration `toml:"idle"`    // of an unused server connection; default 90s
}

// A Route says what is done with which requests. Exactly one of Pool, To, Respond and
// Redirect is given; Parse turns To into an anonymous pool and sets Pool to its name.
type Route struct {
	Name     string       `toml:"name"`     // label in metrics and logs; default: host + path
	Host     []string     `toml:"host"`     // one or a list: exact or "*.example.com"; empty: any
	Path     string       `toml:"path"`     // "/exact" or "/prefix/*"; empty: any
	Listener []string     `toml:"listener"` // default: every listener
	Pool     string       `toml:"pool"`
	To       []string     `toml:"to"`
	Respond  *Respond     `toml:"respond"`
	Redirect *Redirect    `toml:"redirect"`
	Upgrade  []string     `toml:"upgrade"` // default ["websocket"]
	Timeout  RouteTimeout `toml:"timeout"`
	Log      bool         `toml:"log"`      // default true
	Priority int          `toml:"priority"` // only where two routes tie
	Line     int          `toml:"-"`        // of its [[route]] in the file
}

// RouteTimeout is of the whole exchange.
type RouteTimeout struct {
	Total time.Duration `toml:"total"` // default none
}

// Respond answers without a server.
type Respond struct {
	Status int    `toml:"status"` // default 200
	Type   string `toml:"type"`   // default text/plain; charset=utf-8
	Body   string `toml:"body"`
}

// Redirect answers with another place. In the file a text (an absolute URL, or
// "https" for the same host and URI by https) or { to, status }.
type Redirect struct {
	To     string `toml:"to"`     // may hold {uri}, {host}, {path}, {query}
	Status int    `toml:"status"` // default 308
}

// Admin is how operators and their tools reach this node.
type Admin struct {
	Socket string `toml:"socket"` // default /run/proxyd/admin.sock, mode 0660
	Listen string `toml:"listen"` // /metrics, /healthz, /readyz over TCP, read-only; default 127.0.0.1:9900; "" turns it off
}

// Log is what is written and where.
type Log struct {
	Level  string `toml:"level"` // debug | info (default) | warn | error; to standard error
	Access Access `toml:"access"`
}

// Access is the access log: false, or { format, output }.
type Access struct {
	Off    bool   `toml:"-"`
	Format string `toml:"format"` // json, the default
	Output string `toml:"output"` // stdout, the default, or a file
}
