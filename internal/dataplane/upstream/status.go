package upstream

import (
	"strconv"
	"strings"
)

// A statusSet is a list of codes and ranges as in "200-299, 404".
type statusSet []struct{ from, to int }

// parseStatusSet reads what the configuration has checked; "" is 200-399.
func parseStatusSet(text string) statusSet {
	if text == "" {
		text = "200-399"
	}
	var set statusSet
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		from, to, ranged := strings.Cut(part, "-")
		a, errA := strconv.Atoi(strings.TrimSpace(from))
		b, errB := a, error(nil)
		if ranged {
			b, errB = strconv.Atoi(strings.TrimSpace(to))
		}
		if errA == nil && errB == nil {
			set = append(set, struct{ from, to int }{a, b})
		}
	}
	return set
}

func (s statusSet) has(code int) bool {
	for _, r := range s {
		if r.from <= code && code <= r.to {
			return true
		}
	}
	return false
}
