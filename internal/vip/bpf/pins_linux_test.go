package bpf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// inside reports whether the test runs in namespaces of its own, for network and mounts.
// If not, it runs the test again in a child process that does, and the caller returns.
func inside(t *testing.T) bool {
	t.Helper()
	const mark = "BPF_TEST_INSIDE"
	if os.Getenv(mark) == t.Name() {
		if err := mount(); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: there is no eBPF in a user namespace")
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	c.Env = append(os.Environ(), mark+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Unshareflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("in namespaces of its own: %v\n%s", err, out)
	}
	return false
}

// plug makes an interface eth0 and returns its index.
func plug(t *testing.T) int {
	t.Helper()
	ok(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far0"}))
	return must(netlink.LinkByName("eth0"))(t).Attrs().Index
}

func unplug(t *testing.T) {
	t.Helper()
	ok(t, netlink.LinkDel(must(netlink.LinkByName("eth0"))(t)))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

// pass is a program that has no opinion.
func pass(t *testing.T) *ebpf.Program {
	t.Helper()
	return must(ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	}))(t)
}

func tcx(t *testing.T) {
	t.Helper()
	if err := HaveTCX(); err != nil {
		t.Skip(err)
	}
}

func TestAttachTakesOverWhatAnEarlierLifePinned(t *testing.T) {
	if !inside(t) {
		return
	}
	tcx(t)
	index := plug(t)
	p := must(OpenPins(t.TempDir(), "eth0"))(t)
	attach := func() (link.ID, bool) {
		l, old, err := p.Attach("in", Attachment{Index: index, Program: pass(t), Hook: ebpf.AttachTCXIngress, Place: link.Head()})
		ok(t, err)
		id := must(l.Info())(t).ID
		ok(t, l.Close()) // as the end of the process does
		return id, old
	}
	first, old := attach()
	if old {
		t.Error("the first attachment says that there was one before")
	}
	if !p.Attached("in", index) {
		t.Error("nothing is attached when the process has closed its link")
	}
	if second, old := attach(); !old || second != first {
		t.Errorf("attached again: link %d, old %v; want link %d taken over", second, old, first)
	}
	unplug(t)
	if p.Attached("in", index) {
		t.Error("attached to an interface that is gone")
	}
	index = plug(t)
	if third, old := attach(); old || third == first {
		t.Errorf("on an interface made anew: link %d, old %v; want another link than %d", third, old, first)
	}
	ok(t, p.Remove("in"))
	if p.Attached("in", index) {
		t.Error("attached when the pin was removed")
	}
	if _, err := os.Stat(p.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty directory is still there: %v", err)
	}
}

func TestMapOfAnotherLayoutIsMadeAnew(t *testing.T) {
	if !inside(t) {
		return
	}
	p := must(OpenPins(t.TempDir(), "eth0.5"))(t)
	get := func(size uint32) bool {
		m, old, err := p.Map("map", &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: size, MaxEntries: 8})
		ok(t, err)
		ok(t, m.Close())
		return old
	}
	if get(8) {
		t.Error("a new map is said to be old")
	}
	if !get(8) {
		t.Error("the pinned map was not taken over")
	}
	if get(16) {
		t.Error("a map of another layout was taken over")
	}
}

func TestOpenRemovesPinsOfInterfacesThatAreGone(t *testing.T) {
	if !inside(t) {
		return
	}
	tcx(t)
	index := plug(t)
	dead, alive := must(OpenPins("/dead", "eth0"))(t), must(OpenPins("/alive", "far0"))(t)
	pin := func(p *Pins, index int) {
		l, _, err := p.Attach("in", Attachment{Index: index, Program: pass(t), Hook: ebpf.AttachTCXIngress})
		ok(t, err)
		ok(t, l.Close())
	}
	pin(dead, index)
	unplug(t)
	pin(alive, plug(t))
	must(OpenPins("/new", "eth1"))(t)
	if _, err := os.Stat(filepath.Dir(dead.Dir())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins of an interface that is gone: %v", err)
	}
	if _, err := os.Stat(alive.path("in")); err != nil {
		t.Errorf("pins of an interface that is there: %v", err)
	}
}

func TestFilterStaysWithoutAPin(t *testing.T) {
	if !inside(t) {
		return
	}
	f := Filter{Index: plug(t), Name: "proxyd_in", Ingress: true, Handle: 0x70727864, Priority: 1}
	for range 2 { // again, in the place of itself
		p := pass(t)
		ok(t, f.Attach(p))
		ok(t, p.Close())
	}
	count := func() int {
		return len(must(netlink.FilterList(must(netlink.LinkByName("eth0"))(t), netlink.HANDLE_MIN_INGRESS))(t))
	}
	if n := count(); n != 1 {
		t.Errorf("%d filters, want 1", n)
	}
	for range 2 { // a second time it is not there
		ok(t, f.Remove())
	}
	if n := count(); n != 0 {
		t.Errorf("%d filters when removed, want 0", n)
	}
}

func TestExplainNamesWhatIsMissing(t *testing.T) {
	if got := Explain(nil); got != nil {
		t.Errorf("Explain(nil) = %v", got)
	}
	err := Explain(unix.EPERM)
	if !errors.Is(err, unix.EPERM) || err.Error() == unix.EPERM.Error() {
		t.Errorf("Explain(EPERM) = %q, want the cause and what it means", err)
	}
}
