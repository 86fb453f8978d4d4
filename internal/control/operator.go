// Package control is the admin API on a Unix socket and its client. Operator is what
// can be asked of a node; the program implements it, and Client is one too, far away.
package control

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"proxyd/internal/history"
)

// An Operator answers and carries out what an operator wants of one node.
type Operator interface {
	Status(ctx context.Context) (*Status, error)
	Pools(ctx context.Context) ([]Pool, error)
	// Certificates returns those in use on this node, in the order of the file, then those by
	// ACME, also names that have none yet.
	Certificates(ctx context.Context) ([]Certificate, error)
	// RenewCertificate has a certificate by ACME ordered now.
	RenewCertificate(ctx context.Context, w CertificateWish) (*CertificateRenewal, error)
	// Config returns the configuration in force with every default, as TOML, without secrets.
	Config(ctx context.Context) (string, error)
	// Reload reads the configuration file again. On error the old one keeps serving and
	// the error lists all that is wrong.
	Reload(ctx context.Context) (*Reload, error)
	// Diff tells what a reload would change if the file said this. Nothing is changed.
	Diff(ctx context.Context, f File) (*Reload, error)
	// Apply checks a configuration on every node, puts it in force node by node, watches each,
	// and puts back what was there, everywhere, if anything is wrong.
	Apply(ctx context.Context, a Apply) (*Applied, error)
	// Rollback applies an earlier generation again.
	Rollback(ctx context.Context, w Rollback) (*Applied, error)
	// Member changes cluster.join on every node, as Apply changes all of it.
	Member(ctx context.Context, w MemberWish) (*Applied, error)
	// Keys tells which keys the nodes have, by marks.
	Keys(ctx context.Context) (*Keys, error)
	// RotateKeys gives every node another key, or goes on with a rotation that broke off.
	RotateKeys(ctx context.Context, w KeysWish) (*KeysRotated, error)
	// Backup returns all of which this node can be made again, but for the secrets.
	Backup(ctx context.Context) (*Backup, error)
	// Generations lists what was applied, as this node keeps it, the oldest first.
	Generations(ctx context.Context) ([]Generation, error)
	// Edit changes what the configuration has, beside its file and kept over a restart. A
	// bad change is refused whole.
	Edit(ctx context.Context, e Edit) (*Reload, error)
	// Changes returns what was changed so, as TOML.
	Changes(ctx context.Context) (string, error)
	// Failover hands a VIP over (all that this cluster's holders have, if vip is "") to a
	// node ("" for the best fit one) and returns when it is held there.
	Failover(ctx context.Context, f Failover) (*FailoverResult, error)
	Version(ctx context.Context) (*Version, error)
	// Upgrade has another process of proxyd take the place of the one that answers, with its
	// sockets and addresses, and returns when it serves. On error nothing has changed.
	Upgrade(ctx context.Context, u Upgrade) (*Upgraded, error)
	// Explain tells what is done with a request that nobody sends, as the data plane says it.
	Explain(ctx context.Context, q Question) (json.RawMessage, error)
	// SteerServer overrides what the configuration says of a server, and returns what is in
	// force then.
	SteerServer(ctx context.Context, w ServerWish) (*Steered, error)
	// SteerNode says what part a node takes, on whichever node it is asked. Of a node that
	// is to hold nothing it returns when that holds nothing any more.
	SteerNode(ctx context.Context, w NodeWish) (*NodeSteered, error)
	// Pause stops the moves of VIPs that nobody asked for, or lets them happen again.
	Pause(ctx context.Context, w PauseWish) (*Standing, error)
	// SteerRoute closes a route for maintenance, or opens it.
	SteerRoute(ctx context.Context, w RouteWish) (*Steered, error)
	// History returns what happened, as all nodes wrote it down.
	History(ctx context.Context, q HistoryQuery) (*History, error)
	// Why tells the story of a change of a holder.
	Why(ctx context.Context, q WhyQuery) (*history.Story, error)
	// Doctor examines whether this node and its cluster are fit to fail over.
	Doctor(ctx context.Context) (*Doctor, error)
	// Simulate tells what would come of a fault. Nothing is done.
	Simulate(ctx context.Context, q SimulateQuery) (*Simulation, error)
	// Watch calls tell for each entry of the history from now on until ctx ends, which is no
	// error, or tell fails.
	Watch(ctx context.Context, tell func(history.Entry) error) error
}

// Status is the cluster as one node sees it now. Keys are stable.
type Status struct {
	Cluster string       `json:"cluster"`
	Health  string       `json:"health"`  // healthy | degraded | failed
	Reasons []string     `json:"reasons"` // why it is not healthy
	Node    string       `json:"node"`    // who answers
	Config  string       `json:"config"`  // hash of its configuration
	Since   time.Time    `json:"since"`   // its process started
	Nodes   []NodeStatus `json:"nodes"`
	VIPs    []VIPStatus  `json:"vips"`
	// Arbiters are the hosts of which a node that hears no other must reach one.
	Arbiters []ArbiterStatus `json:"arbiters"`
	Last     *Change         `json:"last_change"`
	// Tracks is what else the fitness of the node that answers depends on.
	Tracks []TrackStatus `json:"tracks"`
	Paused *Standing     `json:"paused,omitempty"` // no VIP moves by preference or fitness
	// Overrides is what operators changed at run time beside the configuration.
	Overrides []Override `json:"overrides"`
	Overload  Overload   `json:"overload"` // of the node that answers
	// Upgrade is how the process came to be that answers, if it took another's place.
	Upgrade *UpgradeStatus `json:"upgrade,omitempty"`
}

// Overload is how a node copes with what it is asked for.
type Overload struct {
	Shedding bool   `json:"shedding"`         // it refuses what it cannot do in time
	Waiting  int64  `json:"refusals_waiting"` // their answer waits
	Refused  uint64 `json:"refused"`          // since its process started
}

// UpgradeStatus is an upgrade that is done, but for the exchanges of the process before.
type UpgradeStatus struct {
	From     string    `json:"from"` // versions
	To       string    `json:"to"`
	Since    time.Time `json:"since"`
	Draining *Draining `json:"draining"` // null when the process before has ended
}

// Draining is a process that lets its exchanges end.
type Draining struct {
	PID         int   `json:"pid"`
	Connections int64 `json:"connections"`
}

// NodeStatus is one voter.
type NodeStatus struct {
	Name    string `json:"name"`
	Witness bool   `json:"witness"` // it votes and never holds
	State   string `json:"state"`   // up | draining | standby | unfit | unheard
	Address string `json:"address"`
	AgeMS   int64  `json:"age_ms"` // since it was last heard; 0 for the one who answers, -1 never
	Config  string `json:"config"`
	Version string `json:"version"`
	Wire    int    `json:"wire,omitempty"` // the newest version of what nodes send each other that it speaks
	UptimeS int64  `json:"uptime_s"`
	Reason  string `json:"reason,omitempty"` // why it is unfit
	// LongestGapMS is the longest silence between two of its beats, of LimitMS allowed.
	LongestGapMS int64 `json:"longest_gap_ms"`
	LimitMS      int64 `json:"limit_ms"`
	// Flaps is how often it failed lately, as this node saw; each counts one and fades. Damped:
	// so often that others are preferred.
	Flaps  float64 `json:"flaps"`
	Damped bool    `json:"damped"`
	// What the beats measured of the way to it; null is not known.
	RoundTripMS *float64 `json:"round_trip_ms"`
	ClockSkewMS *float64 `json:"clock_skew_ms"`   // its clock is ahead by that
	LossIn      *float64 `json:"loss_in"`         // part of the beats that did not come from it
	LossOut     *float64 `json:"loss_out"`        // and to it
	NearMisses  uint64   `json:"near_misses"`     // silences of more than half the limit that ended before it
	Paths       []Path   `json:"paths,omitempty"` // by which it is heard; none of the one who answers
	// Standing is what an operator wants of the node, if anything.
	Standing *Standing `json:"standing,omitempty"`
}

// A Path is one way by which a node is heard: an interface, or gossip.
type Path struct {
	Name         string  `json:"name"`
	AgeMS        int64   `json:"age_ms"` // since it was last heard there; -1 never
	LongestGapMS int64   `json:"longest_gap_ms"`
	Loss         float64 `json:"loss"` // part of its datagrams that did not arrive, 0 to 1
	Silent       bool    `json:"silent"`
}

// A Standing is what an operator wants of a node, or of all. It stays over restarts.
type Standing struct {
	Node   string     `json:"node,omitempty"` // by name; "" for all
	State  string     `json:"state"`          // drain | standby | online; of all: paused | running
	By     string     `json:"by"`             // who asked
	On     string     `json:"on"`             // on which node
	Reason string     `json:"reason,omitempty"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"` // nil: until it is taken back
}

// NodeWish is what to want of a node: drain (it hands over what it holds, and says that it
// is not ready), standby (it hands over and only votes), or online (as configured).
type NodeWish struct {
	Node   string `json:"node"` // its name or address
	State  string `json:"state"`
	ForMS  int64  `json:"for_ms"`  // of standby; 0: until it is online
	WaitMS int64  `json:"wait_ms"` // of drain: for its exchanges to end
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// NodeSteered is what came of it.
type NodeSteered struct {
	Standing Standing `json:"standing"`
	Moved    []string `json:"moved"`  // VIPs that it handed over
	Active   int64    `json:"active"` // of drain: exchanges in progress on it
	Warnings []string `json:"warnings"`
}

// PauseWish stops or lets happen the moves that nobody asked for.
type PauseWish struct {
	On     bool   `json:"on"`
	ForMS  int64  `json:"for_ms"` // 0: until it is taken back
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// ArbiterStatus is one arbiter, as the node that answers reaches it.
type ArbiterStatus struct {
	Address string `json:"address"`
	OK      bool   `json:"ok"`     // it answered when it was last asked
	AgeMS   int64  `json:"age_ms"` // since it last answered; -1 never
	Reason  string `json:"reason,omitempty"`
}

// TrackStatus is one [[track]] of the node that answers.
type TrackStatus struct {
	Name   string    `json:"name"`
	Kind   string    `json:"kind"`  // command | file | process | interface | pool
	State  string    `json:"state"` // up | failed | unknown (not looked at yet)
	Veto   bool      `json:"veto"`
	Weight int       `json:"weight"`           // what a failure costs beside a veto; at most 0
	Since  time.Time `json:"since"`            // of the state
	Reason string    `json:"reason,omitempty"` // why the latest look failed
}

// VIPStatus is one virtual address.
type VIPStatus struct {
	Name      string     `json:"name"`
	Address   string     `json:"address"`
	Interface string     `json:"interface"`
	Holder    *string    `json:"holder"`  // null if none is known
	Holders   []string   `json:"holders"` // more than one is a split brain
	Term      uint64     `json:"term"`
	Since     *time.Time `json:"since"`
	LeaseMS   int64      `json:"lease_ms"` // left, if this node holds it
	Announced *time.Time `json:"last_announced"`
	Conflicts uint64     `json:"conflicts"`
	AgeMS     int64      `json:"age_ms"`   // of what is said of the holder; 0 if this node holds it
	Prefer    []string   `json:"prefer"`   // the candidates by name, the best first
	UnheldS   float64    `json:"unheld_s"` // time in which this node knew of no holder, over its restarts
	// DrainingUntil is until when connections that are left here go on; null if none are.
	DrainingUntil *time.Time `json:"draining_until"`
	Chosen        bool       `json:"chosen"`          // an operator moved it to its holder: preempt and spread leave it there until that fails
	Sole          bool       `json:"sole"`            // its holder, the node that answers, is one of two and holds it without the other's vote
	Fence         *Fence     `json:"fence,omitempty"` // of this node
	// Faults says of the nodes that could not hold it when they last tried why not.
	Faults map[string]string `json:"faults,omitempty"`
	// Draining are the nodes that had it before and still serve connections of then.
	Draining []Drain `json:"draining"`
}

// Fence is what silences an address on a node when its lease there ends.
type Fence struct {
	Kind  string   `json:"kind"`            // ebpf | nftables | lifetime
	Means string   `json:"means,omitempty"` // tcx | clsact | arp and inet tables
	Token bool     `json:"token"`           // the death of proxyd ends a lease at once
	Fault string   `json:"fault,omitempty"` // why it does not work at present
	Worse []string `json:"worse,omitempty"` // why it is of no better kind
}

// Drain is a node that serves connections of a VIP which it has handed over.
type Drain struct {
	Node        string    `json:"node"`
	Connections int       `json:"connections"` // that are left; -1: not counted yet
	Until       time.Time `json:"until"`       // they are ended then
}

// Change is one time that an address changed hands.
type Change struct {
	Time   time.Time `json:"time"`
	VIP    string    `json:"vip"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
	Text   string    `json:"text,omitempty"`    // what the operator gave as --reason
	TookMS float64   `json:"took_ms,omitempty"` // from the old holder's last sign of life to the first announcement
}

// Pool is one pool with its servers.
type Pool struct {
	Name    string   `json:"name"`
	Balance string   `json:"balance"`
	HashKey string   `json:"hash_key,omitempty"`
	Sticky  string   `json:"sticky,omitempty"` // the cookie
	Queue   int      `json:"queue"`            // places; 0 if there is no queue
	Waiting int64    `json:"waiting"`          // exchanges in it
	Servers []Server `json:"servers"`
}

// Server is one upstream.
type Server struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	State    string `json:"state"` // up | down | ejected | open | half-open | drain | maint
	Weight   int    `json:"weight"`
	Wanted   int    `json:"configured_weight"` // what the configuration says of weight
	Share    int    `json:"share"`             // percent of weight that count now: 0 if it is not chosen, less than 100 in a slow start
	Zone     string `json:"zone,omitempty"`
	MaxConns int    `json:"max_conns"` // 0: no limit
	Backup   bool   `json:"backup"`
	Active   int64  `json:"active"`
	Requests uint64 `json:"requests"`
	Failures uint64 `json:"failures"`
	Reason   string `json:"reason,omitempty"` // why it is not up
}

// Certificate is one that clients get. Keys are stable.
type Certificate struct {
	Subject  string    `json:"subject"` // the first of its names
	Names    []string  `json:"names"`
	Serial   string    `json:"serial"` // hexadecimal
	Issuer   string    `json:"issuer"`
	Kind     string    `json:"key_kind"` // ECDSA P-256, RSA 2048 ...
	Source   string    `json:"source"`   // file, or acme
	From     time.Time `json:"not_before"`
	Until    time.Time `json:"not_after"`
	Cert     string    `json:"cert"` // file
	Key      string    `json:"key"`  // file
	Default  bool      `json:"default"`
	Fault    string    `json:"fault,omitempty"` // why its files, which have changed, are not in use
	Warnings []string  `json:"warnings"`
	ACME     *ACME     `json:"acme,omitempty"` // of source acme
}

// ACME is how a certificate stands that the cluster gets by itself. Keys are stable.
type ACME struct {
	Directory string    `json:"directory"`
	Pending   bool      `json:"pending"`        // there is no certificate yet
	Renew     time.Time `json:"renew,omitzero"` // when it is renewed
	Ordering  bool      `json:"ordering"`       // an order is on its way
	Failures  int       `json:"failures"`       // in a row
	Error     string    `json:"error,omitempty"`
	Next      time.Time `json:"next_try,omitzero"` // after a failure
}

// CertificateWish names a certificate by ACME.
type CertificateWish struct {
	Name string `json:"name"`
	By   string `json:"by"`
}

// CertificateRenewal is who renews it.
type CertificateRenewal struct {
	Name string `json:"name"`
	Node string `json:"node"`
}

// Reload is what a reload did, or would do.
type Reload struct {
	Config   string   `json:"config"` // hash now in force; of Diff the one that would be
	Changed  bool     `json:"changed"`
	Changes  []string `json:"changes"` // by key, one line each
	Warnings []string `json:"warnings"`
	Binary   bool     `json:"binary"` // another program lies where the running one was started from
}

// A File is a configuration that an operator has in hand. Without Text it is the node's
// own file, as it is on the disk now.
type File struct {
	Name string `json:"name"` // absolute path, for messages and for what the text refers to
	Text string `json:"text"`
}

// An Apply is a configuration for all nodes.
type Apply struct {
	File     File     `json:"file"`
	Included []File   `json:"included,omitempty"` // what it includes, by absolute names
	CanaryMS int64    `json:"canary_ms"`          // how long each node is watched
	DryRun   bool     `json:"dry_run,omitempty"`
	By       string   `json:"by"`
	Comment  string   `json:"comment,omitempty"`
	Without  []string `json:"without,omitempty"` // nodes that are left out
}

// A Rollback is the wish for an earlier generation.
type Rollback struct {
	Generation uint64   `json:"generation"` // 0: the one before that in force
	CanaryMS   int64    `json:"canary_ms"`
	DryRun     bool     `json:"dry_run,omitempty"`
	By         string   `json:"by"`
	Without    []string `json:"without,omitempty"`
}

// Applied is what an apply did, or would do.
type Applied struct {
	Generation uint64        `json:"generation"`
	Config     string        `json:"config"` // hash
	DryRun     bool          `json:"dry_run,omitempty"`
	Nodes      []AppliedNode `json:"nodes"` // in the order in which they were changed
	Warnings   []string      `json:"warnings"`
}

// AppliedNode is one node of it.
type AppliedNode struct {
	Name     string   `json:"name"`
	Holder   bool     `json:"holder"` // it held a VIP
	Config   string   `json:"config"`
	Changed  bool     `json:"changed"`
	Changes  []string `json:"changes"` // by key, one line each
	Warnings []string `json:"warnings"`
	MS       float64  `json:"ms"` // until it was in force there
}

// MemberWish is a change of the voters.
type MemberWish struct {
	Op       string   `json:"op"`      // add | remove | replace
	Node     string   `json:"node"`    // that goes: its name or address
	Address  string   `json:"address"` // that comes
	CanaryMS int64    `json:"canary_ms"`
	DryRun   bool     `json:"dry_run,omitempty"`
	By       string   `json:"by"`
	Without  []string `json:"without,omitempty"`
}

// Keys are the keys of the cluster, the latest first. No secret is among them.
type Keys struct {
	Keys    []Key     `json:"keys"`
	Nodes   []KeyNode `json:"nodes"`
	Settled bool      `json:"settled"` // every node has one and the same
}

// A Key is a key by its mark, with the names of the nodes that have it.
type Key struct {
	Mark   string    `json:"mark"`
	Number uint64    `json:"number"` // 0: the one of cluster.secret
	Since  time.Time `json:"since,omitzero"`
	Seals  []string  `json:"seals"`   // nodes that seal with it
	Belief []string  `json:"believe"` // nodes that believe what is sealed with it
}

// A KeyNode is what one node says of its keys.
type KeyNode struct {
	Node   string `json:"node"`
	Secret string `json:"secret"`          // mark of its cluster.secret
	Error  string `json:"error,omitempty"` // why nothing is known
}

// KeysWish asks for a rotation.
type KeysWish struct {
	By string `json:"by"`
}

// KeysRotated is what a rotation did.
type KeysRotated struct {
	Key     Key      `json:"key"`
	Dropped []string `json:"dropped"` // marks
	Resumed bool     `json:"resumed"` // it went on with one that had broken off
	MS      float64  `json:"ms"`
}

// A Backup is what a node gives of itself, by the names of package backup.
type Backup struct {
	Cluster  string       `json:"cluster"`
	Node     string       `json:"node"`
	Address  string       `json:"address"`
	Version  string       `json:"version"`
	Time     time.Time    `json:"time"`
	Config   string       `json:"config"`
	Main     string       `json:"main"`
	State    string       `json:"state_dir"`
	Secrets  []string     `json:"secrets"` // references, not the texts
	Files    []BackupFile `json:"files"`
	Warnings []string     `json:"warnings"`
}

// A BackupFile is one file of it.
type BackupFile struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// A Generation is a configuration that was applied, or was found when one was.
type Generation struct {
	Number  uint64    `json:"number"`
	From    uint64    `json:"from,omitempty"` // the generation to which this one went back
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	On      string    `json:"on"` // where it was asked for
	Comment string    `json:"comment,omitempty"`
	Config  string    `json:"config"`        // hash
	State   string    `json:"state"`         // found | trial | applied | rolled back
	Why     string    `json:"why,omitempty"` // it was rolled back
	Current bool      `json:"current"`       // this node's files say it
}

// An Override is what an operator wants of one server or one route, over what the
// configuration says. It stays over reloads and restarts.
type Override struct {
	Pool   string `json:"pool,omitempty"`
	Server string `json:"server,omitempty"`
	Mode   string `json:"mode,omitempty"`   // of a server: drain | maint; "": it serves
	Weight int    `json:"weight,omitempty"` // of a server; 0: that of the configuration

	Route      string         `json:"route,omitempty"`
	Status     int            `json:"status,omitempty"` // that the closed route answers with
	RetryAfter int            `json:"retry_after_s,omitempty"`
	Allow      []netip.Prefix `json:"allow,omitempty"` // clients that are let through

	Node  string    `json:"node"` // where it was asked for
	Since time.Time `json:"since"`
}

// ServerWish is what to change of a server's override. What is nil stays.
type ServerWish struct {
	Server string  `json:"server"` // POOL/SERVER
	Mode   *string `json:"mode"`   // serve | drain | maint
	Weight *int    `json:"weight"` // 0: that of the configuration
	WaitMS int64   `json:"wait_ms"`
}

// RouteWish closes or opens a route.
type RouteWish struct {
	Route      string         `json:"route"`
	Closed     bool           `json:"closed"`
	Status     int            `json:"status"` // 0: 503
	RetryAfter int            `json:"retry_after_s"`
	Allow      []netip.Prefix `json:"allow"`
}

// Steered is what came of a wish.
type Steered struct {
	Override Override `json:"override"` // in force now
	Active   int64    `json:"active"`   // exchanges in progress on the server
	Warnings []string `json:"warnings"`
}

// An Edit is one change. One of its fields is set, beside DryRun.
type Edit struct {
	Put    *File      `json:"put,omitempty"`    // pools, policies, routes and listeners, each in the place of what has its name
	Add    *NewServer `json:"add,omitempty"`    // a server of a pool
	Remove *Thing     `json:"remove,omitempty"` // gone, whoever gave it
	Drop   *Thing     `json:"drop,omitempty"`   // forget what was changed about it
	Clear  bool       `json:"clear,omitempty"`  // forget all that was changed
	DryRun bool       `json:"dry_run,omitempty"`
}

// NewServer is added to a pool.
type NewServer struct {
	Pool   string `json:"pool"`
	Addr   string `json:"addr"`
	Weight int    `json:"weight,omitempty"` // 0: the default
	Backup bool   `json:"backup,omitempty"`
}

// Thing is a pool, policy, route or listener by its name, or a server by POOL/SERVER.
type Thing struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Failover is the wish to move a VIP.
type Failover struct {
	VIP    string `json:"vip"`
	To     string `json:"to"`
	Reason string `json:"reason"`
}

// FailoverResult is how it went.
type FailoverResult struct {
	VIPs []string `json:"vips"`
	From string   `json:"from"`
	To   string   `json:"to"`
	MS   float64  `json:"ms"`
	// Connections is how many the old holder goes on serving, until Until at the latest;
	// null if it serves none on.
	Connections int        `json:"connections"`
	Until       *time.Time `json:"until"`
}

// Question is a request that nobody sends.
type Question struct {
	Method   string   `json:"method"`
	URL      string   `json:"url"`
	Header   []string `json:"header,omitempty"` // "Name: value"
	Client   string   `json:"client,omitempty"` // the peer's address
	Listener string   `json:"listener,omitempty"`
}

// Version is the build.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Commit  string `json:"commit,omitempty"`
	Wire    int    `json:"wire"` // of what nodes send each other: the highest version it speaks
}

// Upgrade is the wish for another process.
type Upgrade struct {
	Binary string `json:"binary,omitempty"` // default: the file that runs now, as it is on the disk
}

// Upgraded is how it went.
type Upgraded struct {
	From    Version `json:"from"`
	To      Version `json:"to"`
	PID     int     `json:"pid"`      // of the process that serves now
	MS      int64   `json:"ms"`       // all in all
	PauseMS float64 `json:"pause_ms"` // of it, nobody decided about addresses
	Left    int64   `json:"left"`     // connections that the process before lets end
}
