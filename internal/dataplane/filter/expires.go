package filter

import (
	"strconv"
	"sync/atomic"
	"time"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// expiry is the fields by which a server says for how long its answer may be kept.
var expiry = []name{newName("Expires"), newName("Cache-Control")}

// dateForm is IMF-fixdate (RFC 9110, 5.6.7).
const dateForm = "Mon, 02 Jan 2006 15:04:05 GMT"

// expires says for how long a good answer may be kept, whatever the server says.
type expires struct {
	after   time.Duration
	control []byte // Cache-Control
	now     func() time.Time
	last    atomic.Pointer[dated]
}

// dated is the Expires of one second.
type dated struct {
	second int64
	text   []byte
}

func newExpires(c *config.Expires, now func() time.Time) *expires {
	control := "max-age=" + strconv.FormatInt(int64(c.After/time.Second), 10)
	if c.CacheControl != "" {
		control += ", " + c.CacheControl
	}
	return &expires{after: c.After, control: []byte(control), now: now}
}

// String says what is done.
func (e *expires) String() string {
	return "Expires in " + e.after.String() + ", Cache-Control: " + string(e.control)
}

func (e *expires) Response(x *dataplane.Exchange) dataplane.Verdict {
	switch x.Response.Status {
	case 200, 201, 204, 206, 301, 302, 303, 304, 307, 308:
	default:
		return dataplane.Next
	}
	h := &x.Response.Header
	without(h, len(*h), expiry)
	h.Add(expiry[0].id, expiry[0].text, e.date())
	h.Add(expiry[1].id, expiry[1].text, e.control)
	return dataplane.Next
}

// date returns when an answer of now expires, made once a second.
func (e *expires) date() []byte {
	t := e.now().Add(e.after)
	d := e.last.Load()
	if d == nil || d.second != t.Unix() {
		d = &dated{t.Unix(), t.UTC().AppendFormat(nil, dateForm)}
		e.last.Store(d)
	}
	return d.text
}
