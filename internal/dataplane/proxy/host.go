package proxy

import (
	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A hostRule says which Host the servers of a pool are sent.
type hostRule struct {
	named  []byte // a name of the configuration; nil: none
	server bool   // the server's name in the configuration; otherwise the client's, in its canonical form
}

func newHostRule(c *config.Pool) hostRule {
	switch c.Host {
	case "", "client":
		return hostRule{}
	case "server":
		return hostRule{server: true}
	}
	return hostRule{named: []byte(c.Host)}
}

// tell gives q the Host for a server of that name. What it writes is appended to text,
// which it returns.
func (h hostRule) tell(text []byte, q *dataplane.Request, server string) []byte {
	from, host := len(text), h.named
	switch {
	case host != nil:
	case h.server || len(q.Host) == 0: // HTTP/1.0 may name none
		text = append(text, server...)
		host = text[from:len(text):len(text)]
	case len(q.Port) == 0:
		host = q.Host
	default:
		text = append(append(append(text, q.Host...), ':'), q.Port...)
		host = text[from:len(text):len(text)]
	}
	for i := range q.Header {
		if q.Header[i].ID == dataplane.Host {
			q.Header[i].Value = host
			return text
		}
	}
	q.Header.Add(dataplane.Host, nameHost, host)
	return text
}

// clientHost returns the canonical host and port that the client asked for.
func clientHost(x *dataplane.Exchange) []byte {
	if len(x.Request.Port) == 0 {
		return x.Request.Host
	}
	return x.Keep(x.Request.Host, colon, x.Request.Port)
}
