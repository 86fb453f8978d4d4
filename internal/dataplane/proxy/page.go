package proxy

import (
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// pages are the bodies of a route's error answers, by status. Only answers made here have
// them: what a server says of its errors is passed on as it is.
type pages map[int]*page

type page struct{ kind, body []byte }

func newPages(c map[int]*config.Page) pages {
	if len(c) == 0 {
		return nil
	}
	all := make(pages, len(c))
	for status, p := range c {
		all[status] = &page{[]byte(p.Type), p.Body}
	}
	return all
}

// dress gives the answer in x.Response, made here, the page of its status. The text of a
// respond, and a file, are what the operator wants already.
func (ps pages) dress(x *dataplane.Exchange) {
	r := &x.Response
	p := ps[r.Status]
	if p == nil || len(r.Body) > 0 && x.Mark.Reason == "respond" || r.File != nil || r.Read != nil {
		return
	}
	kept := r.Header[:0]
	for _, f := range r.Header {
		if string(f.Name) != string(nameContentType) {
			kept = append(kept, f)
		}
	}
	r.Header = kept
	r.Body, r.Length = p.body, int64(len(p.body))
	if len(p.body) > 0 {
		r.Header.Add(dataplane.Other, nameContentType, p.kind)
	}
}
