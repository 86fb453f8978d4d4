package bpf

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Put stores a value in a map, as m.Put does. The store takes less than a microsecond and
// never waits, so Go's scheduler is not told of the call: it would wake its monitor thread,
// and a holder renews with every beat.
func Put(m *ebpf.Map, key, value []byte) error {
	if unsafe.Sizeof(uintptr(0)) != 8 || len(key) != int(m.KeySize()) || len(value) != int(m.ValueSize()) {
		return m.Put(key, value)
	}
	request := struct { // union bpf_attr of BPF_MAP_UPDATE_ELEM
		fd         uint32
		key, value unsafe.Pointer
		flags      uint64
	}{fd: uint32(m.FD()), key: unsafe.Pointer(&key[0]), value: unsafe.Pointer(&value[0])}
	_, _, e := syscall.RawSyscall(unix.SYS_BPF, unix.BPF_MAP_UPDATE_ELEM, uintptr(unsafe.Pointer(&request)), unsafe.Sizeof(request))
	runtime.KeepAlive(m)
	if e != 0 {
		return fmt.Errorf("update: %w", e)
	}
	return nil
}
