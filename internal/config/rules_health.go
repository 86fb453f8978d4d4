package config

import (
	"strconv"
	"strings"
	"time"
)

func (d *decoder) checkPassive(p path, v Passive) {
	within(d, p.key("max_fails"), v.MaxFails, 0, 1_000_000)
	d.between(p.key("fail_timeout"), v.FailTimeout, time.Millisecond, day)
	d.checkCauses(p.key("on"), v.On)
}

// checkCauses judges a list of what an attempt may come to.
func (d *decoder) checkCauses(p path, on []string) {
	for i, word := range on {
		if d.spoilt(p.at(i)) || word == "connect" || word == "timeout" {
			continue
		}
		if code, err := strconv.Atoi(word); err != nil || code < 400 || code > 599 || len(word) != 3 {
			d.bad(p.at(i), "%q is not connect, timeout or a status from 400 to 599", word)
		}
	}
}

// checkCheck judges an active check. What the other type would need has no meaning and
// is refused, so that nobody believes to check what is not checked.
func (d *decoder) checkCheck(p path, v *Check) {
	d.between(p.key("interval"), v.Interval, 10*time.Millisecond, day)
	d.between(p.key("timeout"), v.Timeout, time.Millisecond, day)
	if !d.spoilt(p.key("timeout")) && !d.spoilt(p.key("interval")) && v.Timeout >= v.Interval {
		d.bad(p.key("timeout"), "(%s) must be shorter than check.interval (%s)", formatDuration(v.Timeout), formatDuration(v.Interval))
	}
	within(d, p.key("rise"), v.Rise, 1, 1000)
	within(d, p.key("fall"), v.Fall, 1, 1000)
	within(d, p.key("port"), v.Port, 0, 65535)
	switch q := p.key("type"); {
	case d.spoilt(q):
	case v.Type == "http":
		d.only(p, "http", "send", "expect", "service")
		d.checkHTTP(p, v)
	case v.Type == "tcp":
		d.only(p, "tcp", "method", "path", "host", "header", "body", "match", "status", "service")
		d.checkPattern(p.key("expect"), v.Expect)
	case v.Type == "grpc":
		d.only(p, "grpc", "method", "path", "body", "match", "status", "send", "expect")
		d.checkHostAndHeader(p, v)
	default:
		d.bad(q, "%q is not http, tcp or grpc", v.Type)
	}
}

// only refuses keys that have no meaning for a check of that type.
func (d *decoder) only(p path, kind string, keys ...string) {
	for _, key := range keys {
		if q := p.key(key); d.given(q) {
			d.bad(q, "has no meaning with type = %q", kind)
		}
	}
}

func (d *decoder) checkHTTP(p path, v *Check) {
	if q := p.key("method"); !d.spoilt(q) && (!httpToken(v.Method) || v.Method == "CONNECT" || v.Method == "TRACE") {
		d.bad(q, "%q is no method for a check, such as GET or HEAD", v.Method)
	}
	if q := p.key("path"); !d.spoilt(q) && !targetPath(v.Path) {
		d.bad(q, "%q must begin with \"/\" and have no spaces or fragments", v.Path)
	}
	if q := p.key("status"); !d.spoilt(q) && !statusList(v.Status) {
		d.bad(q, "%q is no list of codes and ranges such as \"200-299,301\"", v.Status)
	}
	d.checkHostAndHeader(p, v)
	if q := p.key("match"); d.given(q) {
		if v.Method == "HEAD" {
			d.bad(q, "has no meaning with method = \"HEAD\": the answer has no body")
		}
		d.checkPattern(q, v.Match)
	}
}

func (d *decoder) checkHostAndHeader(p path, v *Check) {
	if q := p.key("host"); d.given(q) && !hostPort(v.Host) {
		d.bad(q, "%q is not a host name", v.Host)
	}
	for _, name := range sortedKeys(v.Header) {
		q := p.key("header").key(name)
		switch {
		case d.spoilt(q):
		case !httpToken(name):
			d.bad(q, "%q is no name of a field", name)
		case strings.EqualFold(name, "Host"):
			d.bad(q, "is set by check.host")
		case strings.EqualFold(name, "Connection"), strings.EqualFold(name, "Content-Length"), strings.EqualFold(name, "Transfer-Encoding"):
			d.bad(q, "is set by proxyd: a check is one request on its own connection")
		case !fieldText(v.Header[name]):
			d.bad(q, "may have the printable characters of ASCII only")
		}
	}
}

// checkPattern judges a text, or "~" and a regular expression.
func (d *decoder) checkPattern(p path, s string) {
	if !d.given(p) {
		return
	}
	expr, regex := strings.CutPrefix(s, "~")
	switch {
	case expr == "":
		d.bad(p, "is empty and would match anything; leave it out")
	case regex:
		if _, err := compileRegex(expr); err != nil {
			d.bad(p, "%v", err)
			return
		}
		d.countRegex(p)
	}
}

func (d *decoder) checkOutliers(p path, pool *Pool) {
	if v := pool.Eject; v != nil {
		within(d, p.key("eject").key("max"), v.Max, 0.01, 1)
	}
	if v := pool.Breaker; v != nil {
		within(d, p.key("breaker").key("errors"), v.Errors, 0.01, 1)
		d.between(p.key("breaker").key("open"), v.Open, 10*time.Millisecond, day)
	}
}

// MaxAttempts is how often an exchange may be tried: what is tried more often makes an
// outage worse, and an exchange remembers where it was.
const MaxAttempts = 5

func (d *decoder) checkRetry(p path, v Retry) {
	within(d, p.key("attempts"), v.Attempts, 1, MaxAttempts)
	d.checkCauses(p.key("on"), v.On)
	if q := p.key("per_try"); v.PerTry != 0 {
		d.between(q, v.PerTry, time.Millisecond, day)
	}
}

// httpToken says whether s can be a method or the name of a field (RFC 9110, 5.6.2).
func httpToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r > '~' || !alnum(byte(r)) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) < 0
}
