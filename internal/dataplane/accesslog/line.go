package accesslog

import (
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"
)

// A line is a JSON object, or a list of name=value, that grows. Names are ours and need
// no escaping. Texts of name=value are quoted as in JSON where they would not read back
// otherwise (B10).
type line struct {
	b     []byte
	json  bool
	value int // where the open value begins, quote included
}

// start writes the time, which is the first field.
func (l *line) start(now time.Time) {
	const layout = "2006-01-02T15:04:05.000000Z07:00"
	if l.json {
		l.b = append(now.UTC().AppendFormat(append(l.b, `{"ts":"`...), layout), '"')
		return
	}
	l.b = now.UTC().AppendFormat(append(l.b, "ts="...), layout)
}

func (l *line) name(name string) {
	if l.json {
		l.b = append(append(append(l.b, ',', '"'), name...), '"', ':')
		return
	}
	l.b = append(append(append(l.b, ' '), name...), '=')
}

// open begins a text that comes in pieces.
func (l *line) open(name string) {
	l.name(name)
	l.value = len(l.b)
	l.b = append(l.b, '"')
}

func (l *line) piece(p []byte) { l.b = escape(l.b, p) }

// shut ends a text. Quotes that name=value can do without go.
func (l *line) shut() {
	if l.json || !plain(l.b[l.value+1:]) {
		l.b = append(l.b, '"')
		return
	}
	l.b = append(l.b[:l.value], l.b[l.value+1:]...)
}

func (l *line) text(name, value string) {
	l.open(name)
	l.b = escape(l.b, value)
	l.shut()
}

func (l *line) bytes(name string, value []byte) {
	l.open(name)
	l.b = escape(l.b, value)
	l.shut()
}

// list writes words; nothing if there are none.
func (l *line) list(name string, words []string) {
	if len(words) == 0 {
		return
	}
	if !l.json {
		l.open(name)
		for i, w := range words {
			if i > 0 {
				l.b = append(l.b, ',')
			}
			l.b = escape(l.b, w)
		}
		l.shut()
		return
	}
	l.name(name)
	l.b = append(l.b, '[')
	for i, w := range words {
		if i > 0 {
			l.b = append(l.b, ',')
		}
		l.b = append(escape(append(l.b, '"'), w), '"')
	}
	l.b = append(l.b, ']')
}

func (l *line) number(name string, n int64) {
	l.name(name)
	l.b = strconv.AppendInt(l.b, n, 10)
}

func (l *line) hex(name string, value []byte) {
	l.open(name)
	l.b = hex.AppendEncode(l.b, value)
	l.shut()
}

// seconds writes d with six places.
func (l *line) seconds(name string, d time.Duration) {
	us := max(d.Microseconds(), 0)
	l.name(name)
	l.b = append(strconv.AppendInt(l.b, us/1e6, 10), '.')
	for unit := int64(100_000); unit > 0; unit /= 10 {
		l.b = append(l.b, byte('0'+us/unit%10))
	}
}

func (l *line) end() []byte {
	if l.json {
		return append(l.b, '}', '\n')
	}
	return append(l.b, '\n')
}

// plain reports whether an escaped text reads back without quotes.
func plain(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == '=' || c == '\\' || c >= 0x7f {
			return false
		}
	}
	return len(b) > 0
}

// escape appends value as JSON wants it between quotes. Bytes that are no UTF-8 become
// the replacement character (B10).
func escape[T string | []byte](dst []byte, value T) []byte {
	const hex = "0123456789abcdef"
	from := 0 // value[from:i] is plain and not copied yet
	for i := 0; i < len(value); {
		c := value[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, value[from:i]...)
		n := 1
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < utf8.RuneSelf:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			var four [4]byte
			var r rune
			r, n = utf8.DecodeRune(four[:copy(four[:], value[i:])])
			dst = utf8.AppendRune(dst, r)
		}
		i += n
		from = i
	}
	return append(dst, value[from:]...)
}
