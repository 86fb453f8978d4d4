package proxy

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/files"
	"proxyd/internal/dataplane/filter"
	"proxyd/internal/dataplane/route"
	"proxyd/internal/dataplane/upstream"
)

// A snapshot is a compiled configuration. It never changes after it is published, and
// an exchange sees one from Match to End. What in it does change (servers' health,
// counters) is adopted by the next one.
type snapshot struct {
	generation uint64
	conf       *config.Config
	table      *route.Table
	routes     []*compiledRoute          // in the order of the file; then further pools of splits; then for what no route matches; then for Probe
	unknown    map[string]*compiledRoute // by listener: for hosts that no route names, where that is another
	bySender   bool                      // choosing a route takes to know who sent the request
	pools      map[string]*upstream.Pool
	counters   map[string]*routeCounters // by label
	trusted    *bart.Lite                // node.trusted_proxies; nil if there are none
	trace      tracing
	own        []string                  // fields that servers are told by us; see ownNames
	hsts       []byte                    // nil: browsers are told nothing
	toHTTPS    map[string]*compiledRoute // by listener: those that send every client to https
	challenge  *compiledRoute            // of what a CA asks; nil without ACME
	builtin    int                       // routes that are in no file
}

// A compiledRoute is a route with all that is needed to follow it. Exactly one of
// pool, answer, redirect, files and silent is set, and none for what a CA asks.
type compiledRoute struct {
	dataplane.Route
	counters *routeCounters
	filters  filter.Set
	closed   atomic.Pointer[closure] // nil while it serves; set by Steer
	pages    pages

	policies []string // names of them, for the log
	pool     *upstream.Pool
	locator  locator
	host     hostRule
	attempts int  // in all, at least 1
	vouched  bool // the client must have shown a certificate
	slashes  bool // a path with an encoded slash is refused
	buffers  bool // a body is read to hand before a server is asked

	answer   *answer
	redirect *template
	silent   bool // the connection is closed without an answer

	split   split    // the routes to each of its pools, this one among them; nil if it has one
	mirror  *mirror  // of requests to another pool; nil: none
	rewrite *rewrite // of the path before it goes on; nil: none
	files   *files.Tree
}

// of returns the snapshot and the route that Match gave to x.
func of(x *dataplane.Exchange) (*snapshot, *compiledRoute) {
	s := x.Snapshot.(*snapshot)
	return s, s.routes[x.Route.Index]
}

// unmatched is the route of a request that no other takes.
func (s *snapshot) unmatched(x *dataplane.Exchange) *compiledRoute {
	if r := s.unknown[x.Listener.Name]; r != nil && !s.table.Knows(x.Listener.Name, x.Request.Host) {
		return r
	}
	return s.routes[len(s.routes)-2]
}

// probe is the route of requests that this node sends itself.
func (s *snapshot) probe() *compiledRoute { return s.routes[len(s.routes)-1] }

// trusts reports whether what the peer says about its clients is believed.
func (s *snapshot) trusts(peer netip.Addr) bool {
	return s.trusted != nil && s.trusted.Contains(peer)
}
