package fence

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"proxyd/internal/vip/bpf"
)

// Names of the pins.
const (
	pinGates = "fence_gates"
	pinDrops = "fence_drops"
	pinIn    = "fence_in"
	pinOut   = "fence_out"
)

// A program's place in traffic control, for kernels without TCX: first, and by a handle
// that tells it from filters of others ("prxf").
const (
	filterHandle   = 0x70727866
	filterPriority = 1
)

// programs is a fence of two eBPF programs. Pinned by links (TCX) or kept by traffic
// control (clsact), they outlive this process, and so do the maps.
type programs struct {
	pins     *bpf.Pins // nil: no file system for pins, and then by filters
	filters  bool
	addrs    []netip.Addr
	token    *token
	gates    *ebpf.Map
	drops    *ebpf.Map
	in, out  *ebpf.Program
	links    []link.Link
	index    int
	adopted  bool
	tokenOut string // why there is no token, if one was wanted
}

// openTCX attaches by links, which need Linux 6.6 and the BPF file system.
func openTCX(c Config) (barrier, error) {
	if err := bpf.HaveTCX(); err != nil {
		return nil, fmt.Errorf("ebpf by TCX: %w", err)
	}
	pins, err := bpf.OpenPins(c.State, c.Interface)
	if err != nil {
		return nil, fmt.Errorf("ebpf by TCX: %w", err)
	}
	b, err := openPrograms(c, &programs{pins: pins})
	if err != nil {
		return nil, fmt.Errorf("ebpf by TCX: %w", err)
	}
	return b, nil
}

// openFilter attaches by traffic control, which keeps programs without a pin. Without pins
// of the maps the next life begins with a shut fence.
func openFilter(c Config) (barrier, error) {
	pins, err := bpf.OpenPins(c.State, c.Interface)
	if err != nil && !errors.Is(err, bpf.ErrNoFileSystem) && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("ebpf by clsact: %w", err)
	}
	if err != nil {
		pins = nil
	}
	b, err := openPrograms(c, &programs{pins: pins, filters: true})
	if err != nil {
		return nil, fmt.Errorf("ebpf by clsact: %w", err)
	}
	return b, nil
}

func openPrograms(c Config, p *programs) (_ barrier, err error) {
	defer func() {
		if err != nil {
			p.release()
		}
	}()
	if err := sameClock(); err != nil {
		return nil, err
	}
	p.addrs = c.Addresses
	if err := p.openMaps(c.Keep); err != nil {
		return nil, err
	}
	for _, x := range []struct {
		name    string
		to      **ebpf.Program
		ingress bool
	}{{pinIn, &p.in, true}, {pinOut, &p.out, false}} {
		// No attach type: 6.6 takes the program without one for TCX, and 5.10 knows none.
		*x.to, err = ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: x.name, Type: ebpf.SchedCLS, License: "GPL", Instructions: program(p.gates, p.drops, x.ingress),
		})
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", x.name, bpf.Explain(err))
		}
	}
	if c.Token {
		p.openToken(c)
	}
	if err := p.attach(c.Index); err != nil {
		return nil, err
	}
	return p, nil
}

// openMaps takes the maps over or makes them. It shuts every address that is new, and
// every other unless keep.
func (p *programs) openMaps(keep bool) (err error) {
	if p.gates, p.adopted, err = p.openMap(pinGates, gatesSpec()); err != nil {
		return err
	}
	if p.drops, _, err = p.openMap(pinDrops, dropsSpec()); err != nil {
		return err
	}
	how := ebpf.UpdateAny
	if keep {
		how = ebpf.UpdateNoExist
	}
	for _, a := range p.addrs {
		if err := p.begin(a, how); err != nil {
			return err
		}
	}
	return p.forgetOld()
}

// add makes the programs be about the address too.
func (p *programs) add(a netip.Addr) error {
	if err := p.begin(a, ebpf.UpdateAny); err != nil {
		return err
	}
	p.addrs = append(p.addrs, a)
	return nil
}

// forget makes the programs not be about the address any more.
func (p *programs) forget(a netip.Addr) error {
	if err := p.erase(key(a)); err != nil {
		return err
	}
	p.addrs = slices.DeleteFunc(p.addrs, func(x netip.Addr) bool { return x == a })
	return nil
}

// erase takes an address out of the maps.
func (p *programs) erase(k [keySize]byte) error {
	for _, m := range []*ebpf.Map{p.gates, p.drops} {
		if err := m.Delete(k[:]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget %s: %w", netip.AddrFrom16(k).Unmap(), bpf.Explain(err))
		}
	}
	return nil
}

// begin shuts an address, and counts what is dropped for it.
func (p *programs) begin(a netip.Addr, how ebpf.MapUpdateFlags) error {
	k := key(a)
	if err := p.gates.Update(k[:], value(Gate{}, 0), how); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("shut %s: %w", a, bpf.Explain(err))
	}
	if err := p.drops.Update(k[:], make([]uint64, ebpf.MustPossibleCPU()), ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("count drops of %s: %w", a, bpf.Explain(err))
	}
	return nil
}

func (p *programs) openMap(name string, spec *ebpf.MapSpec) (*ebpf.Map, bool, error) {
	if p.pins != nil {
		return p.pins.Map(name, spec)
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, false, fmt.Errorf("make map %s: %w", name, bpf.Explain(err))
	}
	return m, false, nil
}

// forgetOld opens for good what is not fenced any more: addresses that an earlier life had,
// and ours in what nodes with other state directories left.
func (p *programs) forgetOld() error {
	var k [keySize]byte
	var old [][keySize]byte
	v := make([]byte, valueSize)
	for all := p.gates.Iterate(); all.Next(&k, &v); {
		if !p.fences(netip.AddrFrom16(k)) {
			old = append(old, k)
		}
	}
	for _, k := range old {
		if err := p.erase(k); err != nil {
			return err
		}
	}
	if p.pins == nil {
		return nil
	}
	for _, o := range p.pins.Others() {
		m, err := o.Old(pinGates)
		if err != nil {
			continue // a relay's, or nothing
		}
		for _, a := range p.addrs {
			k := key(a)
			_ = m.Delete(k[:]) // mostly it is not there
		}
		m.Close()
	}
	return nil
}

func (p *programs) fences(a netip.Addr) bool {
	for _, x := range p.addrs {
		if x == a.Unmap() {
			return true
		}
	}
	return false
}

// openToken begins to listen for the life token. In a VRF the program would not find it.
func (p *programs) openToken(c Config) {
	if vrf(c.Index) {
		p.tokenOut = "the interface belongs to a VRF"
		return
	}
	t, err := openToken()
	if err != nil {
		p.tokenOut = err.Error()
	}
	p.token = t
	if p.tokenOut != "" {
		c.Log.Warn("the fence cannot see at once that this process died, only when its lease ends", "because", p.tokenOut)
	}
}

// vrf reports whether an interface belongs to a VRF.
func vrf(index int) bool {
	l, err := netlink.LinkByIndex(index)
	if err != nil || l.Attrs().MasterIndex == 0 {
		return false
	}
	m, err := netlink.LinkByIndex(l.Attrs().MasterIndex)
	return err == nil && m.Type() == "vrf"
}

func (p *programs) set(gates map[netip.Addr]Gate) error {
	keys := make([][keySize]byte, 0, len(gates))
	values := make([][valueSize]byte, 0, len(gates))
	for a, g := range gates {
		port := uint16(0)
		if g.Speak != 0 {
			port = p.token.port()
		}
		keys, values = append(keys, key(a)), append(values, [valueSize]byte(value(g, port)))
	}
	if len(keys) > 1 {
		if _, err := p.gates.BatchUpdate(keys, values, nil); err == nil {
			return nil
		}
	}
	for i, k := range keys {
		if err := bpf.Put(p.gates, k[:], values[i][:]); err != nil {
			return fmt.Errorf("set the gate of %s: %w", netip.AddrFrom16(k).Unmap(), bpf.Explain(err))
		}
	}
	return nil
}

func (p *programs) attach(index int) error {
	p.index = index
	var links []link.Link
	for _, x := range []struct {
		name    string
		prog    *ebpf.Program
		hook    ebpf.AttachType
		ingress bool
	}{{pinIn, p.in, ebpf.AttachTCXIngress, true}, {pinOut, p.out, ebpf.AttachTCXEgress, false}} {
		if p.filters {
			if err := p.filter(x.name, x.ingress).Attach(x.prog); err != nil {
				return err
			}
			continue
		}
		// First: what another program redirects or accepts would else pass us by.
		l, _, err := p.pins.Attach(x.name, bpf.Attachment{Index: index, Program: x.prog, Hook: x.hook, Place: link.Head()})
		if err != nil {
			for _, l := range links {
				_ = l.Close() // it stays pinned
			}
			return err
		}
		links = append(links, l)
	}
	p.closeLinks()
	p.links = links
	return nil
}

func (p *programs) filter(name string, ingress bool) bpf.Filter {
	return bpf.Filter{Index: p.index, Name: name, Ingress: ingress, Handle: filterHandle, Priority: filterPriority}
}

func (p *programs) status(s *Status) {
	s.Means, s.Adopted = tcx, p.adopted
	if p.filters {
		s.Means = clsact
	}
	s.Token = p.token != nil
	if s.Fault == nil {
		s.Fault = p.gone()
	}
}

func (p *programs) dropped(a netip.Addr) (uint64, bool) {
	k := key(a)
	var each []uint64 // by processor
	if p.drops.Lookup(k[:], &each) != nil {
		return 0, false
	}
	sum := uint64(0)
	for _, n := range each {
		sum += n
	}
	return sum, true
}

// gone returns an error if somebody took the programs away.
func (p *programs) gone() error {
	attached := p.pins.Attached
	if p.filters {
		attached = func(name string, _ int) bool { return p.filter(name, name == pinIn).Attached() }
	}
	if attached(pinIn, p.index) && attached(pinOut, p.index) {
		return nil
	}
	return errors.New("the programs are not on the interface any more")
}

// mend attaches the programs again. The maps, which say what they let pass, are this
// process's as well. A link whose pin is gone holds its place while it is open.
func (p *programs) mend() error {
	p.closeLinks()
	return p.attach(p.index)
}

// leave takes the token out of every gate, so that they stay open when it is closed.
func (p *programs) leave() error {
	var errs []error
	for _, a := range p.addrs {
		k := key(a)
		v := make([]byte, valueSize)
		err := p.gates.Lookup(k[:], &v)
		if err == nil && (v[16] != 0 || v[17] != 0) {
			v[16], v[17] = 0, 0
			err = p.gates.Update(k[:], v, ebpf.UpdateExist)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("leave %s: %w", a, bpf.Explain(err)))
		}
	}
	p.release()
	return errors.Join(errs...)
}

func (p *programs) close() error {
	var errs []error
	if p.filters {
		errs = append(errs, p.filter(pinIn, true).Remove(), p.filter(pinOut, false).Remove())
	}
	if p.pins != nil {
		errs = append(errs, p.pins.Remove(pinIn, pinOut, pinGates, pinDrops))
	}
	p.release()
	return errors.Join(errs...)
}

// release closes what this process has open.
func (p *programs) release() {
	p.token.close()
	p.closeLinks()
	for _, c := range []io.Closer{p.in, p.out, p.gates, p.drops} {
		_ = c.Close() // a nil one too
	}
}

func (p *programs) closeLinks() {
	for _, l := range p.links {
		_ = l.Close()
	}
	p.links = nil
}

// sameClock returns an error if this process has a boot-time clock of its own, in a time
// namespace: the programs have the machine's.
func sameClock() error {
	b, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return nil // a kernel without time namespaces
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "boottime" && (f[1] != "0" || f[2] != "0") {
			return errors.New("this process has a clock of its own (a time namespace)")
		}
	}
	return nil
}
