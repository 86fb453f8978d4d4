package filter

import (
	"strconv"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// A value is the text of a field, perhaps with parts that each exchange fills in.
type value struct {
	fixed []byte // all of it, if parts is nil
	parts []part
}

// A part is fixed text, or a placeholder and the field that it names.
type part struct {
	text []byte
	word string // "" for text
	name string
}

// newValue makes a value of what config has cut. What is the same for every exchange of
// the route is filled in now.
func newValue(pieces []config.Piece, env Env) value {
	var v value
	dynamic := false
	for _, p := range pieces {
		switch p.Word {
		case "":
		case "node":
			p = config.Piece{Text: env.Node}
		case "route":
			p = config.Piece{Text: env.Route}
		default:
			dynamic = true
			v.parts = append(v.parts, part{word: p.Word, name: p.Name})
			continue
		}
		v.parts = append(v.parts, part{text: []byte(p.Text)})
		v.fixed = append(v.fixed, p.Text...)
	}
	if !dynamic {
		v.parts = nil
	}
	return v
}

// of returns the text for x, valid until End. It is not ok if a control character is in
// what the exchange gave.
func (v *value) of(x *dataplane.Exchange) (text []byte, ok bool) {
	if v.parts == nil {
		return v.fixed, true
	}
	from := len(x.Text)
	for i := range v.parts {
		p := &v.parts[i]
		if p.word == "" {
			x.Text = append(x.Text, p.text...)
		} else {
			x.Text = p.appendTo(x.Text, x)
		}
	}
	text = x.Text[from:len(x.Text):len(x.Text)]
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, false
		}
	}
	return text, true
}

// appendTo appends what the placeholder stands for.
func (p *part) appendTo(t []byte, x *dataplane.Exchange) []byte {
	q := &x.Request
	path, query := x.Asked()
	switch p.word {
	case "client":
		return x.Mark.ClientIP.WithZone("").AppendTo(t)
	case "header":
		return append(t, q.Header.Find(p.name)...)
	case "host":
		return append(t, q.Host...)
	case "listener":
		return append(t, x.Listener.Name...)
	case "method":
		return append(t, q.MethodText...)
	case "path":
		return append(t, path...)
	case "query":
		return append(t, query...)
	case "request_id":
		return append(t, x.Mark.RequestID...)
	case "scheme":
		return append(t, x.Mark.Scheme...)
	case "status":
		return strconv.AppendInt(t, int64(x.Response.Status), 10)
	case "uri":
		t = append(t, path...)
		if query != nil {
			t = append(append(t, '?'), query...)
		}
	}
	return t
}
