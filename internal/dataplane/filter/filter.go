// Package filter is what the policies of a route do with its requests and answers. Each
// policy is one file; New sorts those of a route into the fixed order of the stages.
package filter

import (
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A Set is the filters of one route, in the order in which they are asked. Its zero value
// does nothing. It is immutable.
type Set struct {
	Request  []dataplane.RequestFilter
	Response []dataplane.ResponseFilter
	Stages   []string // what the filters are, in the order of the stages, for people
	Heavy    bool     // a filter may block or looks into bodies
}

// Env is what filters need to know of the node and the route.
type Env struct {
	Node, Route string
	Now         func() time.Time
	Coders      *Coders // of the process
}

// New returns the filters of a route that uses the policies, in that order. Whatever that
// order is, the stages are these: request headers, (a server), expires, response headers,
// compress.
func New(policies []*config.Policy, env Env) (Set, error) {
	var s Set
	var asked, answered edit
	var kept *config.Expires
	var packed *config.Compress
	for _, p := range policies {
		if p.Expires != nil {
			kept = p.Expires
		}
		if p.Compress != nil {
			packed = p.Compress
		}
		h := &p.Headers
		if err := asked.merge(h.RequestRemove, h.RequestSet, h.RequestAdd, config.RequestPieces, env); err != nil {
			return s, err
		}
		if err := answered.merge(h.ResponseRemove, h.ResponseSet, h.ResponseAdd, config.ResponsePieces, env); err != nil {
			return s, err
		}
	}
	if !asked.empty() {
		s.Request = append(s.Request, requestHeaders{asked})
		s.Stages = append(s.Stages, "request headers")
	}
	if kept != nil {
		s.Response = append(s.Response, newExpires(kept, env.Now))
		s.Stages = append(s.Stages, "expires")
	}
	if !answered.empty() {
		s.Response = append(s.Response, responseHeaders{answered})
		s.Stages = append(s.Stages, "response headers")
	}
	if packed != nil && !packed.Off {
		s.Response = append(s.Response, newCompress(packed, env.Coders))
		s.Stages = append(s.Stages, "compress")
		s.Heavy = true
	}
	return s, nil
}
