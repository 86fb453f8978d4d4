// Package files answers requests with the files of a directory: RFC 9110's conditional
// requests and ranges, and nothing that lies outside of the directory or is hidden in it.
package files

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"
	"time"

	"proxyd/internal/dataplane"
	"proxyd/internal/dataplane/http1"
)

// A Tree is a directory whose files are given out. It is immutable and keeps nothing open:
// the directory is looked up for each request, so that another may take its place.
type Tree struct {
	dir   string
	index []string
}

// New returns the tree below dir. The index names stand for their directory, the first
// that is there.
func New(dir string, index []string) *Tree { return &Tree{dir: dir, index: index} }

// Why an answer is what it is: the words for log and metrics.
const (
	Whole        = "files"
	Part         = "range"
	NotModified  = "not_modified"
	Slash        = "slash"
	NotFound     = "no_file"
	Forbidden    = "file_mode"
	Method       = "file_method"
	Precondition = "precondition"
	NoSuchRange  = "no_range"
	Failed       = "file_error"
)

// Words are the words with the status that goes with each.
func Words() map[string]int {
	return map[string]int{
		Whole: 200, Part: 206, Slash: 301, NotModified: 304, Forbidden: 403, NotFound: 404, Method: 405,
		Precondition: 412, NoSuchRange: 416, Failed: 500,
	}
}

var (
	nameAllow        = []byte("Allow")
	nameAcceptRanges = []byte("Accept-Ranges")
	nameContentRange = []byte("Content-Range")
	nameContentType  = []byte("Content-Type")
	nameETag         = []byte("ETag")
	nameLastModified = []byte("Last-Modified")
	nameLocation     = []byte("Location")
	nameNoSniff      = []byte("X-Content-Type-Options")
	allowed          = []byte("GET, HEAD")
	unitBytes        = []byte("bytes")
	noSniff          = []byte("nosniff")
	plainText        = []byte("text/plain; charset=utf-8")
)

// Answer fills x.Response with the file that the request's path stands for, and returns the
// word for why it is what it is. x.Asked and x.Mark say how the client names it. It may wait
// for a disk.
func (t *Tree) Answer(x *dataplane.Exchange, now time.Time) (word string) {
	name := x.Request.Path
	x.Response.Reset()
	if m := x.Request.Method; m != dataplane.GET && m != dataplane.HEAD {
		return refuse(x, Method)
	}
	local, ok := localName(name)
	if !ok {
		return refuse(x, NotFound)
	}
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return refuse(x, wordOf(err))
	}
	defer root.Close()
	f, err := t.find(root, local, name[len(name)-1] == '/')
	if err == errDirectory {
		return ToSlash(x)
	}
	if err != nil {
		return refuse(x, wordOf(err))
	}
	word = f.give(x, now)
	if x.Response.File == nil && x.Response.Read == nil {
		f.Close()
	}
	return word
}

// A file is open, regular and to be given out.
type file struct {
	*os.File
	size     int64
	modified time.Time
	etag     []byte
	kind     []byte // media type
}

// errDirectory is of a directory that was named without its slash.
var errDirectory = errors.New("is a directory")

// find opens the file that a name stands for.
func (t *Tree) find(root *os.Root, name string, slash bool) (*file, error) {
	f, info, err := open(root, name)
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir():
		f.Close()
		if !slash {
			return nil, errDirectory
		}
	case slash || !info.Mode().IsRegular():
		f.Close()
		return nil, fs.ErrNotExist
	default:
		return newFile(f, info), nil
	}
	for _, index := range t.index {
		f, info, err := open(root, path.Join(name, index))
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case err != nil:
		case info.Mode().IsRegular():
			return newFile(f, info), nil
		default:
			f.Close()
		}
	}
	return nil, fs.ErrNotExist
}

// open opens what a name stands for, without waiting for the other end of a pipe. A
// symbolic link may not lead out of the root.
func open(root *os.Root, name string) (*os.File, os.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// newFile makes the validators of a file (RFC 9110, 8.8): a file that was changed has
// another time or size.
func newFile(f *os.File, info os.FileInfo) *file {
	out := &file{File: f, size: info.Size(), modified: info.ModTime(), kind: typeOf(f.Name())}
	tag := append(make([]byte, 0, 40), '"')
	tag = strconv.AppendInt(tag, out.modified.UnixNano(), 36)
	tag = append(tag, '-')
	tag = strconv.AppendInt(tag, out.size, 36)
	out.etag = append(tag, '"')
	return out
}

// give answers with f, as the conditions and ranges of the request want it.
func (f *file) give(x *dataplane.Exchange, now time.Time) (word string) {
	c := conditions{header: x.Request.Header, etag: f.etag, modified: f.modified.Truncate(time.Second), now: now}
	switch c.judge() {
	case failed:
		word = refuse(x, Precondition)
		f.validators(x, now)
		return word
	case unchanged:
		x.Response.Status, x.Response.Minor, x.Response.Length = 304, 1, -1
		f.validators(x, now)
		return NotModified
	}
	r := &x.Response
	r.Minor = 1
	spans, good := []span(nil), true
	if x.Request.Method == dataplane.GET && c.ranges() { // RFC 9110, 14.2: ranges are of GET alone
		spans, good = parseRanges(x.Request.Header, f.size)
	}
	switch {
	case !good:
		word = refuse(x, NoSuchRange)
		f.rangeField(x, span{-1, 0})
		return word
	case len(spans) == 0:
		r.Status, r.Length, word = 200, f.size, Whole
		f.describe(x, f.kind, now)
		f.body(x, span{0, f.size})
	case len(spans) == 1:
		r.Status, r.Length, word = 206, spans[0].size, Part
		f.describe(x, f.kind, now)
		f.rangeField(x, spans[0])
		f.body(x, spans[0])
	default:
		f.parts(x, spans, now)
		r.Status, word = 206, Part
	}
	return word
}

// body makes s the body of the answer, if it is to have one.
func (f *file) body(x *dataplane.Exchange, s span) {
	if x.Request.Method != dataplane.HEAD && s.size > 0 {
		x.Response.File = &dataplane.FileSection{File: f.File, From: s.from, Size: s.size}
	}
}

// describe adds the fields of an answer that holds some of f.
func (f *file) describe(x *dataplane.Exchange, kind []byte, now time.Time) {
	h := &x.Response.Header
	h.Add(dataplane.Other, nameContentType, kind)
	h.Add(dataplane.Other, nameAcceptRanges, unitBytes)
	h.Add(dataplane.Other, nameNoSniff, noSniff)
	f.validators(x, now)
}

func (f *file) validators(x *dataplane.Exchange, now time.Time) {
	h := &x.Response.Header
	h.Add(dataplane.Other, nameETag, f.etag)
	modified := f.modified
	if modified.After(now) {
		modified = now // RFC 9110, 8.8.2.1: never later than the answer itself
	}
	if modified.Unix() > 0 {
		text := modified.UTC().AppendFormat(nil, dateForm)
		h.Add(dataplane.Other, nameLastModified, text)
	}
}

// refuse answers without a file. It says nothing of where the files lie.
func refuse(x *dataplane.Exchange, word string) string {
	r := &x.Response
	r.Reset()
	r.Status, r.Minor = Words()[word], 1
	r.Body = append(strconv.AppendInt(nil, int64(r.Status), 10), ' ')
	r.Body = append(append(r.Body, http1.Reason(r.Status)...), '\n')
	r.Length = int64(len(r.Body))
	r.Header.Add(dataplane.Other, nameContentType, plainText)
	if word == Method {
		r.Header.Add(dataplane.Other, nameAllow, allowed)
	}
	return word
}

// ToSlash sends the client to the directory that it asked for, with its slash, by the name
// that it has for this site, and returns the word for that. A target without a host could be made another site's (C7).
func ToSlash(x *dataplane.Exchange) string {
	x.Response.Reset()
	if len(x.Mark.Authority) == 0 || len(x.Mark.Scheme) == 0 {
		return refuse(x, NotFound)
	}
	asked, query := x.Asked()
	to := x.Keep(x.Mark.Scheme, []byte("://"), x.Mark.Authority, asked, []byte("/"))
	if query != nil {
		to = x.Keep(to, []byte("?"), query)
	}
	for _, c := range to {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return refuse(x, NotFound)
		}
	}
	word := refuse(x, Slash)
	x.Response.Header.Add(dataplane.Location, nameLocation, to)
	return word
}

// wordOf says what a failure to open means for the client.
func wordOf(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return Forbidden
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EIO):
		return Failed
	}
	return NotFound // not there, or not within the root
}
