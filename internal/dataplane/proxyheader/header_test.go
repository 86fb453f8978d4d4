package proxyheader

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"proxyd/internal/dataplane"
)

const sig = "\r\n\r\n\x00\r\nQUIT\n"

// v2 is a header of version 2: its command, its family and what follows.
func v2(command, family byte, body string) string {
	return sig + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

const (
	four = "\xc6\x33\x64\x09\xcb\x00\x71\x0a\xc8\xd5\x01\xbb"
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x10\xc8\xd5\x01\xbb"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x09" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x0a\xc8\xd5\x01\xbb"
	tlv = "\x04\x00\x03abc" // PP2_TYPE_NOOP
)

var good = map[string]struct{ header, client, local string }{
	"v1 TCP4":                    {"PROXY TCP4 198.51.100.9 203.0.113.10 51413 443\r\n", "198.51.100.9:51413", "203.0.113.10:443"},
	"v1 TCP6":                    {"PROXY TCP6 2001:db8::9 2001:db8::10 51413 443\r\n", "[2001:db8::9]:51413", "[2001:db8::10]:443"},
	"v1 UNKNOWN":                 {"PROXY UNKNOWN\r\n", "", ""},
	"v1 UNKNOWN with more":       {"PROXY UNKNOWN ff:: ff:: 1 2\r\n", "", ""},
	"v2 TCP4":                    {v2(0x21, 0x11, four), "198.51.100.9:51413", "203.0.113.10:443"},
	"v2 TCP6":                    {v2(0x21, 0x21, six), "[2001:db8::9]:51413", "[2001:db8::10]:443"},
	"v2 TCP6 of IPv4 addresses":  {v2(0x21, 0x21, mapped), "198.51.100.9:51413", "203.0.113.10:443"},
	"v2 TCP4 with more to say":   {v2(0x21, 0x11, four+tlv), "198.51.100.9:51413", "203.0.113.10:443"},
	"v2 LOCAL":                   {v2(0x20, 0x00, ""), "", ""},
	"v2 LOCAL that names others": {v2(0x20, 0x11, four), "", ""},
	"v2 LOCAL with more to say":  {v2(0x20, 0x00, tlv), "", ""},
	"v2 by a Unix socket":        {v2(0x21, 0x31, strings.Repeat("a", 216)), "", ""},
	"v2 with its checksum":       {v2(0x21, 0x11, four+tlv+"\x03\x00\x04\x8e\xfb\x46\x2f"+tlv), "198.51.100.9:51413", "203.0.113.10:443"},
	"v2 with what is no TLV":     {v2(0x21, 0x11, four+"\x03\x01\x00\x00"), "198.51.100.9:51413", "203.0.113.10:443"},
	"v2 LOCAL with any checksum": {v2(0x20, 0x11, four+"\x03\x00\x04abcd"), "", ""},
}

func TestParseReadsWhatThereIsAndNoMore(t *testing.T) {
	for name, c := range good {
		t.Run(name, func(t *testing.T) {
			for i := range len(c.header) {
				if _, n, err := Parse([]byte(c.header[:i])); n != 0 || err != nil {
					t.Fatalf("of %d bytes: n = %d, err = %v, want 0, nil", i, n, err)
				}
			}
			h, n, err := Parse([]byte(c.header + "GET / HTTP/1.1\r\n"))
			if err != nil || n != len(c.header) {
				t.Fatalf("n = %d, err = %v, want %d, nil", n, err, len(c.header))
			}
			if c.client == "" {
				if h != (Header{}) {
					t.Errorf("it names %+v, want nobody", h)
				}
			} else if h.Client.String() != c.client || h.Local.String() != c.local {
				t.Errorf("client %v at %v, want %s at %s", h.Client, h.Local, c.client, c.local)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ bytes, reason string }{
		"a request":                {"GET / HTTP/1.1\r\n", "proxy_missing"},
		"a handshake":              {"\x16\x03\x01\x02\x00", "proxy_missing"},
		"the preface of HTTP/2":    {"PRI * HTTP/2.0\r\n", "proxy_missing"},
		"small letters":            {"proxy TCP4 1.2.3.4 1.2.3.5 1 2\r\n", "proxy_missing"},
		"a bare LF":                {"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\n", "proxy_header"},
		"a line without end":       {"PROXY TCP4 " + strings.Repeat("1", 200), "proxy_header"},
		"a line of 108 bytes":      {"PROXY UNKNOWN " + strings.Repeat("1", 92) + "\r\n", "proxy_header"},
		"two spaces":               {"PROXY TCP4  1.2.3.4 1.2.3.5 1 2\r\n", "proxy_header"},
		"another protocol":         {"PROXY UDP4 1.2.3.4 1.2.3.5 1 2\r\n", "proxy_header"},
		"IPv6 as TCP4":             {"PROXY TCP4 ::1 1.2.3.5 1 2\r\n", "proxy_header"},
		"IPv4 as TCP6":             {"PROXY TCP6 1.2.3.4 1.2.3.5 1 2\r\n", "proxy_header"},
		"a zone":                   {"PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n", "proxy_header"},
		"a leading zero":           {"PROXY TCP4 1.2.3.4 1.2.3.5 01 2\r\n", "proxy_header"},
		"a signed port":            {"PROXY TCP4 1.2.3.4 1.2.3.5 +1 2\r\n", "proxy_header"},
		"a port too large":         {"PROXY TCP4 1.2.3.4 1.2.3.5 65536 2\r\n", "proxy_header"},
		"a port too few":           {"PROXY TCP4 1.2.3.4 1.2.3.5 1\r\n", "proxy_header"},
		"a word too many":          {"PROXY TCP4 1.2.3.4 1.2.3.5 1 2 3\r\n", "proxy_header"},
		"nobody as the client":     {"PROXY TCP4 0.0.0.0 1.2.3.5 1 2\r\n", "proxy_header"},
		"a group as the client":    {"PROXY TCP4 224.0.0.1 1.2.3.5 1 2\r\n", "proxy_header"},
		"version 3":                {v2(0x31, 0x11, four), "proxy_header"},
		"an unknown command":       {v2(0x22, 0x11, four), "proxy_header"},
		"an unknown family":        {v2(0x21, 0x41, four), "proxy_header"},
		"datagrams":                {v2(0x21, 0x12, four), "proxy_header"},
		"no family":                {v2(0x21, 0x00, ""), "proxy_header"},
		"too little for addresses": {v2(0x21, 0x11, four[:11]), "proxy_header"},
		"another checksum":         {v2(0x21, 0x11, four+tlv+"\x03\x00\x04abcd"), "proxy_header"},
		"a short checksum":         {v2(0x21, 0x21, six+"\x03\x00\x03abc"), "proxy_header"},
		"too much":                 {sig + "\x21\x11\xff\xff", "proxy_header"},
	} {
		t.Run(name, func(t *testing.T) {
			h, n, err := Parse([]byte(c.bytes))
			var m *dataplane.Malformed
			if !errors.As(err, &m) || m.Reason != c.reason || n != 0 || h != (Header{}) {
				t.Errorf("Parse = %+v, %d, %v, want an error for %s", h, n, err, c.reason)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	v4, other4 := netip.MustParseAddrPort("198.51.100.9:51413"), netip.MustParseAddrPort("203.0.113.10:443")
	v6 := netip.MustParseAddrPort("[2001:db8::9]:51413")
	for name, c := range map[string]struct {
		version       int
		client, local netip.AddrPort
		want          string
	}{
		"v1 of IPv4":      {1, v4, other4, good["v1 TCP4"].header},
		"v2 of IPv4":      {2, v4, other4, v2(0x21, 0x11, four)},
		"v1 of both":      {1, v6, other4, "PROXY TCP6 2001:db8::9 ::ffff:203.0.113.10 51413 443\r\n"},
		"v1 of our own":   {1, netip.AddrPort{}, other4, "PROXY UNKNOWN\r\n"},
		"v2 of our own":   {2, netip.AddrPort{}, other4, v2(0x20, 0x00, "")},
		"v1 without zone": {1, netip.MustParseAddrPort("[fe80::1%eth0]:1"), netip.MustParseAddrPort("[fe80::2%eth0]:2"), "PROXY TCP6 fe80::1 fe80::2 1 2\r\n"},
	} {
		got, err := Append([]byte("x"), c.version, c.client, c.local)
		if err != nil || string(got) != "x"+c.want {
			t.Errorf("%s: Append = %q, %v, want %q", name, got, err, "x"+c.want)
		}
	}
	if _, err := Append(nil, 3, v4, other4); err == nil {
		t.Error("a header of version 3 was written")
	}
}

// FuzzParse: what is read is what is there, however it comes, and what Append would write.
func FuzzParse(f *testing.F) {
	for _, c := range good {
		f.Add([]byte(c.header), 0)
		f.Add([]byte(c.header+"GET / HTTP/1.1\r\n\r\n"), 5)
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		h, n, err := Parse(b)
		if n < 0 || n > len(b) || n > MaxBytes || err != nil && (n != 0 || h != Header{}) {
			t.Fatalf("Parse = %+v, %d, %v of %d bytes", h, n, err, len(b))
		}
		if cut >= 0 && cut < n {
			if _, m, err := Parse(b[:cut]); m != 0 || err != nil {
				t.Fatalf("of the first %d of %d bytes: %d, %v, want 0, nil\n%s", cut, n, m, err, hex.Dump(b[:n]))
			}
		}
		if n == 0 {
			return
		}
		if again, m, err := Parse(b[:n]); again != h || m != n || err != nil {
			t.Fatalf("without what follows: %+v, %d, %v, want %+v, %d", again, m, err, h, n)
		}
		for version := 1; version <= 2; version++ {
			w, err := Append(nil, version, h.Client, h.Local)
			if err != nil {
				t.Fatalf("Append(%+v): %v", h, err)
			}
			if again, m, err := Parse(w); again != h || m != len(w) || err != nil {
				t.Fatalf("what Append wrote of %+v reads as %+v, %d, %v: %q", h, again, m, err, w)
			}
			if version == 1 && bytes.IndexByte(w, '\n') != len(w)-1 {
				t.Fatalf("more than a line: %q", w)
			}
		}
	})
}
