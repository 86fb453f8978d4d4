package config

import (
	"slices"
	"strings"
)

func (d *decoder) checkPolicies(c *Config) {
	used := map[string]bool{}
	for _, r := range c.Route {
		for _, name := range r.Use {
			used[name] = true
		}
	}
	for _, name := range sortedKeys(c.Policy) {
		policy, p := c.Policy[name], to("policy", name)
		d.checkHeaders(p.key("headers"), &policy.Headers)
		if policy.Expires != nil {
			d.checkExpires(p.key("expires"), policy.Expires)
		}
		if policy.Compress != nil {
			d.checkCompress(p.key("compress"), policy.Compress)
		}
		if !used[name] && !d.spoilt(p) {
			d.warn(c, p, "is used by no route")
		}
	}
}

// checkUse judges the policies that a route names.
func (d *decoder) checkUse(c *Config, p path, r *Route) {
	for i, name := range r.Use {
		q := p.key("use").at(i)
		switch {
		case d.spoilt(q) || c.Policy[name] == nil && d.spoilt(to("policy", name)):
		case c.Policy[name] == nil:
			d.report(d.where(q), q, "%s", d.in(p)+undefined("policy", name, sortedKeys(c.Policy)))
		default:
			for _, before := range r.Use[:i] {
				if before == name {
					d.bad(q, "%q is there twice", name)
					break
				}
			}
		}
	}
}

// undefined says that a name stands for nothing, and what it may be meant to be.
func undefined(kind, name string, defined []string) string {
	msg := kind + " " + quote(name) + " is not defined"
	if near := nearest(name, defined); near != "" {
		msg += "; did you mean " + quote(near) + "?"
	}
	if len(defined) == 0 {
		return msg + ": there is no [" + kind + ".*]"
	}
	return msg + " (defined: " + join(defined) + ")"
}

func (d *decoder) checkHeaders(p path, h *Headers) {
	d.checkFields(p.key("request_set"), h.RequestSet, requestFieldOurs, RequestPieces)
	d.checkFields(p.key("request_add"), h.RequestAdd, requestFieldOurs, RequestPieces)
	d.checkFieldNames(p.key("request_remove"), h.RequestRemove, requestFieldOurs)
	d.checkFields(p.key("response_set"), h.ResponseSet, fieldOurs, ResponsePieces)
	d.checkFields(p.key("response_add"), h.ResponseAdd, fieldOurs, ResponsePieces)
	d.checkFieldNames(p.key("response_remove"), h.ResponseRemove, fieldOurs)
}

// checkFields judges fields that are set or added.
func (d *decoder) checkFields(p path, fields map[string]string, ours func(string) string, cut func(string) ([]Piece, error)) {
	seen := map[string]string{}
	for _, name := range sortedKeys(fields) {
		q := p.key(name)
		if d.spoilt(q) {
			continue
		}
		d.checkFieldName(q, "", name, ours)
		lower := strings.ToLower(name)
		if other := seen[lower]; other != "" {
			d.bad(q, "is the same field as %q", other)
		}
		seen[lower] = name
		value := fields[name]
		if strings.TrimSpace(value) != value || !fieldText(value) {
			d.bad(q, "%q may have the printable characters of ASCII, with no space at either end", value)
		} else if _, err := cut(value); err != nil {
			d.bad(q, "%v", err)
		}
	}
}

// checkFieldNames judges fields that are removed.
func (d *decoder) checkFieldNames(p path, names []string, ours func(string) string) {
	for i, name := range names {
		q := p.at(i)
		if d.spoilt(q) {
			continue
		}
		d.checkFieldName(q, quote(name)+" ", name, ours)
		for _, before := range names[:i] {
			if strings.EqualFold(before, name) {
				d.bad(q, "%q is there twice", name)
				break
			}
		}
	}
}

// checkFieldName judges the name of a field; said is what the place does not say of it.
func (d *decoder) checkFieldName(p path, said, name string, ours func(string) string) {
	if !fieldName(name) {
		d.bad(p, "%sis no name of a field", said)
	} else if why := ours(strings.ToLower(name)); why != "" {
		d.bad(p, "%scannot be changed: %s", said, why)
	}
}

// requestFieldOurs says why a policy may not touch a field of the request, or "".
func requestFieldOurs(lower string) string {
	switch lower {
	case "host":
		return `what a server is sent is host of the pool ("client", "server" or a name)`
	case "forwarded", "x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port":
		return "proxyd says itself where a request comes from, after the policies"
	case "expect":
		return "it is settled with the client on each connection"
	case "proxy":
		return "servers take it for the address of a proxy (httpoxy)"
	}
	return fieldOurs(lower)
}

// fieldOurs says why a policy may not touch a field of either head, or "".
func fieldOurs(lower string) string {
	switch lower {
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade", "http2-settings",
		"proxy-authenticate", "proxy-authorization":
		return "it is of one connection only"
	case "content-length", "transfer-encoding":
		return "it says where the message ends"
	case "via":
		return "proxyd adds its own, after the policies"
	}
	if strings.HasPrefix(lower, "sec-websocket-") {
		return "it is part of the WebSocket handshake"
	}
	return ""
}

func (d *decoder) checkExpires(p path, v *Expires) {
	if q := p.key("after"); d.given(q) {
		d.between(q, v.After, 0, 3650*day)
	} else if !d.spoilt(q) {
		d.bad(p, "needs after, such as after = \"1d\"")
	}
	q := p.key("cache_control")
	if v.CacheControl == "" || d.spoilt(q) {
		return
	}
	for directive := range strings.SplitSeq(v.CacheControl, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch {
		case !fieldName(name) || !fieldText(v.CacheControl):
			d.bad(q, "%q is no list of directives such as \"public, immutable\"", v.CacheControl)
			return
		case strings.EqualFold(name, "max-age"):
			d.bad(q, "has max-age, which comes from after")
		}
	}
}

func (d *decoder) checkCompress(p path, v *Compress) {
	within(d, p.key("min"), v.Min, 0, 1<<30)
	within(d, p.key("padding"), v.Padding, 0, 256)
	for i, t := range v.Types {
		kind, sub, ok := strings.Cut(t, "/")
		if suffix, is := strings.CutPrefix(t, "+"); is {
			kind, sub, ok = "any", suffix, true
		}
		if q := p.key("types").at(i); !d.spoilt(q) && (!ok || !fieldName(kind) || !fieldName(sub) || strings.Contains(kind, "*")) {
			d.bad(q, "%q is no media type, such as \"text/html\", \"text/*\" or \"+json\"", t)
		}
	}
	if q := p.key("types"); len(v.Types) == 0 && !d.spoilt(q) {
		d.bad(q, "is empty, so that nothing is compressed; write compress = false")
	}
	codings := []string{"zstd", "br", "gzip"}
	for i, name := range v.With {
		q := p.key("with").at(i)
		switch {
		case d.spoilt(q):
		case !slices.Contains(codings, name):
			d.bad(q, "%q is not one of %s", name, join(codings))
		case slices.Contains(v.With[:i], name):
			d.bad(q, "%q is there twice", name)
		}
	}
	if q := p.key("with"); len(v.With) == 0 && !d.spoilt(q) {
		d.bad(q, "is empty, so that nothing is compressed; write compress = false")
	}
}
