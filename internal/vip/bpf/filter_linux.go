package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Filter is a place for a program in the traffic control of an interface, where kernels
// before 6.6 have theirs. What is there stays when the process ends; it needs no pin.
type Filter struct {
	Index    int    // of the interface
	Name     string // at most 15 letters
	Ingress  bool
	Handle   uint32 // tells ours from those of others
	Priority uint16 // the lowest runs first
}

// Attach puts a program there, in one step in the place of one that it held before.
func (f Filter) Attach(p *ebpf.Program) error {
	q := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: f.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := netlink.QdiscAdd(q); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", Explain(err))
	}
	b := f.describe()
	b.Fd, b.DirectAction = p.FD(), true
	if err := netlink.FilterReplace(b); err != nil {
		return fmt.Errorf("attach filter %s: %w", f.Name, Explain(err))
	}
	return nil
}

// Attached reports whether a program is there.
func (f Filter) Attached() bool {
	d := f.describe()
	all, err := netlink.FilterList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: f.Index}}, d.Parent)
	for _, x := range all {
		if a := x.Attrs(); x.Type() == "bpf" && a.Handle == f.Handle && a.Priority == f.Priority {
			return true
		}
	}
	return err != nil // not known is not gone
}

// Remove takes the program away. It is no error if there is none, or no interface. The
// clsact stays, which costs nothing: filters of others may be in it.
func (f Filter) Remove() error {
	err := netlink.FilterDel(f.describe())
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("remove filter %s: %w", f.Name, Explain(err))
	}
	return nil
}

func (f Filter) describe() *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_EGRESS)
	if f.Ingress {
		parent = netlink.HANDLE_MIN_INGRESS
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: f.Index, Parent: parent, Handle: f.Handle, Priority: f.Priority, Protocol: unix.ETH_P_ALL,
		},
		Fd: -1, Name: f.Name,
	}
}
