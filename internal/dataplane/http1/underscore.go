package http1

import "proxyd/internal/dataplane"

// underscored judges a field of a request with an underscore in its name: whether it is
// kept (S9, B4). Servers that hand fields to programs as variables (CGI, WSGI, FastCGI)
// tell no underscore from a hyphen. So one that is known by the name with hyphens is never
// kept: it would be read as what we read, remove or write ourselves.
func underscored(name []byte, how dataplane.Underscores) (keep bool, err error) {
	switch how {
	case dataplane.RejectUnderscores:
		return false, malformed(400, "underscore", "")
	case dataplane.KeepUnderscores:
		var buf [len(names)]byte
		if len(name) >= len(buf) {
			return true, nil
		}
		hyphened := buf[:len(name)]
		for i, c := range name {
			hyphened[i] = Hyphened(c)
		}
		return identify(hyphened) == dataplane.Other, nil
	}
	return false, nil
}

// Hyphened returns an octet of a name in the form in which names are compared by who tells no
// underscore from a hyphen: lower case, a hyphen for both.
func Hyphened(c byte) byte {
	if c == '_' {
		return '-'
	}
	return lower(c)
}
