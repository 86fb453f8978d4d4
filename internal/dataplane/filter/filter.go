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
	Asked    []string // names of the request's fields that are set, added or removed, in lower case with hyphens for underscores
	Stages   []Stage  // what the filters are, in their order, for people
	Heavy    bool     // a filter may block or looks into bodies
}

// A Stage is one step of what is done with an exchange.
type Stage struct {
	Name   string `json:"name"`   // such as "request headers"
	Does   string `json:"does"`   // what exactly; "" if the name says it
	Answer bool   `json:"answer"` // it is done with the answer, not with the request
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
	s.Asked = asked.names()
	if !asked.empty() {
		s.Request = append(s.Request, requestHeaders{asked})
		s.Stages = append(s.Stages, Stage{Name: "request headers", Does: asked.String()})
	}
	if kept != nil {
		e := newExpires(kept, env.Now)
		s.Response = append(s.Response, e)
		s.Stages = append(s.Stages, Stage{Name: "expires", Does: e.String(), Answer: true})
	}
	if !answered.empty() {
		s.Response = append(s.Response, responseHeaders{answered})
		s.Stages = append(s.Stages, Stage{Name: "response headers", Does: answered.String(), Answer: true})
	}
	if packed != nil && !packed.Off {
		c := newCompress(packed, env.Coders)
		s.Response = append(s.Response, c)
		s.Stages = append(s.Stages, Stage{Name: "compress", Does: c.String(), Answer: true})
		s.Heavy = true
	}
	return s, nil
}
