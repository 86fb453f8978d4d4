package accesslog

import (
	"bytes"
	"net/url"
	"strings"
)

// redacted is what stands for a value that is not to be seen.
const redacted = "[redacted]"

// A censor knows the names whose values are not to be seen: those of header fields and
// of query parameters are one list.
type censor map[string]bool

func newCensor(names []string) censor {
	c := make(censor, len(names))
	for _, n := range names {
		c[strings.ToLower(n)] = true
	}
	return c
}

// hides reports whether the value of a query parameter, named as it was sent, is not to
// be seen.
func (c censor) hides(name []byte) bool {
	if len(c) == 0 {
		return false
	}
	if bytes.ContainsAny(name, "%+") {
		if plain, err := url.QueryUnescape(string(name)); err == nil {
			return c[strings.ToLower(plain)]
		}
	}
	return c[strings.ToLower(string(name))]
}

// query calls write with the pieces of a query, in which values that are not to be seen
// are replaced.
func (c censor) query(raw []byte, write func([]byte)) {
	for {
		end := bytes.IndexAny(raw, "&;")
		one := raw
		if end >= 0 {
			one = raw[:end]
		}
		if name, _, ok := bytes.Cut(one, equals); ok && c.hides(name) {
			write(one[:len(name)+1])
			write(redactedBytes)
		} else {
			write(one)
		}
		if end < 0 {
			return
		}
		write(raw[end : end+1])
		raw = raw[end+1:]
	}
}

// target calls write with the pieces of a request target or URL: without its query, or
// with what may be seen of it.
func (c censor) target(raw []byte, withQuery bool, write func([]byte)) {
	path, query, ok := bytes.Cut(raw, question)
	write(path)
	if ok && withQuery {
		write(question)
		c.query(query, write)
	}
}

var (
	equals        = []byte{'='}
	question      = []byte{'?'}
	redactedBytes = []byte(redacted)
)
