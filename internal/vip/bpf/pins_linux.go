// Package bpf gives programs to the kernel that go on when their process is gone: it
// attaches them to an interface, pins them in the BPF file system, and takes over, without
// a gap, what an earlier life of the node has pinned there.
package bpf

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Root is where the pins of every node on this machine are, a directory for each.
const Root = mountPoint + "/proxyd"

// mountPoint is where every distribution mounts the BPF file system.
const mountPoint = "/sys/fs/bpf"

// ErrNoFileSystem says that there is no BPF file system to pin anything in.
var ErrNoFileSystem = errors.New("there is no BPF file system at " + mountPoint)

// Pins is the directory of one node's pins for one interface. What is pinned there lives
// on when the process ends, however it ends.
type Pins struct{ dir string }

// OpenPins returns the pins of a node for an interface of this process's network
// namespace, and mounts the BPF file system if it is not mounted and that is permitted.
// The node is named by its state directory: several may share a machine, each in a
// namespace of its own or not. What is left of interfaces that are gone is removed.
func OpenPins(state, device string) (*Pins, error) {
	p, err := PinsOf(state, device)
	if err != nil {
		return nil, err
	}
	if err := mount(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for pins: %w", Explain(err))
	}
	p.sweep()
	return p, nil
}

// PinsOf names the pins that OpenPins opens, and touches nothing.
func PinsOf(state, device string) (*Pins, error) {
	dir, err := nodeDir(state)
	if err != nil {
		return nil, err
	}
	// The kernel refuses names with dots; an interface's name has no colon.
	return &Pins{filepath.Join(dir, strings.ReplaceAll(device, ".", ":"))}, nil
}

// PinsOfAll returns the pins that a node has in this process's network namespace, by interface.
// What may not be looked at is not there.
func PinsOfAll(state string) map[string]*Pins {
	all := map[string]*Pins{}
	dir, err := nodeDir(state)
	if err != nil {
		return all
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		all[strings.ReplaceAll(e.Name(), ":", ".")] = &Pins{filepath.Join(dir, e.Name())}
	}
	return all
}

// nodeDir returns the directory of a node's pins in this process's network namespace.
func nodeDir(state string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return "", fmt.Errorf("find own network namespace: %w", err)
	}
	return filepath.Join(Root, fmt.Sprintf("%d-%s", st.Ino, NodeTag(state))), nil
}

// NodeTag returns what tells a node from others of this machine in the names of what it leaves
// in the kernel. It follows from the node's state directory.
func NodeTag(state string) string {
	if abs, err := filepath.Abs(state); err == nil {
		state = abs
	}
	h := fnv.New32a()
	h.Write([]byte(state))
	return fmt.Sprintf("%08x", h.Sum32())
}

// Dir returns the directory.
func (p *Pins) Dir() string { return p.dir }

func (p *Pins) path(name string) string { return filepath.Join(p.dir, name) }

// Map returns the pinned map of the name if it is as the specification wants it, and says
// that it is an old one. Else it makes and pins one, in the place of what was there.
func (p *Pins) Map(name string, spec *ebpf.MapSpec) (m *ebpf.Map, old bool, err error) {
	m, err = ebpf.LoadPinnedMap(p.path(name), nil)
	switch {
	case err == nil && spec.Compatible(m) == nil:
		return m, true, nil
	case err == nil: // of another version of proxyd
		m.Close()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("open pinned map %s: %w", name, Explain(err))
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, false, fmt.Errorf("make map %s: %w", name, Explain(err))
	}
	if err = p.unpin(name); err == nil {
		err = m.Pin(p.path(name))
	}
	if err != nil {
		m.Close()
		return nil, false, fmt.Errorf("pin map %s: %w", name, Explain(err))
	}
	return m, false, nil
}

// Old returns the pinned map of the name as it is.
func (p *Pins) Old(name string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(p.path(name), nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned map %s: %w", name, Explain(err))
	}
	return m, nil
}

// An Attachment says where a program goes.
type Attachment struct {
	Index   int // of the interface
	Program *ebpf.Program
	Hook    ebpf.AttachType // AttachTCXIngress or AttachTCXEgress
	Place   link.Anchor     // among the programs of others; nil: after them
}

// Attach attaches a program and pins the link under the name. If a link of that name is
// there and its interface still is, the program takes the place of its program in one
// step: at no instant is there none, and old says so.
func (p *Pins) Attach(name string, a Attachment) (l link.Link, old bool, err error) {
	l, err = link.LoadPinnedLink(p.path(name), nil)
	switch {
	case err == nil && on(l, a):
		if err := l.Update(a.Program); err != nil {
			l.Close()
			return nil, true, fmt.Errorf("replace program %s: %w", name, Explain(err))
		}
		return l, true, nil
	case err == nil: // its interface was made anew
		l.Close()
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, fmt.Errorf("open pinned link %s: %w", name, Explain(err))
	}
	if err := p.unpin(name); err != nil {
		return nil, false, err
	}
	// Another node that starts on this machine takes the pins away of an interface that is gone
	// for a moment, with their directory.
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, false, fmt.Errorf("make a directory for pins: %w", Explain(err))
	}
	l, err = link.AttachTCX(link.TCXOptions{Interface: a.Index, Program: a.Program, Attach: a.Hook, Anchor: a.Place})
	if err != nil {
		return nil, false, fmt.Errorf("attach program %s: %w", name, Explain(err))
	}
	if err := l.Pin(p.path(name)); err != nil {
		l.Close()
		return nil, false, fmt.Errorf("pin link %s: %w", name, Explain(err))
	}
	return l, false, nil
}

// on reports whether a link is at the hook of an interface that is there.
func on(l link.Link, a Attachment) bool {
	i := at(l)
	return i != nil && int(i.Ifindex) == a.Index && ebpf.AttachType(i.AttachType) == a.Hook
}

// at returns where a link is, nil if its interface is gone.
func at(l link.Link) *link.TCXInfo {
	i, err := l.Info()
	if err != nil || i.TCX() == nil || i.TCX().Ifindex == 0 {
		return nil
	}
	return i.TCX()
}

// Attached reports whether the pinned link of the name is on the interface of the index.
func (p *Pins) Attached(name string, index int) bool {
	l, err := link.LoadPinnedLink(p.path(name), nil)
	if err != nil {
		return false
	}
	defer l.Close()
	i := at(l)
	return i != nil && int(i.Ifindex) == index
}

// Remove takes the pins of the names away. What was attached by them is then without its
// program, as soon as no process has it open. It is no error if one is not there.
func (p *Pins) Remove(names ...string) error {
	var errs []error
	for _, n := range names {
		errs = append(errs, p.unpin(n))
	}
	// The last one out takes the directories along; this fails while something is in them.
	if os.Remove(p.dir) == nil {
		_ = os.Remove(filepath.Dir(p.dir))
	}
	return errors.Join(errs...)
}

func (p *Pins) unpin(name string) error {
	if err := os.Remove(p.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove pin: %w", Explain(err))
	}
	return nil
}

// Others returns the pins of other nodes for the same interface of this namespace: of
// nodes that run, or of an earlier life that had another state directory.
func (p *Pins) Others() (others []*Pins) {
	space, _, _ := strings.Cut(filepath.Base(filepath.Dir(p.dir)), "-")
	all, _ := filepath.Glob(filepath.Join(Root, space+"-*", filepath.Base(p.dir)))
	for _, dir := range all {
		if dir != p.dir {
			others = append(others, &Pins{dir})
		}
	}
	return others
}

// sweep removes pins of whoever was in a namespace that is gone with its interfaces. What
// cannot be looked at is left alone.
func (p *Pins) sweep() {
	dirs, _ := filepath.Glob(filepath.Join(Root, "*", "*"))
	for _, dir := range dirs {
		if dir == p.dir {
			continue
		}
		old := &Pins{dir}
		if names, lives := old.names(); !lives && len(names) > 0 {
			_ = old.Remove(names...) // of nobody's concern any more
		}
	}
}

// names lists what is pinned, and says whether any link of it still has its interface, or
// cannot be looked at, or there is none to look at.
func (p *Pins) names() (names []string, lives bool) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, true
	}
	links := 0
	for _, e := range entries {
		names = append(names, e.Name())
		l, err := link.LoadPinnedLink(p.path(e.Name()), nil)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return names, true
		case err != nil:
			continue // a map
		}
		links++
		lives = lives || at(l) != nil
		l.Close()
	}
	return names, lives || links == 0
}

// mount sees to it that the BPF file system is mounted.
func mount() error {
	if mounted(Root) || mounted(mountPoint) {
		return nil
	}
	// Nodes that start at once must not mount it one over the other.
	d, err := os.Open(mountPoint)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoFileSystem, err)
	}
	defer d.Close()
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", mountPoint, err)
	}
	if mounted(mountPoint) {
		return nil
	}
	if err := unix.Mount("bpf", mountPoint, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("%w, and it cannot be mounted: %w", ErrNoFileSystem, err)
	}
	return nil
}

func mounted(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && s.Type == unix.BPF_FS_MAGIC
}
