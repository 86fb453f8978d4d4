package engine

import (
	"fmt"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A reply is the body of a server's answer on its way to the client: how its end is
// known, and what is left of it.
type reply struct {
	kind    framing
	plain   bool  // the client knows no chunks: HTTP/1.0
	left    int64 // bytes to come, if counted
	chunks  http1.ChunkReader
	done    bool
	surplus bool // the server sent more than its answer
	sized   bool // told, and the client's head has the length

	trailers [][]byte // that are let through
}

// framing is how the end of the server's answer is known.
type framing uint8

const (
	counted framing = iota // Content-Length; also no body at all
	chunks
	untilClose
	told // the server's protocol says it
)

// begin is for an answer p to q, by a route that lets some trailers through.
func (r *reply) begin(q *dataplane.Request, p *dataplane.Response, trailers [][]byte) {
	*r = reply{plain: q.Minor == 0, trailers: trailers}
	r.chunks.Keep = len(trailers) > 0 && !r.plain
	switch {
	case p.NoBody:
	case p.Chunked:
		r.kind = chunks
	case p.Length >= 0:
		r.left = p.Length
	default:
		r.kind = untilClose
	}
}

// unframed is for a client whose protocol tells it the end of an answer.
func (r *reply) unframed() { r.plain, r.chunks.Keep = true, len(r.trailers) > 0 }

// ends reports whether the client will know where the answer ends without the end of its
// connection.
func (r *reply) ends() bool { return r.kind == counted || r.sized || !r.plain }

// byCall is for an answer of a server that speaks HTTP/2. p is its head.
func (r *reply) byCall(p *dataplane.Response) {
	if !p.NoBody && p.Length != 0 {
		r.kind, r.sized = told, p.Length > 0
	}
}

// open reports whether only the end of what is read tells that of the answer.
func (r *reply) open() bool { return r.kind == untilClose || r.kind == told }

// take works off what the server sent: it returns out with what goes to the client
// appended, and what is to follow it as it is.
func (r *reply) take(out, in []byte) (_, body []byte, err error) {
	switch r.kind {
	case counted:
		n := min(int64(len(in)), r.left)
		r.left -= n
		r.done = r.left == 0
		r.surplus = int(n) < len(in)
		return out, in[:n], nil
	case untilClose, told:
		if r.plain || r.sized || len(in) == 0 {
			return out, in, nil
		}
		return appendChunk(out, in), nil, nil
	}
	if r.plain {
		return r.takePlain(out, in)
	}
	t, err := appendChunks(out, in, &r.chunks, r.trailers)
	if err != nil {
		return t.out, nil, fmt.Errorf("%w: %w", dataplane.ErrResponse, err)
	}
	r.done = t.done
	r.surplus = t.used < len(in)
	return t.out, nil, nil
}

// takePlain appends the data of a chunked body without its framing.
func (r *reply) takePlain(out, in []byte) (_, body []byte, err error) {
	for at := 0; at < len(in) && !r.done; {
		data, n, done, err := r.chunks.Next(in[at:])
		if err != nil {
			return out, nil, fmt.Errorf("%w: %w", dataplane.ErrResponse, err)
		}
		out = append(out, data...)
		at += n
		r.done = done
		r.surplus = done && at < len(in)
	}
	return out, nil, nil
}
