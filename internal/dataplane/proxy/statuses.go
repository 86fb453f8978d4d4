package proxy

import "strconv"

// codes are the statuses that are counted as themselves: those of the IANA registry
// and 499. Every other one is counted as "other", at index 0.
var codes = [...]int{0,
	100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226,
	300, 301, 302, 303, 304, 305, 307, 308,
	400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499,
	500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
}

// codeIndex finds a status in codes.
var codeIndex = func() (index [600]uint8) {
	for i, code := range codes {
		if code > 0 {
			index[code] = uint8(i)
		}
	}
	return index
}()

// methods are the label values of dataplane.Method, in its order.
var methods = [...]string{"other", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

// classes are the label values of a status by its first digit.
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

func classOf(status int) int {
	if c := status / 100; c >= 1 && c <= 5 {
		return c
	}
	return 0
}

// codePlace is where a status is counted.
func codePlace(status int) uint8 {
	if status > 0 && status < len(codeIndex) {
		return codeIndex[status]
	}
	return 0
}

// codeLabel is the label value of what is counted at a place.
func codeLabel(place int) string {
	if place == 0 {
		return "other"
	}
	return strconv.Itoa(codes[place])
}
