package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxName bounds names: they become labels of metrics and file names.
const maxName = 63

// maxRouteName bounds names of routes: one has room for a host and a path.
const maxRouteName = 1024

// checkName keeps the grammar of the names of nodes, pools, listeners and addresses.
func checkName(s string) error {
	if s == "" || len(s) > maxName {
		return fmt.Errorf("needs 1 to %d characters", maxName)
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && (i == 0 || c != '-' && c != '_' && c != '.') {
			return errors.New("may have letters and digits, and - _ . after the first character")
		}
	}
	return nil
}

// checkRouteName is wider: the default is made of a host and a path.
func checkRouteName(s string) error {
	if s == "" || len(s) > maxRouteName {
		return fmt.Errorf("needs 1 to %d characters", maxRouteName)
	}
	for i := range len(s) {
		if c := s[i]; !routeNameByte(c) {
			return errors.New(`may have the printable characters of ASCII but "`)
		}
	}
	return nil
}

func routeNameByte(c byte) bool { return c >= ' ' && c <= '~' && c != '"' }

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// interfaceName keeps the kernel's rule for names of interfaces (dev_valid_name).
func interfaceName(s string) bool {
	return s != "" && len(s) <= 15 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\r\n\v\f") && printable(s)
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// fieldText says whether a text may stand in a field of a message: no control
// characters, ASCII only.
func fieldText(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// parsePrefix reads "10.0.0.0/8", or one address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf(`needs an address such as "10.0.0.0/8", not %q`, s)
	}
	return p, nil
}

// parseNodeAddr reads "10.0.0.11" or "10.0.0.11:7946".
// parseHostAddr reads the address of a host, without a port.
func parseHostAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf(`needs an IP address such as "10.0.0.1", not %q`, s)
	}
	return a.Unmap(), nil
}

func parseNodeAddr(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil {
		return netip.AddrPortFrom(a.Unmap(), defaultPort), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf(`needs an IP address such as "10.0.0.11" or "10.0.0.11:7946", not %q`, s)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// A listenAddr is what a listener binds: an address of this host, or every one.
type listenAddr struct {
	addr netip.Addr // not valid: every address, both families
	port uint16
}

func parseListenAddr(s string) (listenAddr, error) {
	wrong := fmt.Errorf(`needs ":80", "10.0.0.1:80" or "[2001:db8::1]:80", not %q`, s)
	if port, ok := strings.CutPrefix(s, ":"); ok {
		n, err := parsePort(port)
		if err != nil {
			return listenAddr{}, wrong
		}
		return listenAddr{port: n}, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 || ap.Addr().IsMulticast() || ap.Addr().Is4In6() {
		return listenAddr{}, wrong
	}
	return listenAddr{addr: ap.Addr(), port: ap.Port()}, nil
}

// String gives the form of the file.
func (a listenAddr) String() string {
	if !a.addr.IsValid() {
		return ":" + strconv.Itoa(int(a.port))
	}
	return netip.AddrPortFrom(a.addr, a.port).String()
}

// overlaps says whether the kernel refuses to bind both.
func (a listenAddr) overlaps(b listenAddr) bool {
	if a.port != b.port {
		return false
	}
	switch {
	case !a.addr.IsValid() || !b.addr.IsValid():
		return true
	case a.addr.Is4() != b.addr.Is4():
		return false
	}
	return a.addr == b.addr || a.addr.IsUnspecified() || b.addr.IsUnspecified()
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '0' || s[0] == '+' {
		return 0, errors.New("needs a port from 1 to 65535")
	}
	return uint16(n), nil
}

// parseServerAddr reads host:port and gives its canonical form.
func parseServerAddr(s string) (string, error) {
	if strings.Contains(s, "://") {
		return "", fmt.Errorf(`needs host:port without a scheme, not %q (tls = true in the pool, or "https://" before all servers of a route, is for TLS)`, s)
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		if ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() {
			return "", fmt.Errorf("needs an address and port that can be dialled, not %q", s)
		}
		return ap.String(), nil
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.IndexByte(s, ':') != i {
		return "", fmt.Errorf(`needs a port, such as "10.0.1.5:8080" or "[2001:db8::5]:8080", not %q`, s)
	}
	host := strings.ToLower(s[:i])
	if _, err := parsePort(s[i+1:]); err != nil {
		return "", fmt.Errorf("%q %w", s, err)
	}
	if !hostName(host) {
		return "", fmt.Errorf("%q is neither an IP address nor a host name", s[:i])
	}
	return host + s[i:], nil
}

// hostName says whether s is a DNS name in lower case. Underscores are let through:
// internal names have them. A name of digits and dots alone is a mistyped address.
func hostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 || strings.Trim(s, "0123456789.") == "" {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !alnum(c) && c != '-' && c != '_' || c >= 'A' && c <= 'Z' {
				return false
			}
		}
	}
	return true
}

// hostPort says whether s can be a Host field: a name or address, with or without port.
func hostPort(s string) bool {
	if _, err := netip.ParseAddrPort(s); err == nil {
		return true
	}
	host, port, found := strings.Cut(s, ":")
	if found {
		if _, err := parsePort(port); err != nil {
			return false
		}
	}
	_, err := canonicalHost(host)
	return err == nil && !strings.Contains(host, "*")
}

// canonicalHost gives the form in which requests are compared: lower case, no final
// dot. The error follows the host.
func canonicalHost(s string) (string, error) {
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")); err == nil && a.Zone() == "" {
		if a.Is4() {
			return a.String(), nil
		}
		return "[" + a.String() + "]", nil
	}
	host := strings.ToLower(strings.TrimSuffix(s, "."))
	switch {
	case s == "*":
		return "", errors.New("is every host: leave host out")
	case strings.IndexFunc(s, func(r rune) bool { return r > '~' }) >= 0:
		return "", errors.New(`is not ASCII; write the name as DNS has it, with "xn--"`)
	case strings.Contains(s, "://") || strings.Contains(s, "/"):
		return "", errors.New("is not a host name; the path has a key of its own")
	case strings.Contains(s, ":"):
		return "", errors.New("has a port; the port is the listener's affair")
	}
	name, wild := strings.CutPrefix(host, "*.")
	switch {
	case strings.Contains(name, "*"):
		return "", errors.New(`has a "*" that is not the first label, as in "*.example.com"`)
	case !hostName(name):
		return "", errors.New("is not a host name")
	case wild:
		return "*." + name, nil
	}
	return name, nil
}

// canonicalPath gives a route's path in the form in which requests are compared:
// unreserved octets decoded, other escapes in upper case (RFC 3986, 6.2.2). The error
// follows the path.
func canonicalPath(s string) (string, error) {
	if err := checkRoutePath(s); err != nil {
		return "", err
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		v, _ := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if c := byte(v); alnum(c) || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(s[i : i+3]))
		}
		i += 2
	}
	return b.String(), checkRoutePath(b.String()) // a dot segment may have been in disguise
}

// checkRoutePath keeps the grammar of a route's path. The error follows the path.
func checkRoutePath(s string) error {
	key := strings.TrimSuffix(s, "/*")
	switch {
	case s == "" || s == "/*":
		return nil
	case s[0] != '/':
		return errors.New(`must begin with "/"`)
	case strings.Contains(key, "*"):
		return errors.New(`may have "*" only at its end after a slash, as in "/api/*"`)
	case strings.ContainsAny(s, "?#"):
		return errors.New("may have no query and no fragment")
	case strings.ContainsAny(s, `\"`) || !fieldText(s) || strings.Contains(s, " "):
		return errors.New("must be written as in a request: percent-encoded")
	}
	if _, err := url.PathUnescape(s); err != nil {
		return errors.New("has a percent sign without two hexadecimal digits")
	}
	if strings.Contains(s, "//") {
		return errors.New("has an empty segment, which no normalised request has")
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "." || segment == ".." {
			return errors.New(`has a "." or ".." segment, which no normalised request has`)
		}
	}
	return nil
}

// targetPath says whether s can stand in a request line.
func targetPath(s string) bool {
	return strings.HasPrefix(s, "/") && fieldText(s) && !strings.ContainsAny(s, " #")
}

// statusList says whether s is a list such as "200-299,301".
func statusList(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			hi = lo
		}
		a, err1 := strconv.Atoi(lo)
		b, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || a < 100 || b > 599 || a > b {
			return false
		}
	}
	return true
}

// fieldName says whether s may be the name of a header field (RFC 9110, 5.1).
func fieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.Contains("!#$%&'*+-.^_`|~", string(rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 100
}
