package route

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"proxyd/internal/config"
	"proxyd/internal/dataplane"
)

// conditions are what a route asks of a request besides listener, host and path; nil if
// it asks nothing.
type conditions struct {
	methods    uint16   // a bit for each dataplane.Method; 0 is any
	others     []string // methods that are none of those
	fields     []condition
	parameters []condition
	clients    *bart.Lite // nil is anywhere
}

// A condition is on the value of one field or parameter.
type condition struct {
	name string
	hop  bool // a field that tells of former hops: true only if a trusted proxy says it
	any  bool
	text string
	re   *regexp.Regexp // instead of text
}

func newConditions(r *config.Route) (*conditions, error) {
	if r.Conditions() == 0 {
		return nil, nil
	}
	c := &conditions{}
	for _, m := range r.Method {
		if known := dataplane.MethodOf([]byte(m)); known != dataplane.MethodOther {
			c.methods |= 1 << known
		} else {
			c.others = append(c.others, m)
		}
	}
	if c.methods&(1<<dataplane.GET) != 0 {
		c.methods |= 1 << dataplane.HEAD
	}
	var err error
	if c.fields, err = newConditionList(r.Header); err != nil {
		return nil, fmt.Errorf("header %w", err)
	}
	for i := range c.fields {
		c.fields[i].hop = len(c.fields[i].name) > len(hopPrefix) && strings.EqualFold(c.fields[i].name[:len(hopPrefix)], hopPrefix)
	}
	if c.parameters, err = newConditionList(r.Query); err != nil {
		return nil, fmt.Errorf("query %w", err)
	}
	for _, p := range r.Client {
		if c.clients == nil {
			c.clients = new(bart.Lite)
		}
		c.clients.Insert(p)
	}
	return c, nil
}

const hopPrefix = "X-Forwarded-"

func newConditionList(asked map[string]string) ([]condition, error) {
	var list []condition
	for name, value := range asked {
		c := condition{name: name, any: value == "*", text: value}
		if expression, ok := strings.CutPrefix(value, "~"); ok {
			re, err := regexp.Compile(expression)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			c.re = re
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b condition) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// hold reports whether a request meets all of them.
func (c *conditions) hold(a *ask) bool {
	if c == nil {
		return true
	}
	return c.failing(a) == nothing
}

// A reason is which condition does not hold.
type reason struct {
	kind string // method, header, query, client; "" for none
	at   int    // of the fields or the parameters
}

var nothing = reason{}

// failing returns the first condition that does not hold, the cheap ones first.
func (c *conditions) failing(a *ask) reason {
	if (c.methods != 0 || c.others != nil) && !c.takes(a.Request) {
		return reason{kind: "method"}
	}
	if c.clients != nil && !c.clients.Contains(a.Client) {
		return reason{kind: "client"}
	}
	for i := range c.fields {
		if !c.fields[i].inHeader(a) {
			return reason{"header", i}
		}
	}
	for i := range c.parameters {
		if !c.parameters[i].inQuery(a.Request) {
			return reason{"query", i}
		}
	}
	return nothing
}

func (c *conditions) takes(r *dataplane.Request) bool {
	if r.Method != dataplane.MethodOther {
		return c.methods&(1<<r.Method) != 0
	}
	for _, m := range c.others {
		if m == string(r.MethodText) {
			return true
		}
	}
	return false
}

// takes reports whether the value is what is asked for.
func (c *condition) takes(value []byte) bool {
	switch {
	case c.any:
		return true
	case c.re != nil:
		return c.re.Match(value)
	}
	return string(value) == c.text
}

// inHeader reports whether the field is there with a value that will do. Several lines
// of one name are one value (RFC 9110, 5.3).
func (c *condition) inHeader(a *ask) bool {
	value, lines := c.field(a)
	if lines > 1 {
		value = c.joined(a, value)
	}
	return lines > 0 && c.takes(value)
}

// field returns the value of the first line and how many there are.
func (c *condition) field(a *ask) (value []byte, lines int) {
	if c.hop && !a.Trusted {
		return nil, 0
	}
	for i := range a.Header {
		f := &a.Header[i]
		if len(f.Name) != len(c.name) || !strings.EqualFold(string(f.Name), c.name) || tellsOfHops(f.ID) && !a.Trusted {
			continue
		}
		if lines == 0 {
			value = f.Value
		}
		lines++
	}
	return value, lines
}

// joined returns the lines' values as one, in the request's scratch.
func (c *condition) joined(a *ask, first []byte) []byte {
	between := ", "
	if strings.EqualFold(c.name, "Cookie") {
		between = "; "
	}
	from := len(a.Text)
	for i := range a.Header {
		if f := &a.Header[i]; strings.EqualFold(string(f.Name), c.name) {
			if len(a.Text) > from {
				a.Text = append(a.Text, between...)
			}
			a.Text = append(a.Text, f.Value...)
		}
	}
	return a.Text[from:]
}

func tellsOfHops(id dataplane.FieldID) bool {
	switch id {
	case dataplane.Forwarded, dataplane.XForwarded, dataplane.XForwardedFor, dataplane.XForwardedProto,
		dataplane.XForwardedHost, dataplane.XForwardedPort, dataplane.XRealIP:
		return true
	}
	return false
}

// inQuery reports whether the parameter is there with a value that will do; of several
// with its name, any. Names and values are read as forms write them: "&" between them,
// "+" a space, escapes decoded; an escape that is none stands for itself.
func (c *condition) inQuery(r *dataplane.Request) bool {
	for rest, more := r.Query, len(r.Query) > 0; more; {
		var pair []byte
		pair, rest, more = bytes.Cut(rest, ampersand)
		name, value, _ := bytes.Cut(pair, equals)
		if len(name) == 0 || !decodesTo(name, c.name) {
			continue
		}
		switch {
		case c.any:
			return true
		case c.re == nil:
			if decodesTo(value, c.text) {
				return true
			}
		case c.re.Match(decoded(r, value)):
			return true
		}
	}
	return false
}

var ampersand, equals = []byte("&"), []byte("=")

// decodesTo reports whether raw, decoded, is text.
func decodesTo(raw []byte, text string) bool {
	n := 0
	for i := 0; i < len(raw); n++ {
		if n == len(text) {
			return false
		}
		c, size := octet(raw[i:])
		if c != text[n] {
			return false
		}
		i += size
	}
	return n == len(text)
}

// decoded returns raw decoded, in the request's scratch if it is not that already.
func decoded(r *dataplane.Request, raw []byte) []byte {
	if bytes.IndexByte(raw, '%') < 0 && bytes.IndexByte(raw, '+') < 0 {
		return raw
	}
	from := len(r.Text)
	for len(raw) > 0 {
		c, size := octet(raw)
		r.Text, raw = append(r.Text, c), raw[size:]
	}
	return r.Text[from:]
}

// octet returns the first octet that raw, which is not empty, stands for, and how many
// of its bytes stand for it.
func octet(raw []byte) (c byte, size int) {
	switch {
	case raw[0] == '+':
		return ' ', 1
	case raw[0] == '%' && len(raw) > 2 && unhex(raw[1]) < 16 && unhex(raw[2]) < 16:
		return unhex(raw[1])<<4 | unhex(raw[2]), 3
	}
	return raw[0], 1
}

// unhex returns the value of a hexadecimal digit, or 16.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
