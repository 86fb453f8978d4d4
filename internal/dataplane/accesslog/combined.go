package accesslog

import (
	"net/netip"
	"strconv"
	"time"

	"proxyd/internal/dataplane"
)

// combinedExchange appends the line of x as nginx does under the name "combined":
//
//	$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
func (s *style) combinedExchange(dst []byte, x *dataplane.Exchange, e *Entry) []byte {
	q := &x.Request
	c := combinedLine(combinedBegin(dst, x.Mark.ClientIP, e.Now))
	c.piece(q.MethodText)
	c = append(c, ' ')
	s.censor.target(q.Target, s.query, c.piece)
	c = append(append(c, ' '), q.Proto()...)
	c = combinedStatus(append(c, '"', ' '), e.Status, x.Bytes.Out-int64(x.Response.HeadBytes))
	c = append(c, ' ', '"')
	switch from := q.Header.Get(dataplane.Referer); {
	case from == nil || s.noFrom:
		c = append(c, '-')
	default:
		s.censor.target(from, s.query, c.piece)
	}
	c = append(c, '"', ' ', '"')
	switch agent := q.Header.Get(dataplane.UserAgent); {
	case agent == nil || s.noAgent:
		c = append(c, '-')
	default:
		c.piece(agent)
	}
	return append(c, '"', '\n')
}

// combinedRefused appends the line of bytes that never became a request.
func (s *style) combinedRefused(dst []byte, client netip.AddrPort, m *dataplane.Malformed, now time.Time) []byte {
	c := append(combinedBegin(dst, client.Addr().Unmap(), now), '-', '"', ' ')
	return append(combinedStatus(c, m.Status, 0), " \"-\" \"-\"\n"...)
}

func combinedBegin(dst []byte, client netip.Addr, now time.Time) []byte {
	if client.IsValid() {
		dst = client.WithZone("").AppendTo(dst)
	} else {
		dst = append(dst, '-')
	}
	dst = append(dst, " - - ["...)
	dst = now.AppendFormat(dst, "02/Jan/2006:15:04:05 -0700")
	return append(dst, `] "`...)
}

func combinedStatus(dst []byte, status int, bodyBytes int64) []byte {
	dst = append(strconv.AppendInt(dst, int64(status), 10), ' ')
	return strconv.AppendInt(dst, max(bodyBytes, 0), 10)
}

// A combinedLine takes pieces of values.
type combinedLine []byte

// piece appends p with nginx's escapes: \xHH for quotes, backslashes, controls and all
// that is not ASCII (B10).
func (c *combinedLine) piece(p []byte) {
	const hex = "0123456789ABCDEF"
	dst := *c
	from := 0 // p[from:i] is plain and not copied yet
	for i, b := range p {
		if b >= ' ' && b < 0x7f && b != '"' && b != '\\' {
			continue
		}
		dst = append(append(dst, p[from:i]...), '\\', 'x', hex[b>>4], hex[b&15])
		from = i + 1
	}
	*c = append(dst, p[from:]...)
}
