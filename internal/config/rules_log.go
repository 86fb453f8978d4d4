package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxRotated is how many old log files may be kept: each rotation renames all of them.
const maxRotated = 1000

func (d *decoder) checkLog(l *Log) {
	if p := to("log", "level"); !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level) {
		d.bad(p, "%q is not one of debug, info, warn, error", l.Level)
	}
	a, table := &l.Access, to("log", "access")
	if p := table.key("format"); !slices.Contains([]string{"json", "text", "combined"}, a.Format) && !d.spoilt(p) {
		d.bad(p, "%q is not one of json, text, combined", a.Format)
	}
	isFile := filepath.IsAbs(a.Output)
	if p := table.key("output"); !isFile && a.Output != "stdout" && !syslogOutput(a.Output) && !d.spoilt(p) {
		d.bad(p, `%q is neither stdout nor an absolute path nor "syslog:", "syslog:/path", "syslog:host:port"`, a.Output)
	}
	d.between(table.key("slow"), a.Slow, time.Millisecond, day)
	for i, name := range a.Redact {
		if name == "" {
			d.bad(table.key("redact").at(i), "needs the name of a header field or query parameter")
		}
	}
	r := a.Rotate
	switch p := table.key("rotate"); {
	case r == nil || d.spoilt(p):
	case !isFile:
		d.bad(p, "has no meaning for output = %q: only a file is rotated", a.Output)
	default:
		within(d, p.key("size"), r.Size, 1<<10, 1<<40)
		within(d, p.key("keep"), r.Keep, 1, maxRotated)
	}
}

// syslogOutput says whether s names a syslog: the local one, another socket, or a host
// that is sent to by UDP.
func syslogOutput(s string) bool {
	to, ok := strings.CutPrefix(s, "syslog:")
	if !ok || to == "" || filepath.IsAbs(to) {
		return ok
	}
	_, err := parseServerAddr(to)
	return err == nil
}
