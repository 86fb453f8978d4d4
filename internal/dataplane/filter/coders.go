package filter

import (
	"io"
	"sync"
	"sync/atomic"

	brotliwriter "github.com/andybalholm/brotli"
	gzipwriter "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Coders are the encoders of a process, used again and again, and what they have done.
// Each holds about a megabyte for as long as its answer is on the way, so there are at
// most maxCoders in use. Its zero value is ready.
type Coders struct {
	pools  [codings]sync.Pool
	done   [codings]struct{ answers, in, out atomic.Uint64 }
	busy   atomic.Int64
	spared atomic.Uint64
}

// maxCoders is how many answers are compressed at once. More go as they are: slow clients
// and endless streams must not cost memory without bound (E3).
const maxCoders = 256

// room reports whether one more answer may be compressed, and counts one that may not.
func (c *Coders) room() bool {
	if c.busy.Load() < maxCoders {
		return true
	}
	c.spared.Add(1)
	return false
}

// Spared returns how many answers went as they are since there was no room.
func (c *Coders) Spared() uint64 { return c.spared.Load() }

// Coded is what was compressed with one coding.
type Coded struct {
	Coding           string
	Answers, In, Out uint64 // Out is what In became, in bytes
}

// Done returns what was compressed so far.
func (c *Coders) Done() (all []Coded) {
	for i := zstandard; i < codings; i++ {
		d := &c.done[i]
		all = append(all, Coded{codingNames[i], d.answers.Load(), d.in.Load(), d.out.Load()})
	}
	return all
}

// An encoder is what the libraries have in common.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// newEncoder returns an encoder whose levels and windows suit answers that are made on
// the way: fast, and bounded in memory.
func newEncoder(c coding) encoder {
	switch c {
	case zstandard:
		// Without codes for all literals, text in which nothing repeats goes as it is.
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithAllLitEntropyCompression(true), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic("filter: " + err.Error()) // the options are constants
		}
		return e
	case brotli:
		return brotliwriter.NewWriterOptions(nil, brotliwriter.WriterOptions{Quality: 3, LGWin: 18})
	}
	e, err := gzipwriter.NewWriterLevel(nil, 6)
	if err != nil {
		panic("filter: " + err.Error()) // likewise
	}
	return e
}

// open returns a writer that compresses into w, and adds up to most bytes of padding.
func (c *Coders) open(how coding, most int, w io.WriteCloser) *packer {
	c.busy.Add(1)
	e, _ := c.pools[how].Get().(encoder)
	if e == nil {
		e = newEncoder(how)
	}
	p := &packer{coders: c, coding: how, encoder: e, to: w, pad: draw(most)}
	e.Reset((*counter)(p))
	p.padHead()
	return p
}

// A packer compresses one answer. Closing it gives its encoder back.
type packer struct {
	coders  *Coders
	coding  coding
	encoder encoder
	to      io.WriteCloser
	in, out uint64
	fresh   bool // something came since the last flush
	pad     int  // bytes that hide how long the answer is
}

func (p *packer) Write(b []byte) (int, error) {
	p.in += uint64(len(b))
	p.fresh = true
	return p.encoder.Write(b)
}

// Flush lets go of all that was written, so that a client sees it although more is to
// come.
func (p *packer) Flush() error {
	if !p.fresh {
		return nil
	}
	p.fresh = false
	return p.encoder.Flush()
}

func (p *packer) Close() error {
	err := p.end()
	p.encoder.Reset(nil)
	p.coders.pools[p.coding].Put(p.encoder)
	p.encoder = nil
	p.coders.busy.Add(-1)
	d := &p.coders.done[p.coding]
	d.answers.Add(1)
	d.in.Add(p.in)
	d.out.Add(p.out)
	if err2 := p.to.Close(); err == nil {
		err = err2
	}
	return err
}

// A counter is the packer as its encoder sees it: where the compressed bytes go.
type counter packer

func (c *counter) Write(b []byte) (int, error) {
	c.out += uint64(len(b))
	return c.to.Write(b)
}
