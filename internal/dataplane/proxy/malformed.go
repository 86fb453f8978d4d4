package proxy

import (
	"errors"

	"proxyd/internal/dataplane"
)

// malformedReasons are the words that http1 and the engines have for bytes of a client
// that are no request. Each is counted from 0 on; a word that is not here counts as the
// first (E11: a label takes no value that a client made up).
var malformedReasons = [...]string{
	"other",
	"bad_chunk", "bare_cr", "bare_lf", "cl_te", "cleartext", "connection", "content_length", "content_length_twice", "expect",
	"field_name", "field_value", "fields", "fragment", "h2_connection", "h2_preface", "h2_stream", "h3_connection", "head_time", "header_size", "host", "host_missing",
	"host_twice", "incomplete", "method", "obs_fold", "path", "protocol", "proxy_header", "proxy_missing", "proxy_untrusted", "pseudo", "target", "te_http10", "tls", "transfer_encoding",
	"transfer_encoding_twice", "underscore", "uri_size", "version",
}

var malformedIndex = func() map[string]int {
	index := make(map[string]int, len(malformedReasons))
	for i, word := range malformedReasons {
		index[word] = i
	}
	return index
}()

// countMalformed counts what a client sent, if that is what err is about.
func (p *Plane) countMalformed(l *dataplane.Listener, err error) {
	var m *dataplane.Malformed
	if errors.As(err, &m) && !errors.Is(err, dataplane.ErrResponse) {
		p.listeners.at(l.Index).malformed[malformedIndex[m.Reason]].Add(1)
	}
}
