// Package config is the language of proxyd.toml: its words, their defaults and the
// rules they must keep. It knows nothing of the rest of the program.
package config

import (
	"net/netip"
	"time"
)

// A field whose tag says tobe is in the schema and not built yet: unbuilt.go refuses its
// key, and nothing reads it. Whoever builds it makes the tag toml.

// A Config is one checked configuration with every default filled in. Parse makes it;
// it is read-only from then on and may be shared.
type Config struct {
	Node     Node                 `toml:"node"`
	Cluster  Cluster              `toml:"cluster"`
	Track    []*Track             `toml:"track"`
	VIP      map[string]*VIP      `toml:"vip"`
	Listener map[string]*Listener `toml:"listener"`
	TLS      TLS                  `toml:"tls"`
	Cert     []*Cert              `toml:"cert"`
	ACME     ACME                 `toml:"acme"`
	Limits   Limits               `toml:"limits"`
	Pool     map[string]*Pool     `toml:"pool"`
	Policy   map[string]*Policy   `toml:"policy"`
	Route    []*Route             `toml:"route"`
	Admin    Admin                `toml:"admin"`
	Log      Log                  `toml:"log"`
	Trace    Trace                `toml:"trace"`

	Name     string    `toml:"-"` // the file it was read from, for messages
	Hash     string    `toml:"-"` // of all that must be equal on every node: not [node], cluster.bind, cluster.secret, cluster.fence, [admin], [log]
	Ordered  []string  `toml:"-"` // the names that have a certificate by ACME, each one of its own
	Warnings []Problem `toml:"-"` // what is allowed but hardly meant
}

// Node is this host.
type Node struct {
	Name           string         `toml:"name"`            // its name in status, logs and vip.prefer; default: the hostname
	State          string         `toml:"state"`           // directory for what must outlive a restart
	Watch          bool           `toml:"watch"`           // the file and what it includes are read again when they change, as by `hactl reload`
	Zone           string         `toml:"zone"`            // where the node is, for zone-aware balancing; default: none
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"` // the only peers whose X-Forwarded-* and Forwarded fields, and PROXY headers, are believed; default: nobody
}

// Cluster is the set of nodes that share the virtual addresses. No join, no cluster.
type Cluster struct {
	Name     string           `toml:"name"`     // label of the cluster in status and metrics
	Join     []netip.AddrPort `toml:"join"`     // IP addresses of every node, the same list on every node; port 7946 if none is given
	Secret   Secret           `toml:"secret"`   // "file:PATH" (absolute, mode 0640 or tighter) or "env:NAME" of a text of at least 16 characters; here the text itself
	Bind     netip.AddrPort   `toml:"bind"`     // the address and port of this node in join; default: the address of join that this host has
	Timing   Timing           `toml:"timing"`   // "fast", "normal", "slow", or own numbers in { }
	Witness  bool             `toml:"witness"`  // this node has a vote and never holds an address: it needs no [vip], listener or route, and may have another file than the others
	Arbiter  []netip.Addr     `toml:"arbiter"`  // hosts that are no nodes, such as the gateway: of two nodes, one that hears nothing of the other holds only while one of these answers it (ARP, ICMP echo or TCP); a node that reaches none for seconds is unfit; default: none
	Fence    string           `toml:"fence"`    // how a holder is silenced when its lease ends: "auto" (the best that this host can have), "ebpf", "nftables", "lifetime" (the addresses go 1 to 2 seconds later); one that cannot be had is an error at the start; see docs/FENCING.md
	Notify   Notify           `toml:"notify"`   // who is told when this node becomes the holder or the standby of a VIP, or cannot hold it: { command, webhook }; default: nobody
	Paths    []string         `toml:"paths"`    // further heartbeat paths beside that of join: interfaces ("eth1") or networks ("192.168.9.0/24"), the same list on every node; a peer is silent only when it is on every path
	Handover string           `toml:"handover"` // how the connections of the holder before are kept: ebpf, nftables, plain (not at all), or auto: the first of them that this host has; docs/HANDOVER.md
	Drain    time.Duration    `toml:"drain"`    // how long a node goes on serving the connections that it had when it handed an address over

	SecretRef string `toml:"-"` // what stands in the file for Secret
}

// Notify is who is told of the transitions of this node.
type Notify struct {
	Command string `toml:"command"` // absolute path of a program: arguments "vip", name, state, reason; PROXYD_* in its environment; JSON on standard input; 10 s
	Webhook string `toml:"webhook"` // http or https URL to which the same JSON is posted
}

// Timing is how fast silence is believed: a preset name, or its own numbers.
type Timing struct {
	Preset    string        `toml:"-"`         // "fast", "normal", "slow", or "" for own numbers
	Heartbeat time.Duration `toml:"heartbeat"` // between two beats
	Lease     time.Duration `toml:"lease"`     // how long a promise lasts for the one who asked; at least 5 beats
	Guard     time.Duration `toml:"guard"`     // how much longer the voter keeps it; at least half a beat
}

// A Track is something else on which this node's fitness depends: exactly one of command, file,
// process, interface and pool. Of two nodes the fitter holds; where none is fit, the less
// unfit one does.
type Track struct {
	Name      string        `toml:"name"`      // in status, logs and metrics, unique; default: what is looked at, such as "file-ready"
	Command   Command       `toml:"command"`   // good if it ends with exit code 0: a list is a program with its arguments, a text is a line for /bin/sh
	File      string        `toml:"file"`      // good while there is something at this absolute path
	Process   string        `toml:"process"`   // good while a process of this name runs, or the one whose number is in this file (an absolute path)
	Interface string        `toml:"interface"` // good while this network interface is up and has a carrier
	Pool      string        `toml:"pool"`      // good while the active checks of this node find at least one server of this [pool.NAME] well
	Interval  time.Duration `toml:"interval"`  // between two looks
	Timeout   time.Duration `toml:"timeout"`   // of a command, which is killed then with all that it started; shorter than interval; default: half the interval if that is less
	Rise      int           `toml:"rise"`      // good looks until it is good
	Fall      int           `toml:"fall"`      // failed looks until it has failed; the first look of all decides alone
	Weight    Weight        `toml:"weight"`    // what a failure costs: -1 to -99, which add up, or "veto": unfit, and worse than any sum
}

// A Command is a program and its arguments. In the file a list of them, or a line for
// /bin/sh.
type Command []string

// Weight is "veto", or how much fitness is lost.
type Weight struct {
	Veto bool
	Less int // 1 to 99
}

// A VIP is a virtual address that one node of the cluster holds.
type VIP struct {
	Name      string       `toml:"-"`
	Address   netip.Prefix `toml:"address"`   // with the length of its subnet: "203.0.113.10/24"; required
	Interface string       `toml:"interface"` // where the subnet is; required
	Prefer    []string     `toml:"prefer"`    // names of nodes, best first; default: any fit node
	Preempt   Preempt      `toml:"preempt"`   // how long the preferred node must be well before it takes over, or false: it stays where it is
	Follow    string       `toml:"follow"`    // the VIP whose holder holds this one too
	Spread    bool         `toml:"spread"`    // VIPs with spread share the fit nodes evenly: prefer decides between nodes that have equally many, preempt (default then: "10s") how long a node that is back must be well before it gets its share, by a hand-over
}

// Preempt is false or a duration.
type Preempt struct {
	On    bool
	After time.Duration
}

// A Listener is an address for clients. Without any [listener.*] there is one on :80; with a
// [[cert]] it redirects to https, and there is another with tls on :443.
type Listener struct {
	Name         string   `toml:"-"`
	Address      []string `toml:"address"`        // one or a list; ":80" is both families; required
	TLS          bool     `toml:"tls"`            // clients speak TLS, with the certificates of [[cert]]
	HTTP2        bool     `toml:"http2"`          // with tls: clients that can, speak HTTP/2; default: that of tls
	H2C          bool     `toml:"h2c"`            // without tls: clients that begin with its preface speak HTTP/2 in clear; no other is asked to
	Redirect     string   `toml:"redirect"`       // "https": every request is sent to the same URI by https (308), before any route; to port 443, or to that of the one listener with tls that is elsewhere
	ClientCA     string   `toml:"client_ca"`      // absolute path of the authorities, PEM, one of which must have signed the certificate of a client, and of lists of what they have revoked; read again when it changes; default: clients are asked for none
	ClientCert   string   `toml:"client_cert"`    // of client_ca: require, no connection without one; or optional, routes say whether they need one; default: require, or optional if any route has client_cert
	Unknown      Unknown  `toml:"unknown"`        // what a request for a host that no route names gets, if none takes it: 404, 421, or close (no answer)
	Proxied      bool     `toml:"proxy_protocol"` // every connection begins with a PROXY header, version 1 or 2, that says whose it is; node.trusted_proxies alone may connect; docs/PROXY-PROTOCOL.md
	HTTP3        bool     `toml:"http3"`          // with tls: HTTP/3 too, over UDP at the same address, of which clients of TCP are told (Alt-Svc); docs/HTTP3.md
	Underscores  string   `toml:"underscores"`    // what becomes of request fields with an underscore in their names, which some servers take for a hyphen: drop; keep, but for those that such a server would take for a field that proxyd knows or a policy of the route changes; or reject: 400
	ProxyStatus  bool     `toml:"proxy_status"`   // answers say where they come from, and errors of proxyd's own why (Proxy-Status, RFC 9209), without naming a server; docs/OBSERVABILITY.md
	ServerTiming bool     `toml:"server_timing"`  // answers say how long their parts took until their head (Server-Timing), as the access log does; likewise
}

// TLS is what all listeners with tls have in common.
type TLS struct {
	Min     string        `toml:"min"`     // the oldest version, "1.2" or "1.3"; default: that of the profile
	Profile string        `toml:"profile"` // modern: TLS 1.3 alone; intermediate: TLS 1.2 too, with forward secrecy and authenticated encryption alone
	HSTS    time.Duration `toml:"hsts"`    // for how long browsers shall ask this host by https alone (Strict-Transport-Security on answers by https that have none); "0s": they are not told
}

// A Cert is a certificate with its key. The first is for clients that ask for no name or for
// one that none has; of several for one name, with keys of different kinds, each client gets
// the best that it knows. Changed files are in use within a second (of many, 1,000 are looked at in each), without a reload.
type Cert struct {
	Cert string `toml:"cert"` // absolute path of the certificate and those that lead to the root, PEM; required
	Key  string `toml:"key"`  // absolute path of its key, PEM, which the user of proxyd must be able to read, or which systemd hands over (LoadCredential); default: the file of the certificate
}

// ACME is certificates that the cluster gets by itself (RFC 8555). The email alone turns it
// on: with it there are listeners as with a [[cert]]. Everything is the same on every node:
// one node orders, every node answers the CA and serves.
type ACME struct {
	Email     string   `toml:"email"`     // where the CA writes to; required, and turns it on
	Directory string   `toml:"directory"` // https URL of the CA's directory; default: that of Let's Encrypt, whose terms you accept by this
	CA        string   `toml:"ca"`        // absolute path of a file (PEM) with the roots by which the CA itself is trusted, where those of the host do not do
	EAB       *EAB     `toml:"eab"`       // an account at the CA to which that of ACME is bound: { id, key }; default: none
	Challenge string   `toml:"challenge"` // how the CA is shown that a name is ours: http-01 (port 80), tls-alpn-01 (port 443), dns-01 (by dns, the only one for wildcards), or auto: dns-01 if dns is set, else http-01, and tls-alpn-01 where that failed or no listener has port 80
	Hosts     []string `toml:"hosts"`     // names, each with a certificate of its own, also "*.example.com"; default: every exact host of a [[route]] that no [[cert]] is for, except addresses and names that no public CA knows
	DNS       *ACMEDNS `toml:"dns"`       // how TXT records are made for dns-01: { rfc2136, key } or { command }; default: not at all
}

// EAB is an account at the CA, as it gives it out (external account binding).
type EAB struct {
	ID  string `toml:"id"`  // the key identifier; required
	Key string `toml:"key"` // "file:PATH" or "env:NAME" of the MAC key, base64url as the CA gives it; required
}

// ACMEDNS is how TXT records are made and taken back: exactly one of rfc2136 and command.
type ACMEDNS struct {
	RFC2136 string `toml:"rfc2136"` // address of the server that takes updates (RFC 2136), port 53 if none is given
	Key     string `toml:"key"`     // "file:PATH" or "env:NAME" of the key (TSIG) of the updates: as tsig-keygen writes it, or "hmac-sha256:NAME:BASE64"; default: they are not signed
	Command string `toml:"command"` // absolute path of a program that is run as COMMAND present|cleanup NAME VALUE: exit code 0 when every server of the zone has the record, or has it no more; 2 minutes
}

// Unknown is 404, 421 or close; in the file a number or a text.
type Unknown string

// Limits protect this node from its clients. Every default is on.
type Limits struct {
	Conns           int           `toml:"conns"`             // open client connections of this node
	ConnsPerIP      int           `toml:"conns_per_ip"`      // open connections of one client address, IPv6 by /64; 0 turns it off
	HeaderBytes     Size          `toml:"header_bytes"`      // of a whole request head; 431 above
	URIBytes        Size          `toml:"uri_bytes"`         // of a request target; 414 above; default: header_bytes if that is less
	Fields          int           `toml:"fields"`            // header fields of a request; 431 above
	Requests        int           `toml:"requests"`          // of one HTTP/2 connection, after which its client is asked to make another; 0 turns it off
	Body            Size          `toml:"body"`              // of a request; 413 above
	HeaderTime      time.Duration `toml:"header_time"`       // for the whole head of a request
	Handshakes      int           `toml:"handshakes"`        // TLS handshakes that this node has under way; more connections are closed
	HandshakesPerIP int           `toml:"handshakes_per_ip"` // likewise, of one client address, IPv6 by /64; 0 turns it off
	HandshakeTime   time.Duration `toml:"handshake_time"`    // for a whole TLS handshake
	Idle            time.Duration `toml:"idle"`              // of a client connection between two requests
	Held            Size          `toml:"held"`              // of request bodies in memory at once (buffer, request_framing, mirror); above it buffer streams, request_framing answers 503 and mirror sends no copy
	MinRate         Size          `toml:"min_rate"`          // bytes a second, averaged over 10 s, of an unfinished body or a waiting answer; "0B" turns it off
}

// A Pool is servers that serve the same.
type Pool struct {
	Name      string        `toml:"-"`               // of an anonymous pool (route.to): "route:" and the route's name
	Servers   []string      `toml:"servers"`         // short form, host:port with equal weights; Parse moves them into Server
	Server    []Server      `toml:"server"`          // long form: [{ addr, weight, backup, zone, max_conns }]
	Balance   string        `toml:"balance"`         // round_robin, least_conn, ewma, random, hash or first; docs/BALANCING.md says which is for what
	HashKey   string        `toml:"hash_key"`        // of balance = "hash": ip (the client's address), uri, header:NAME or cookie:NAME; a request without it goes by ip
	SlowStart time.Duration `toml:"slow_start"`      // over which a server that is back, or new at run time, comes to its weight; "0s": at once
	MaxConns  int           `toml:"max_conns"`       // exchanges at once on each server, of this node, WebSockets too; 0: no limit
	Queue     *Queue        `toml:"queue"`           // where exchanges wait while every server has max_conns, { } for the defaults; nil: they are refused
	Sticky    *Sticky       `toml:"sticky"`          // a signed cookie keeps a client at its server, { } for the defaults; nil: none
	Eject     *Eject        `toml:"eject"`           // outliers are left out for a while; nil: none
	Breaker   *Breaker      `toml:"breaker"`         // a server that mostly fails is not asked for a while; nil: none
	Framing   string        `toml:"request_framing"` // as-sent, or length: a chunked body is read whole, and sent with Content-Length; 413 above limits.body
	Location  string        `toml:"location"`        // rewrite: Location, Content-Location, Refresh and cookies that name a server name what the client asked for, strip_prefix put back; or keep
	TLS       *PoolTLS      `toml:"tls"`             // the servers speak TLS: true, or { ca, name, cert, key, min, insecure }; nil: none
	Protocol  string        `toml:"protocol"`        // what the servers speak: http1; h2: HTTP/2, which needs tls; h2c: HTTP/2 in clear; gRPC needs one of these (docs/GRPC.md)
	Host      string        `toml:"host"`            // Host sent on: client (as the client sent it), server (the server's address), or a name
	Proxied   int           `toml:"proxy_protocol"`  // 1 or 2: a connection to a server begins with a PROXY header of this version, which tells of its client, and serves no other; 0: none; docs/PROXY-PROTOCOL.md
	Passive   Passive       `toml:"passive"`         // what real exchanges teach about a server
	Check     *Check        `toml:"check"`           // active check, { } for all its defaults; nil: none
	Retry     Retry         `toml:"retry"`           // of idempotent requests of which the client got no byte, on another server
	Timeout   Timeout       `toml:"timeout"`         // towards the servers
}

// A Server is one upstream of a pool.
type Server struct {
	Addr     string `toml:"addr"`      // host:port; required
	Weight   int    `toml:"weight"`    // share of the requests, 1 to 1000
	Backup   bool   `toml:"backup"`    // used only while no other server is up
	Zone     string `toml:"zone"`      // where the server is; a node prefers those of its own zone; default: none
	MaxConns int    `toml:"max_conns"` // exchanges at once on it; 0: the pool's max_conns
}

// PoolTLS is how the servers of a pool are spoken to by TLS. In the file true, false or a
// table of these keys. Their certificates are always verified, unless insecure says not to.
type PoolTLS struct {
	Off      bool   `toml:"-"`
	CA       string `toml:"ca"`       // absolute path of the authorities, PEM, one of which must have signed the certificates of the servers; read again when it changes; default: those that this system trusts
	Name     string `toml:"name"`     // the name that the certificates must be for, and that the servers are asked for (SNI); default: the host of the server's address
	Cert     string `toml:"cert"`     // absolute path of the certificate, PEM, that is shown to a server that asks for one; read again when it changes; default: none
	Key      string `toml:"key"`      // absolute path of its key; default: the file of the certificate
	Min      string `toml:"min"`      // the oldest version, "1.2" or "1.3"
	Insecure bool   `toml:"insecure"` // certificates are not verified: anybody on the way can read and change everything; for a test alone
}

// Passive is what real exchanges teach about a server.
type Passive struct {
	MaxFails    int           `toml:"max_fails"`    // failures within fail_timeout after which a server is left out; 0 turns it off; default: 0 in a pool with eject or breaker
	FailTimeout time.Duration `toml:"fail_timeout"` // within which failures count, and for which the server is left out
	On          []string      `toml:"on"`           // what counts as a failure: connect, timeout, and statuses
}

// A Check asks a server for its health.
type Check struct {
	Type     string            `toml:"type"`     // http, by what the pool's servers speak; tcp: a connection is enough, or an answer to send that holds expect; grpc: gRPC's health protocol says SERVING
	Method   string            `toml:"method"`   // of the request
	Path     string            `toml:"path"`     // of the request
	Interval time.Duration     `toml:"interval"` // between two checks of a server
	Timeout  time.Duration     `toml:"timeout"`  // shorter than interval; default: half the interval if that is less
	Rise     int               `toml:"rise"`     // good checks until a server is up
	Fall     int               `toml:"fall"`     // failed checks until it is down
	Status   string            `toml:"status"`   // what is good: a list of codes and ranges
	Host     string            `toml:"host"`     // Host of the check; default: the server's address
	Header   map[string]string `toml:"header"`   // fields of the request
	Body     string            `toml:"body"`     // of the request
	Match    string            `toml:"match"`    // what the first 64 KiB of the answer's body must hold: a text, or "~" and a regular expression; default: anything
	Service  string            `toml:"service"`  // of type grpc: the service whose health is asked for; default: the server as a whole
	Port     int               `toml:"port"`     // that is asked; 0: the server's own
	Send     string            `toml:"send"`     // of type tcp: what is sent first
	TLS      *bool             `toml:"tls"`      // the check speaks TLS, in the way of pool.tls; default: as the pool
	Expect   string            `toml:"expect"`   // of type tcp: a text, or "~" and a regular expression, which the first 64 KiB of the answer must hold
}

// Retry is for idempotent requests of which the client got no byte, on another server.
type Retry struct {
	Attempts int           `toml:"attempts"` // in all, the first included; at most 5
	Budget   Share         `toml:"budget"`   // at most this share of the pool's requests
	PerTry   time.Duration `toml:"per_try"`  // until the answer's head, of each attempt; "0s": no limit but timeout.read
	On       []string      `toml:"on"`       // what is tried again: connect, timeout, and statuses of the server; what is not idempotent only if nothing was sent
}

// Timeout is the time-outs towards the servers of a pool.
type Timeout struct {
	Connect time.Duration `toml:"connect"` // until a connection stands
	Send    time.Duration `toml:"send"`    // between two successful writes
	Read    time.Duration `toml:"read"`    // between two successful reads
	Tunnel  time.Duration `toml:"tunnel"`  // of a silent upgraded connection (WebSocket)
	Idle    time.Duration `toml:"idle"`    // of an unused server connection
}

// Queue is where exchanges wait for a server that has room, first come first served.
type Queue struct {
	Size int           `toml:"size"` // how many may wait; more get 503
	Wait time.Duration `toml:"wait"` // how long one may wait; then 503
}

// Sticky keeps a client at its server by a signed cookie.
type Sticky struct {
	Cookie string        `toml:"cookie"` // its name
	TTL    time.Duration `toml:"ttl"`    // how long the browser keeps it; "0s": until it is closed
}

// Eject leaves servers out that fail much more than the others of their pool, for
// passive.fail_timeout at first and longer each time.
type Eject struct {
	Max Share `toml:"max"` // at most this share of the pool's servers is left out at once; one of two or more always may be
}

// Breaker stops asking a server that mostly fails, and asks with one request after a while.
type Breaker struct {
	Errors Share         `toml:"errors"` // of the last 10 s' attempts, 20 at least, that failed by passive.on
	Open   time.Duration `toml:"open"`   // how long it is not asked; then one request is let through to see
}

// A Policy is a bundle of settings that routes name in use. Of several, restrictions add
// up, a setting of a later one overrides that of an earlier one, and headers merge.
type Policy struct {
	Name     string    `toml:"-"`
	Headers  Headers   `toml:"headers"`  // fields set, added and removed
	Expires  *Expires  `toml:"expires"`  // for how long good answers may be kept by clients and caches; nil: as the server says
	Compress *Compress `toml:"compress"` // answers are compressed as the client accepts it: true, false, or { types, min, with, padding }; nil: not
}

// Headers are fields removed, set (which replaces those of the name) and added, in this
// order. Values may hold {placeholders}.
type Headers struct {
	RequestSet     map[string]string `toml:"request_set"`     // of the request to the server
	RequestAdd     map[string]string `toml:"request_add"`     // of the request to the server
	RequestRemove  []string          `toml:"request_remove"`  // of the client's request
	ResponseSet    map[string]string `toml:"response_set"`    // of the answer
	ResponseAdd    map[string]string `toml:"response_add"`    // of the answer
	ResponseRemove []string          `toml:"response_remove"` // of the server's answer
}

// Expires sets Expires and Cache-Control of answers with status 200, 201, 204, 206, 301,
// 302, 303, 304, 307 and 308.
type Expires struct {
	After        time.Duration `toml:"after"`         // from the answer on; required
	CacheControl string        `toml:"cache_control"` // directives behind max-age, such as "public, immutable"; default: none
}

// Compress says what is compressed. In the file true, false or { types, min, with, padding }.
type Compress struct {
	Off     bool     `toml:"-"`
	Types   []string `toml:"types"`   // media types, "text/*" for all of a kind, "+json" for all that end so
	Min     Size     `toml:"min"`     // a shorter answer is left as it is, if its length is known
	With    []string `toml:"with"`    // what is offered, best first: zstd, br, gzip
	Padding Size     `toml:"padding"` // each answer is made longer by a number of bytes from 0 to this, and a few more for where they lie, drawn anew, so that its length tells less (BREACH); at most 256; "0B": by none
}

// Trace is how one exchange is found again in the logs and traces of every hop.
type Trace struct {
	RequestID string `toml:"request_id"` // field that holds the exchange's id: a trusted proxy's, or made here; sent to the server and the client, and in the log; "" turns it off
	Context   bool   `toml:"context"`    // take part in W3C traces: traceparent and tracestate of a trusted proxy are gone on with, otherwise a trace is begun
	OTLP      string `toml:"otlp"`       // URL of a collector to which spans are sent, OTLP over HTTP in JSON; turns context on; default: none are
	Sample    Share  `toml:"sample"`     // of the traces begun here, those whose spans are wanted
}

// A Route says what is done with which requests. Exactly one of pool, to, split, files,
// respond and redirect is given.
type Route struct {
	Name        string            `toml:"name"`          // label in metrics and logs, unique; default: host + path
	Host        []string          `toml:"host"`          // one or a list: exact or "*.example.com"; default: any
	Path        string            `toml:"path"`          // "/exact", "/prefix/*" (which is /prefix and what is below it), or "~" and a regular expression (RE2); default: any
	Listener    []string          `toml:"listener"`      // one or a list of names; default: every listener
	Method      []string          `toml:"method"`        // one or a list; default: any. GET is HEAD too
	Header      map[string]string `toml:"header"`        // fields that must be there: the value, "~" and a regular expression, or "*" for any; default: none
	Query       map[string]string `toml:"query"`         // parameters that must be there: the value, "~" and a regular expression, or "*" for any; default: none
	Client      []netip.Prefix    `toml:"client"`        // one or a list of networks, one of which the client must be in; default: anywhere
	RegexFirst  bool              `toml:"regex_first"`   // a matching regular expression goes before a prefix, as in nginx
	Use         []string          `toml:"use"`           // one or a list of policies, in the order in which they count
	ClientCert  string            `toml:"client_cert"`   // require: only for clients with a certificate by client_ca of their listener, on connections for the host that they ask for (421 otherwise), 403 without one; or optional
	Pool        string            `toml:"pool"`          // action: the [pool.NAME] that serves; of To: the anonymous pool
	To          []string          `toml:"to"`            // action: servers of a pool without a name; all of them as "https://host" or "https://host:port": by TLS, as with tls = true
	Respond     *Respond          `toml:"respond"`       // action: answer without a server
	Redirect    *Redirect         `toml:"redirect"`      // action: "https", an absolute URL, or { to, status }
	Split       map[string]int    `toml:"split"`         // action: pools and the shares of clients that each gets, a client always the same: { api = 95, api-v2 = 5 }
	Files       *Files            `toml:"files"`         // action: the files of a directory, { root, index }
	Mirror      *Mirror           `toml:"mirror"`        // a copy of some requests goes to another pool, whose answers are dropped: { pool, percent }
	StripPrefix string            `toml:"strip_prefix"`  // taken off the path before it goes on; the server is told it in X-Forwarded-Prefix
	Rewrite     *Rewrite          `toml:"rewrite"`       // of the path, after strip_prefix: { from, to }
	Slash       string            `toml:"encoded_slash"` // what becomes of a path with %2F in it, which some servers take for a slash: keep, as it was sent; or reject: 400
	ErrorPages  map[string]string `toml:"error_pages"`   // statuses, "502,503" or "5xx", and the file that is the body of such an answer made here: "file:/path"
	Trailers    []string          `toml:"trailers"`      // names of the trailers of chunked bodies that are let through, both ways; default: none
	Buffer      Size              `toml:"buffer"`        // a request body up to this is read whole before a server is asked; "0B": streamed
	Upgrade     []string          `toml:"upgrade"`       // protocols that may be upgraded to; [] allows none
	Timeout     RouteTimeout      `toml:"timeout"`       // of the whole exchange
	Log         bool              `toml:"log"`           // false: not in the access log
	Priority    int               `toml:"priority"`      // the higher goes first, only where two routes tie
	File        string            `toml:"-"`             // that has it: the configuration's, an included one, or that of the changes at run time
	Line        int               `toml:"-"`             // of its [[route]] there
	Pages       map[int]*Page     `toml:"-"`             // what ErrorPages comes to, by status
}

// A Page is the body of an answer, read from a file.
type Page struct {
	Type string // media type, by the file's extension
	Body []byte
}

// RouteTimeout is of the whole exchange.
type RouteTimeout struct {
	Total time.Duration `toml:"total"` // from the request's head to the end of the answer; "0s": none
}

// Files answers from a directory.
type Files struct {
	Root  string   `toml:"root"`  // absolute path of the directory; required
	Index []string `toml:"index"` // files that stand for their directory, the first that is there
}

// Mirror copies requests.
type Mirror struct {
	Pool    string `toml:"pool"`    // that gets the copies; required
	Percent int    `toml:"percent"` // of the requests, 1 to 100
}

// Rewrite changes the path.
type Rewrite struct {
	From string `toml:"from"` // "~" and a regular expression; a path that it does not match stays as it is; required
	To   string `toml:"to"`   // what the whole path becomes, with $1 or ${name} for groups; may have a query, behind which the client's goes unless to ends with "?"; required
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
	Metrics string `toml:"metrics"` // /metrics, /healthz and /readyz alone on another address; "" turns it off
	Socket  string `toml:"socket"`  // what hactl speaks to; mode 0660
	Listen  string `toml:"listen"`  // /metrics, /healthz, /readyz over TCP, read-only; "" turns it off
}

// Log is what is written and where.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn or error; to standard error
	Access Access `toml:"access"` // the access log: a table, or false for none
}

// Rotate begins a new file when the old one is full.
type Rotate struct {
	Size Size `toml:"size"` // of a file
	Keep int  `toml:"keep"` // old files kept, as OUTPUT.1 (the newest) and so on
}

// Access is the access log: false, or a table of these keys.
type Access struct {
	Off    bool          `toml:"-"`
	Format string        `toml:"format"` // json, text (the same fields as name=value) or combined (as nginx)
	Output string        `toml:"output"` // stdout, the absolute path of a file, or "syslog:" for /dev/log, "syslog:/path" and "syslog:host:port" (RFC 5424, by UDP)
	Sample Share         `toml:"sample"` // of exchanges that went well; errors (4xx, 5xx, broken off), slow ones and what was refused are always written
	Slow   time.Duration `toml:"slow"`   // an exchange that takes as long is written whatever sample says
	Redact []string      `toml:"redact"` // header fields and query parameters whose values are hidden
	Query  bool          `toml:"query"`  // the query is in the log, and that of Referer; default: true for combined, else false
	Rotate *Rotate       `toml:"rotate"` // of a file: a new one when it is full, { } for the defaults; nil: never
}
