package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// maxPage bounds the file of an error page.
const maxPage = 1 << 20

// pageTypes are the media types of error pages by the file's extension.
func pageTypes() map[string]string {
	return map[string]string{
		".html": "text/html; charset=utf-8",
		".htm":  "text/html; charset=utf-8",
		".txt":  "text/plain; charset=utf-8",
		".json": "application/json",
		".xml":  "application/xml",
		".svg":  "image/svg+xml",
	}
}

// checkPages reads the error pages of a route. A status by itself goes before its class.
func (d *decoder) checkPages(p path, r *Route) {
	r.Pages = map[int]*Page{}
	classes := map[int]*Page{}
	for _, key := range sortedKeys(r.ErrorPages) {
		q := p.key(key)
		if d.spoilt(q) {
			continue
		}
		page, err := d.host.page(r.ErrorPages[key])
		if err != nil {
			d.bad(q, "%v", err)
			continue
		}
		for word := range strings.SplitSeq(key, ",") {
			word = strings.TrimSpace(word)
			status, err := strconv.Atoi(strings.TrimSuffix(word, "xx"))
			into, lo, hi := r.Pages, 400, 599
			if strings.HasSuffix(word, "xx") {
				into, lo, hi = classes, 4, 5
			}
			switch {
			case err != nil || status < lo || status > hi:
				d.report(d.places.at(q).key, q, "%s", d.in(q)+fmt.Sprintf("%q is no status from 400 to 599, nor 4xx or 5xx", word))
			case into[status] != nil:
				d.report(d.places.at(q).key, q, "%s", d.in(q)+fmt.Sprintf("%s is there twice", word))
			default:
				into[status] = page
			}
		}
	}
	for class, page := range classes {
		for status := class * 100; status < class*100+100; status++ {
			if r.Pages[status] == nil {
				r.Pages[status] = page
			}
		}
	}
}

// page reads an error page.
func (h Host) page(ref string) (*Page, error) {
	name, ok := strings.CutPrefix(ref, "file:")
	if !ok || !filepath.IsAbs(name) {
		return nil, fmt.Errorf(`needs "file:" and an absolute path, not %q`, ref)
	}
	kind := pageTypes()[strings.ToLower(filepath.Ext(name))]
	if kind == "" {
		return nil, fmt.Errorf("file %s has none of the extensions %s, by which its type is known", name, join(sortedKeys(pageTypes())))
	}
	info, err := h.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("file %s does not exist", name)
	case err != nil:
		return nil, fmt.Errorf("file %s: %w", name, cause(err))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("file %s is not a regular file", name)
	case info.Size() > maxPage:
		return nil, fmt.Errorf("file %s has %d bytes; at most %s are read", name, info.Size(), Size(maxPage))
	}
	data, err := h.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w; the user that runs proxyd must be able to read it", name, cause(err))
	}
	return &Page{Type: kind, Body: data[:min(len(data), maxPage)]}, nil
}
