package files

import (
	"bytes"
	"net/http"
	"time"

	"proxyd/internal/dataplane"
)

// dateForm is IMF-fixdate (RFC 9110, 5.6.7).
const dateForm = "Mon, 02 Jan 2006 15:04:05 GMT"

// conditions are the preconditions of a GET or HEAD (RFC 9110, 13).
type conditions struct {
	header   dataplane.Header
	etag     []byte
	modified time.Time // to the second
	now      time.Time
}

// A judgement is what the preconditions come to.
type judgement uint8

const (
	met judgement = iota
	unchanged
	failed
)

// judge evaluates the preconditions in the order of RFC 9110, 13.2.2.
func (c *conditions) judge() judgement {
	if any, match := c.tags("If-Match", false); any {
		if !match {
			return failed
		}
	} else if t, ok := c.date("If-Unmodified-Since"); ok && c.modified.After(t) {
		return failed
	}
	if any, match := c.tags("If-None-Match", true); any {
		if match {
			return unchanged
		}
	} else if t, ok := c.date("If-Modified-Since"); ok && !c.modified.After(t) {
		return unchanged
	}
	return met
}

// ranges reports whether Range counts: not if If-Range names another state of the file
// (13.1.5). The comparison is the strong one; a date is strong if the file was not
// changed within a second of now (8.8.2.2).
func (c *conditions) ranges() bool {
	v, count := c.one("If-Range")
	switch {
	case count == 0:
		return true
	case count > 1:
		return false
	case len(v) > 0 && v[0] == '"':
		return bytes.Equal(v, c.etag)
	}
	t, err := http.ParseTime(string(v))
	return err == nil && t.Equal(c.modified) && c.now.Sub(c.modified) >= time.Second
}

// one returns the value of a field that may be there once, and how often it is.
func (c *conditions) one(name string) (value []byte, count int) {
	for _, f := range c.header {
		if len(f.Name) == len(name) && bytes.EqualFold(f.Name, []byte(name)) {
			value = f.Value
			count++
		}
	}
	return value, count
}

// date returns the date in a field; what is no date does not count.
func (c *conditions) date(name string) (time.Time, bool) {
	v, count := c.one(name)
	if count != 1 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(string(v))
	return t, err == nil
}

// tags reports whether there is such a field, and whether one of its entity tags is the
// file's. A weak tag matches only where that is enough.
func (c *conditions) tags(name string, weak bool) (any, match bool) {
	for _, f := range c.header {
		if len(f.Name) == len(name) && bytes.EqualFold(f.Name, []byte(name)) {
			any = true
			match = match || hasTag(f.Value, c.etag, weak)
		}
	}
	return any, match
}

// hasTag looks for tag in a list of entity tags (8.8.3). The list ends at the first thing
// that is none.
func hasTag(list, tag []byte, weak bool) bool {
	if bytes.Equal(bytes.TrimSpace(list), []byte("*")) {
		return true
	}
	for {
		list = bytes.TrimLeft(list, " \t,")
		isWeak := bytes.HasPrefix(list, []byte("W/"))
		if isWeak {
			list = list[2:]
		}
		if len(list) < 2 || list[0] != '"' {
			return false
		}
		end := bytes.IndexByte(list[1:], '"')
		if end < 0 {
			return false
		}
		if (weak || !isWeak) && bytes.Equal(list[:end+2], tag) {
			return true
		}
		list = bytes.TrimLeft(list[end+2:], " \t")
		if len(list) == 0 || list[0] != ',' {
			return false
		}
	}
}
