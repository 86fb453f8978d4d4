package config

import (
	"slices"
	"strings"
	"time"
)

func (d *decoder) checkBalance(p path, pool *Pool) {
	balances := []string{"round_robin", "least_conn", "ewma", "random", "hash", "first"}
	if q := p.key("balance"); !d.spoilt(q) && !slices.Contains(balances, pool.Balance) {
		msg := "%q is not one of " + join(balances)
		if near := nearest(pool.Balance, balances); near != "" {
			msg += "; did you mean \"" + near + "\"?"
		}
		d.bad(q, msg, pool.Balance)
	}
	if q := p.key("hash_key"); d.given(q) {
		switch {
		case pool.Balance != "hash" && !d.spoilt(p.key("balance")):
			d.bad(q, "has no meaning without balance = \"hash\"")
		case !hashKey(pool.HashKey):
			d.bad(q, "%q is not ip, uri, header:NAME or cookie:NAME", pool.HashKey)
		}
	}
	d.between(p.key("slow_start"), pool.SlowStart, 0, day)
	d.checkRoom(p, pool)
	if y, q := pool.Sticky, p.key("sticky"); y != nil {
		if k := q.key("cookie"); !d.spoilt(k) && !fieldName(y.Cookie) {
			d.bad(k, "%q cannot be the name of a cookie", y.Cookie)
		}
		k := q.key("ttl")
		d.between(k, y.TTL, 0, 400*day)
		if !d.spoilt(k) && y.TTL%time.Second != 0 {
			d.bad(k, "(%s) must be whole seconds", formatDuration(y.TTL))
		}
	}
}

// hashKey says whether s names something that every request may have.
func hashKey(s string) bool {
	kind, name, named := strings.Cut(s, ":")
	switch kind {
	case "ip", "uri":
		return !named
	case "header", "cookie":
		return fieldName(name)
	}
	return false
}

// checkRoom judges the limits of a pool's servers and its queue.
func (d *decoder) checkRoom(p path, pool *Pool) {
	within(d, p.key("max_conns"), pool.MaxConns, 0, 1_000_000)
	limited := pool.MaxConns > 0
	for _, s := range pool.Server {
		limited = limited || s.MaxConns > 0
	}
	if pool.Queue == nil {
		return
	}
	q := p.key("queue")
	within(d, q.key("size"), pool.Queue.Size, 1, 1_000_000)
	d.between(q.key("wait"), pool.Queue.Wait, time.Millisecond, time.Hour)
	if !limited && !d.spoilt(p.key("max_conns")) && !d.spoilt(p.key("server")) {
		d.bad(q, "has no meaning without max_conns: nothing ever waits")
	}
}

// warnOfBalance says what is allowed and hardly meant.
func (d *decoder) warnOfBalance(c *Config) {
	cookies := map[string]string{} // the pool that has it
	for _, name := range sortedKeys(c.Pool) {
		pool, p := c.Pool[name], to("pool", name)
		zoned := slices.ContainsFunc(pool.Server, func(s Server) bool { return s.Zone != "" })
		switch {
		case !zoned:
		case pool.Balance == "hash" || pool.Balance == "first":
			d.warn(c, p.key("server"), "has zones, which balance = %q does not look at: it chooses the same on every node", pool.Balance)
		case c.Node.Zone == "":
			d.warn(c, p.key("server"), "has zones, which mean nothing while node.zone is not set")
		}
		if pool.Sticky == nil {
			continue
		}
		if other, taken := cookies[pool.Sticky.Cookie]; taken {
			d.warn(c, p.key("sticky"), "has the cookie %q of pool %q: a client of both would lose its server each time; give it a name of its own", pool.Sticky.Cookie, other)
		}
		cookies[pool.Sticky.Cookie] = name
	}
}
