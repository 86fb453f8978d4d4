package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"proxyd/internal/vip/bpf"
)

// maxTargets is how many virtual addresses of one interface packets are sent on for.
const maxTargets = 1024

// A tcx is the program on an interface. It is there from the start, because attaching takes
// 14-50 ms; to send on is to write a map.
type tcx struct {
	memory
	program *ebpf.Program
	at      Place
	link    link.Link
	slots   slots
}

func openProgram(at Place, mark Mark) (_ means, err error) {
	t := &tcx{}
	defer func() {
		if err != nil {
			_ = t.close() // what was opened until then
		}
	}()
	for _, m := range []struct {
		at   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&t.active, ebpf.MapSpec{Name: "relay_active", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}},
		{&t.targets, ebpf.MapSpec{Name: "relay_targets", Type: ebpf.Hash, KeySize: 16, ValueSize: entryLen, MaxEntries: maxTargets}},
		{&t.counts, ebpf.MapSpec{Name: "relay_counts", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: maxTargets}},
		{&t.fragments, ebpf.MapSpec{Name: "relay_frags", Type: ebpf.LRUHash, KeySize: 36, ValueSize: 8, MaxEntries: 1024}},
	} {
		if *m.at, err = ebpf.NewMap(&m.spec); err != nil {
			return nil, fmt.Errorf("make map %s: %w", m.spec.Name, bpf.Explain(err))
		}
	}
	t.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "proxyd_relay", Type: ebpf.SchedCLS, License: "GPL", Instructions: program(t.memory, mark),
	})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", bpf.Explain(err))
	}
	return t, t.move(at)
}

func (t *tcx) move(at Place) error {
	if t.link != nil && at.Index == t.at.Index {
		t.at = at
		return nil
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: at.Index, Program: t.program, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return fmt.Errorf("attach program to %s (TCX, Linux 6.6): %w", at.Name, bpf.Explain(err))
	}
	if t.link != nil {
		_ = t.link.Close() // of an interface that is gone
	}
	t.link, t.at = l, at
	return nil
}

func (t *tcx) set(targets map[netip.Addr]Target, changed []netip.Addr) error {
	var keys [][16]byte
	var entries [][entryLen]byte
	var errs []error
	for _, vip := range changed {
		key := vip.As16()
		to, wanted := targets[vip]
		if !wanted {
			if err := t.targets.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		var entry [entryLen]byte
		binary.NativeEndian.PutUint64(entry[untilOff:], uint64(to.Until))
		copy(entry[macsOff:], to.MAC[:])
		copy(entry[macsOff+6:], t.at.MAC[:])
		binary.NativeEndian.PutUint32(entry[slotOff:], t.slots.of(vip))
		keys, entries = append(keys, key), append(entries, entry)
	}
	if len(keys) > 1 {
		if _, err := t.targets.BatchUpdate(keys, entries, nil); err == nil {
			keys = nil
		}
	}
	for i, key := range keys {
		errs = append(errs, t.targets.Put(key, entries[i]))
	}
	errs = append(errs, t.active.Put(uint32(0), uint32(len(targets))))
	return errors.Join(errs...)
}

func (t *tcx) sent(vip netip.Addr) (uint64, error) {
	var by []uint64
	if err := t.counts.Lookup(t.slots.of(vip), &by); err != nil {
		return 0, fmt.Errorf("read relayed packets: %w", err)
	}
	n := uint64(0)
	for _, k := range by {
		n += k
	}
	return n, nil
}

func (t *tcx) close() error {
	var errs []error
	if t.link != nil {
		errs = append(errs, t.link.Close())
	}
	if t.program != nil {
		errs = append(errs, t.program.Close())
	}
	for _, m := range []*ebpf.Map{t.active, t.targets, t.counts, t.fragments} {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}
