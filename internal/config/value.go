package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, in the file "32KiB" or "10MiB".
type Size int64

// Share is a part of a whole from 0 to 1, in the file "20%".
type Share float64

// units of a Size, the largest first.
var units = [...]struct {
	name  string
	bytes Size
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

func parseSize(s string) (Size, error) {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 63)
		if err != nil || Size(n) > math.MaxInt64/u.bytes {
			break
		}
		return Size(n) * u.bytes, nil
	}
	return 0, fmt.Errorf(`needs a size such as "512B", "32KiB" or "10MiB", not %q`, s)
}

// String gives the form of the file.
func (s Size) String() string {
	for _, u := range units {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return "0B"
}

func parseShare(s string) (Share, error) {
	number, ok := strings.CutSuffix(s, "%")
	f, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf(`needs a share from "0%%" to "100%%", not %q`, s)
	}
	return Share(f / 100), nil
}

// String gives the form of the file.
func (s Share) String() string {
	return strconv.FormatFloat(math.Round(float64(s)*1e9)/1e7, 'f', -1, 64) + "%"
}

const (
	day         = 24 * time.Hour
	maxDuration = 3650 * day
)

// parseDuration reads "5s", "1h30m" and "180d".
func parseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf(`needs a duration such as "200ms", "5s", "1h" or "180d", not %q`, s)
	var d time.Duration
	days, rest, ok := strings.Cut(s, "d")
	if ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil || n > uint64(maxDuration/day) {
			return 0, wrong
		}
		d = time.Duration(n) * day
	} else {
		rest = s
	}
	if rest != "" || !ok {
		more, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest, "+-") || more > maxDuration {
			return 0, wrong
		}
		d += more
	}
	return d, nil
}

// formatDuration gives the form of the file: "1h", not "1h0m0s".
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
