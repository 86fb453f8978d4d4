package proxy

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// Statuses of gRPC that answers made here have.
const (
	grpcCancelled        = 1
	grpcInvalid          = 3
	grpcDeadline         = 4
	grpcPermissionDenied = 7
	grpcExhausted        = 8
	grpcUnimplemented    = 12
	grpcInternal         = 13
	grpcUnavailable      = 14
	grpcUnauthenticated  = 16
	grpcUnknown          = 2
)

// grpcStatus returns what an answer made here with a status of HTTP is in gRPC (docs/GRPC.md).
func grpcStatus(status int) int {
	switch status {
	case 400:
		return grpcInternal // as gRPC's own mapping has it
	case 401:
		return grpcUnauthenticated
	case 403:
		return grpcPermissionDenied
	case 404, 405, 421:
		return grpcUnimplemented
	case 408, 499:
		return grpcCancelled
	case 413, 431:
		return grpcExhausted
	case 414:
		return grpcInvalid
	case 429, 502, 503:
		return grpcUnavailable
	case 504:
		return grpcDeadline
	case 500:
		return grpcInternal
	}
	return grpcUnknown
}

var (
	nameGRPCStatus  = []byte("grpc-status")
	nameGRPCMessage = []byte("grpc-message")
	kindGRPC        = []byte("application/grpc")
)

// grpcTimeout reads how long a call may take, as its client says. A value that is none has no
// limit.
func grpcTimeout(v []byte) (t time.Duration, limited bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	for _, c := range v[:len(v)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		t = t*10 + time.Duration(c-'0')
	}
	units := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}
	unit, known := units[v[len(v)-1]]
	if !known || t > math.MaxInt64/unit {
		return 0, false
	}
	return t * unit, true
}

// sayGRPC makes an answer of ours to a call of gRPC one that its client understands: the status
// in a head that is all there is, with 200 ("trailers-only"). Fields that were added to the
// answer stay.
func sayGRPC(x *dataplane.Exchange) {
	q, r := &x.Request, &x.Response
	if q.Version < 2 || !q.GRPC() || r.Status < 300 {
		return
	}
	x.Mark.Meant = r.Status
	said := grpcStatus(r.Status)
	if t, limited := grpcTimeout(q.Header.Find("grpc-timeout")); limited && time.Since(x.Times.Start) >= t {
		said = grpcDeadline // and a server that ends the stream then is not to blame
	}
	why := "proxyd: " + http1.Reason(r.Status)
	if x.Mark.Reason != "" {
		why += " (" + x.Mark.Reason + ")"
	}
	kept := r.Header[:0]
	for _, f := range r.Header {
		switch f.ID {
		case dataplane.ContentLength, dataplane.Location:
			continue
		case dataplane.Other:
			if bytes.EqualFold(f.Name, nameContentType) {
				continue
			}
		}
		kept = append(kept, f)
	}
	*r = dataplane.Response{Status: 200, Minor: 1, Header: kept, Length: -1, NoBody: true}
	r.Header.Add(dataplane.Other, nameContentType, kindGRPC)
	r.Header.Add(dataplane.Other, nameGRPCStatus, strconv.AppendInt(nil, int64(said), 10))
	r.Header.Add(dataplane.Other, nameGRPCMessage, []byte(why))
}
