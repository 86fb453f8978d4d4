package http1

import (
	"net/url"
	"strings"
	"testing"
)

// plainly is the normal form by the letter of RFC 3986, 6.2.2 and 5.2.4, and slowly: the
// oracle of AppendPath. ok is false for what has none.
func plainly(in string) (out string, ok bool) {
	if !strings.HasPrefix(in, "/") {
		return "", false
	}
	var decoded strings.Builder
	for i := 0; i < len(in); i++ {
		switch c := in[i]; {
		case c <= ' ' || c >= 0x7f || c == '\\' || c == '#' || c == '?':
			return "", false
		case c == '%':
			if i+2 >= len(in) {
				return "", false
			}
			v, err := url.PathUnescape(in[i : i+3])
			if err != nil || v[0] < ' ' || v == "\x7f" || v == "\\" {
				return "", false
			}
			if strings.Contains("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", v) {
				decoded.WriteString(v)
			} else {
				decoded.WriteString(strings.ToUpper(in[i : i+3]))
			}
			i += 2
		default:
			decoded.WriteByte(c)
		}
	}
	var kept []string
	segments := strings.Split(decoded.String()[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "":
		case ".":
		case "..":
			if len(kept) == 0 {
				return "", false
			}
			kept = kept[:len(kept)-1]
		default:
			for _, part := range strings.Split(s, "%2F") {
				part, _, _ = strings.Cut(strings.ReplaceAll(part, "%3B", ";"), ";")
				if part == "." || part == ".." {
					return "", false
				}
			}
			if !last {
				kept = append(kept, s)
				continue
			}
			kept = append(kept, s)
			return "/" + strings.Join(kept, "/"), true
		}
	}
	if len(kept) == 0 {
		return "/", true
	}
	return "/" + strings.Join(kept, "/") + "/", true
}

func TestC1PathAgainstTheLetter(t *testing.T) {
	pieces := []string{"/", "//", "a", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%41", "%c3%a9", "%25", "2e", ";", "%3b", "x=1", "~", "\\", "%", "%zz"}
	var paths func(prefix string, depth int)
	paths = func(prefix string, depth int) {
		check(t, prefix)
		if depth == 0 {
			return
		}
		for _, p := range pieces {
			paths(prefix+p, depth-1)
		}
	}
	paths("/", 3)
	paths("/a/", 3)
}

func check(t *testing.T, in string) {
	t.Helper()
	want, ok := plainly(in)
	out, err := AppendPath([]byte("before"), []byte(in))
	if (err == nil) != ok || ok && string(out) != "before"+want {
		t.Fatalf("AppendPath(%q) = %q, %v; by the letter %q, %v", in, out, err, want, ok)
	}
	if !ok {
		return
	}
	if again, _ := plainly(want); again != want {
		t.Fatalf("%q is normal, but becomes %q", want, again)
	}
	if isNormal([]byte(in)) && in != want {
		t.Fatalf("isNormal(%q), but its form is %q", in, want)
	}
}

// The form is a fixed point, has no dot segment, and is what the letter of the RFC says.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/%2e%2e/b//c/./%2f..;x", "/a/..%3b/b", "/%252e%252e/", "/.well-known/..", "/a/...//.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) { check(t, in) })
}
