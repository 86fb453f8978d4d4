// Package backup is one file from which a node can be made again: its configuration, what
// operators asked for, and the generations that it kept; with secrets only sealed, or by
// express wish.
package backup

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// format is the first number of a manifest. A later format has another.
const format = 1

// Bounds of what is read of an archive, which may come from anywhere.
const (
	maxFiles = 4096
	maxFile  = 64 << 20
	maxTotal = 256 << 20
)

// The directories of an archive.
const (
	manifestName = "manifest.json"
	ConfigDir    = "config"  // the main file and what it includes
	StateDir     = "state"   // of node.state
	SecretsDir   = "secrets" // by their absolute paths
	sealedName   = "secrets.sealed"
)

// A Manifest says what an archive holds.
type Manifest struct {
	Format  int       `json:"format"`
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`
	Address string    `json:"address,omitempty"` // of the node in cluster.join
	Version string    `json:"version"`
	Time    time.Time `json:"time"`
	Config  string    `json:"config"`    // hash
	Main    string    `json:"main"`      // where the main file was
	State   string    `json:"state_dir"` // node.state
	Files   []Entry   `json:"files"`
	Secrets []Secret  `json:"secrets"`
}

// An Entry is one file of the archive.
type Entry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A Secret is one that the configuration names, and whether the archive has it.
type Secret struct {
	Ref  string `json:"ref"`  // file:/path or env:NAME
	Have string `json:"have"` // no | clear | sealed
}

// An Archive is a manifest with its files, by their names in it.
type Archive struct {
	Manifest
	Data map[string][]byte
}

// Add puts a file in. Its name is slash-separated and begins with one of the directories.
func (a *Archive) Add(name string, data []byte) {
	if a.Data == nil {
		a.Data = map[string][]byte{}
	}
	sum := sha256.Sum256(data)
	a.Files = append(a.Files, Entry{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])})
	a.Data[name] = data
}

// Write writes an archive as a compressed tar.
func (a *Archive) Write(w io.Writer) error { return a.writeAs(w, format) }

func (a *Archive) writeAs(w io.Writer, format int) error {
	a.Format = format
	manifest, err := json.MarshalIndent(a.Manifest, "", "  ")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	put := func(name string, data []byte) {
		if err == nil {
			err = t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), ModTime: a.Time, Format: tar.FormatPAX})
		}
		if err == nil {
			_, err = t.Write(data)
		}
	}
	put(manifestName, append(manifest, '\n'))
	for _, e := range a.Files {
		put(e.Name, a.Data[e.Name])
	}
	return errors.Join(err, t.Close(), z.Close())
}

// Read reads what Write wrote and checks all of it against the manifest.
func Read(r io.Reader) (*Archive, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("no backup: %w", err)
	}
	t := tar.NewReader(z)
	data := map[string][]byte{}
	total := int64(0)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(h.Name) || path.Clean(h.Name) != h.Name {
			return nil, fmt.Errorf("backup: %q is no plain file below it", h.Name)
		}
		if total += h.Size; h.Size > maxFile || total > maxTotal || len(data) >= maxFiles {
			return nil, errors.New("backup: there is more in it than one has")
		}
		b, err := io.ReadAll(io.LimitReader(t, maxFile))
		if err != nil {
			return nil, fmt.Errorf("backup: %s: %w", h.Name, err)
		}
		if _, twice := data[h.Name]; twice {
			return nil, fmt.Errorf("backup: %s is in it twice", h.Name)
		}
		data[h.Name] = b
	}
	a := &Archive{Data: map[string][]byte{}}
	if err := json.Unmarshal(data[manifestName], &a.Manifest); err != nil {
		return nil, fmt.Errorf("backup: %s: %w", manifestName, err)
	}
	if a.Format != format {
		return nil, fmt.Errorf("backup: format %d, and this program reads %d: restore it with a later release, %s or one after it", a.Format, format, a.Version)
	}
	delete(data, manifestName)
	for _, e := range a.Files {
		b, there := data[e.Name]
		sum := sha256.Sum256(b)
		if !there || int64(len(b)) != e.Size || hex.EncodeToString(sum[:]) != e.SHA256 {
			return nil, fmt.Errorf("backup: %s is missing or damaged", e.Name)
		}
		a.Data[e.Name] = b
	}
	if len(a.Data) != len(data) {
		return nil, errors.New("backup: there are files in it that the manifest does not name")
	}
	return a, nil
}

// In returns the files of one directory by their names below it.
func (a *Archive) In(dir string) map[string][]byte {
	out := map[string][]byte{}
	for name, data := range a.Data {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			out[rest] = data
		}
	}
	return out
}
