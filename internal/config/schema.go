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
	Name           string         `toml:"name"`            // its name in status, logs and vip.prefer; default: the hostname
	State          string         `toml:"state"`           // directory for what must outlive a restart
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"` // the only peers whose X-Forwarded-* and Forwarded fields are believed; default: nobody
}

// Cluster is the set of nodes that share the virtual addresses. No join, no cluster.
type Cluster struct {
	Name   string           `toml:"name"`   // label of the cluster in status and metrics
	Join   []netip.AddrPort `toml:"join"`   // IP addresses of every node, the same list on every node; port 7946 if none is given
	Secret Secret           `toml:"secret"` // "file:PATH" (absolute, mode 0640 or tighter) or "env:NAME" of a text of at least 16 characters; here the text itself
	Bind   netip.AddrPort   `toml:"bind"`   // the address and port of this node in join; default: the address of join that this host has
	Timing Timing           `toml:"timing"` // "fast", "normal", "slow", or own numbers in { }

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
	Address   netip.Prefix `toml:"address"`   // with the length of its subnet: "203.0.113.10/24"; required
	Interface string       `toml:"interface"` // where the subnet is; required
	Prefer    []string     `toml:"prefer"`    // names of nodes, best first; default: any fit node
	Preempt   Preempt      `toml:"preempt"`   // how long the preferred node must be well before it takes over, or false: it stays where it is
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
	Address []string `toml:"address"` // one or a list; ":80" is both families; required
}

// Limits protect this node from its clients. Every default is on.
type Limits struct {
	Conns       int           `toml:"conns"`        // open client connections of this node
	ConnsPerIP  int           `toml:"conns_per_ip"` // open connections of one client address, IPv6 by /64; 0 turns it off
	HeaderBytes Size          `toml:"header_bytes"` // of a whole request head; 431 above
	URIBytes    Size          `toml:"uri_bytes"`    // of a request target; 414 above; default: header_bytes if that is less
	Fields      int           `toml:"fields"`       // header fields of a request; 431 above
	Body        Size          `toml:"body"`         // of a request; 413 above
	HeaderTime  time.Duration `toml:"header_time"`  // for the whole head of a request
	Idle        time.Duration `toml:"idle"`         // of a client connection between two requests
	MinRate     Size          `toml:"min_rate"`     // bytes a second, averaged over 10 s, of an unfinished body or a waiting answer; "0B" turns it off
}

// A Pool is servers that serve the same.
type Pool struct {
	Name    string   `toml:"-"`        // of an anonymous pool (route.to): "route:" and the route's name
	Servers []string `toml:"servers"`  // short form, host:port with equal weights; Parse moves them into Server
	Server  []Server `toml:"server"`   // long form: [{ addr, weight, backup }]
	Balance string   `toml:"balance"`  // round_robin, least_conn or hash
	HashKey string   `toml:"hash_key"` // of balance = "hash": ip, the client's address
	Host    string   `toml:"host"`     // Host sent on: client (as the client sent it), server (the server's address), or a name
	Passive Passive  `toml:"passive"`  // what real exchanges teach about a server
	Check   *Check   `toml:"check"`    // active check, { } for all its defaults; nil: none
	Retry   Retry    `toml:"retry"`    // of idempotent requests of which the client got no byte, on another server
	Timeout Timeout  `toml:"timeout"`  // towards the servers
}

// A Server is one upstream of a pool.
type Server struct {
	Addr   string `toml:"addr"`   // host:port; required
	Weight int    `toml:"weight"` // share of the requests, 1 to 1000
	Backup bool   `toml:"backup"` // used only while no other server is up
}

// Passive is what real exchanges teach about a server.
type Passive struct {
	MaxFails    int           `toml:"max_fails"`    // failures within fail_timeout after which a server is left out; 0 turns it off
	FailTimeout time.Duration `toml:"fail_timeout"` // within which failures count, and for which the server is left out
	On          []string      `toml:"on"`           // what counts as a failure: connect, timeout, and statuses
}

// A Check asks a server for its health.
type Check struct {
	Path     string        `toml:"path"`     // of the GET request
	Interval time.Duration `toml:"interval"` // between two checks of a server
	Timeout  time.Duration `toml:"timeout"`  // shorter than interval; default: half the interval if that is less
	Rise     int           `toml:"rise"`     // good checks until a server is up
	Fall     int           `toml:"fall"`     // failed checks until it is down
	Status   string        `toml:"status"`   // what is good: a list of codes and ranges
	Host     string        `toml:"host"`     // Host of the check; default: the server's address
}

// Retry is for idempotent requests of which the client got no byte, on another server.
type Retry struct {
	Attempts int   `toml:"attempts"` // in all, the first included
	Budget   Share `toml:"budget"`   // at most this share of the pool's requests
}

// Timeout is the time-outs towards the servers of a pool.
type Timeout struct {
	Connect time.Duration `toml:"connect"` // until a connection stands
	Send    time.Duration `toml:"send"`    // between two successful writes
	Read    time.Duration `toml:"read"`    // between two successful reads
	Tunnel  time.Duration `toml:"tunnel"`  // of a silent upgraded connection (WebSocket)
	Idle    time.Duration `toml:"idle"`    // of an unused server connection
}

// A Route says what is done with which requests. Exactly one of pool, to, respond and
// redirect is given.
type Route struct {
	Name     string       `toml:"name"`     // label in metrics and logs, unique; default: host + path
	Host     []string     `toml:"host"`     // one or a list: exact or "*.example.com"; default: any
	Path     string       `toml:"path"`     // "/exact" or "/prefix/*", which is /prefix and what is below it; default: any
	Listener []string     `toml:"listener"` // one or a list of names; default: every listener
	Pool     string       `toml:"pool"`     // action: the [pool.NAME] that serves; of To: the anonymous pool
	To       []string     `toml:"to"`       // action: servers of a pool without a name
	Respond  *Respond     `toml:"respond"`  // action: answer without a server
	Redirect *Redirect    `toml:"redirect"` // action: "https", an absolute URL, or { to, status }
	Upgrade  []string     `toml:"upgrade"`  // protocols that may be upgraded to; [] allows none
	Timeout  RouteTimeout `toml:"timeout"`  // of the whole exchange
	Log      bool         `toml:"log"`      // false: not in the access log
	Priority int          `toml:"priority"` // the higher goes first, only where two routes tie
	Line     int          `toml:"-"`        // of its [[route]] in the file
}

// RouteTimeout is of the whole exchange.
type RouteTimeout struct {
	Total time.Duration `toml:"total"` // from the request's head to the end of the answer; "0s": none
}

// Respond answers without a server.
type Respond struct {
	Status int    `toml:"status"` // 200 to 599
	Type   string `toml:"type"`   // Content-Type
	Body   string `toml:"body"`   // the whole text
}

// Redirect answers with another place. In the file a text (an absolute URL, or
// "https" for the same host and URI by https) or { to, status }.
type Redirect struct {
	To     string `toml:"to"`     // "https" (same host and URI) or an absolute URL, which may hold {uri}, {host}, {path}, {query}
	Status int    `toml:"status"` // 301, 302, 303, 307 or 308
}

// Admin is how operators and their tools reach this node.
type Admin struct {
	Socket string `toml:"socket"` // what hactl speaks to; mode 0660
	Listen string `toml:"listen"` // /metrics, /healthz, /readyz over TCP, read-only; "" turns it off
}

// Log is what is written and where.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn or error; to standard error
	Access Access `toml:"access"` // the access log: { format, output }, or false for none
}

// Access is the access log: false, or { format, output }.
type Access struct {
	Off    bool   `toml:"-"`
	Format string `toml:"format"` // json
	Output string `toml:"output"` // stdout, or the absolute path of a file
}
