package config

import (
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// trackKinds are the keys of a track of which exactly one is given.
func trackKinds() []string { return []string{"command", "file", "process", "interface", "pool"} }

// Kind is what of t is looked at: one of the keys command, file, process, interface, pool.
func (t *Track) Kind() string {
	switch {
	case len(t.Command) > 0:
		return "command"
	case t.File != "":
		return "file"
	case t.Process != "":
		return "process"
	case t.Interface != "":
		return "interface"
	}
	return "pool"
}

// completeTracks names the tracks that have no name, and keeps the default time-out below
// an interval that was made short. Nothing but a command has one.
func (d *decoder) completeTracks(c *Config) {
	for i, t := range c.Track {
		p := to("track").at(i)
		if _, given := d.places.get(p.key("timeout")); t.Kind() != "command" {
			t.Timeout = 0
		} else if !given {
			t.Timeout = min(t.Timeout, t.Interval/2)
		}
		if !d.given(p.key("name")) && !d.spoilt(p) {
			t.Name = t.defaultName()
		}
	}
}

// defaultName says what is looked at, in the characters of a name.
func (t *Track) defaultName() string {
	what := t.File + t.Process + t.Interface + t.Pool
	if argv := t.Command; len(argv) > 0 {
		what = argv[0]
		if line := strings.Fields(argv[len(argv)-1]); len(argv) == 3 && argv[1] == "-c" && len(line) > 0 {
			what = line[0]
		}
	}
	name := []byte(t.Kind() + "-" + filepath.Base(what))
	for i, c := range name {
		if !alnum(c) && c != '_' && c != '.' {
			name[i] = '-'
		}
	}
	return string(name[:min(len(name), maxName)])
}

func (d *decoder) checkTracks(c *Config) {
	owner := map[string]int{}
	for i, t := range c.Track {
		p := to("track").at(i)
		clear := d.checkTrackKind(c, p, t)
		if clear {
			d.checkTrackName(p, t, owner, i)
		}
		d.between(p.key("interval"), t.Interval, 50*time.Millisecond, day)
		switch q := p.key("timeout"); {
		case !clear:
		case t.Kind() != "command":
			if d.given(q) {
				d.bad(q, "has no meaning without command: nothing else keeps anyone waiting")
			}
		default:
			d.between(q, t.Timeout, time.Millisecond, day)
			if !d.spoilt(q) && !d.spoilt(p.key("interval")) && t.Timeout >= t.Interval {
				d.bad(q, "(%s) must be shorter than interval (%s)", formatDuration(t.Timeout), formatDuration(t.Interval))
			}
		}
		within(d, p.key("rise"), t.Rise, 1, 1000)
		within(d, p.key("fall"), t.Fall, 1, 1000)
	}
	if p := to("track"); len(c.Track) > 0 && !d.spoilt(to("cluster", "join")) {
		switch {
		case len(c.Cluster.Join) == 0:
			d.bad(p.at(0), "has no meaning without cluster.join: there is no other node that could be fitter")
		case c.Cluster.Witness:
			d.bad(p.at(0), "has no meaning on a witness, which never holds an address")
		}
	}
}

// checkTrackKind judges what is looked at, and reports whether that is clear.
func (d *decoder) checkTrackKind(c *Config, p path, t *Track) bool {
	var kinds []string
	for _, key := range trackKinds() {
		if _, there := d.places.get(p.key(key)); there {
			kinds = append(kinds, key)
		}
	}
	switch {
	case len(kinds) == 0:
		d.bad(p, "needs one of %s: what is looked at", join(trackKinds()))
		return false
	case len(kinds) > 1:
		d.bad(p.key(kinds[1]), "cannot stand beside %s: make it a [[track]] of its own", kinds[0])
		return false
	}
	q := p.key(kinds[0])
	if d.spoilt(q) {
		return false
	}
	switch kinds[0] {
	case "command":
		switch {
		case len(t.Command) == 0 || t.Command[0] == "":
			d.bad(q, "is empty")
		case !filepath.IsAbs(t.Command[0]):
			d.bad(q, "needs the absolute path of a program, not %q; a text in place of the list is a line for /bin/sh", t.Command[0])
		case slices.ContainsFunc(t.Command, func(s string) bool { return strings.ContainsRune(s, 0) }):
			d.bad(q, "may have no zero byte")
		}
	case "file":
		if !filepath.IsAbs(t.File) {
			d.bad(q, "needs an absolute path, not %q", t.File)
		}
	case "process":
		if t.Process == "" || !printable(t.Process) || strings.Contains(t.Process, "/") && !filepath.IsAbs(t.Process) {
			d.bad(q, "%q is neither the name of a process, without a path, nor the absolute path of a file with its number", t.Process)
		}
	case "interface":
		if !interfaceName(t.Interface) {
			d.bad(q, "%q is no name of an interface", t.Interface)
		}
	case "pool":
		switch pool := c.Pool[t.Pool]; {
		case t.Pool == "" || strings.HasPrefix(t.Pool, anonymous) || pool == nil:
			d.bad(q, "%q is not a pool (defined: %s)", t.Pool, join(namedPools(c)))
		case pool.Check == nil && !d.spoilt(to("pool", t.Pool)):
			d.bad(q, "%q has no check, so nobody would know whether its servers are well; give it check = { }", t.Pool)
		}
	}
	return !d.spoilt(q)
}

func (d *decoder) checkTrackName(p path, t *Track, owner map[string]int, i int) {
	q := p.key("name")
	if d.spoilt(q) {
		return
	}
	if err := checkName(t.Name); err != nil {
		d.bad(q, "%q %v", t.Name, err)
		return
	}
	if first, twice := owner[t.Name]; twice {
		d.bad(q, "%q is the name of the [[track]] at line %d too; each needs a name of its own", t.Name, d.where(to("track").at(first)).line)
		return
	}
	owner[t.Name] = i
}
