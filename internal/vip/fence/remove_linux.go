package fence

import (
	"errors"

	"github.com/vishvananda/netlink"

	"proxyd/internal/vip/bpf"
)

// Remove takes down whatever fence a node that is gone has left on an interface. The
// addresses must be gone before.
func Remove(state, device string) error {
	return removeOthers(Config{State: state, Interface: device, Index: indexOf(device)}, "")
}

// indexOf returns the interface's index, 0 if there is none.
func indexOf(device string) int {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return 0
	}
	return l.Attrs().Index
}

// removeOthers takes down what fences by other means than those have left.
func removeOthers(c Config, means string) error {
	var errs []error
	pins, err := bpf.PinsOf(c.State, c.Interface)
	if err != nil {
		return err
	}
	if means != tcx {
		names := []string{pinIn, pinOut}
		if means != clsact {
			names = append(names, pinGates, pinDrops)
		}
		errs = append(errs, pins.Remove(names...))
	}
	if means != clsact && c.Index != 0 {
		p := &programs{index: c.Index}
		for name, ingress := range map[string]bool{pinIn: true, pinOut: false} {
			if f := p.filter(name, ingress); f.Attached() {
				errs = append(errs, f.Remove())
			}
		}
	}
	if means != arpInet {
		errs = append(errs, removeTables(tableName(c.State, c.Interface)))
	}
	return errors.Join(errs...)
}
