package engine

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"proxyd/internal/dataplane"
)

// A port of ours serves a connection with each server: there are far more connections than ports
// when there is more than one server.
func TestPortsAreSharedAmongServers(t *testing.T) {
	failed := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		failed <- dialFromOnePort()
	}()
	if why := <-failed; why != "" {
		t.Fatal(why)
	}
}

// dialFromOnePort connects to two servers, in a network whose only port is one.
func dialFromOnePort() string {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "needs root: " + err.Error()
	}
	if why := loopbackUp(); why != "" {
		return why
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40000"), 0); err != nil {
		return err.Error()
	}
	g := New(Config{Now: time.Now, Panic: func(any) {}, Sweep: time.Hour})
	defer g.Shutdown(context.Background())
	for _, at := range []string{"127.0.0.1:80", "127.0.0.2:80"} {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return err.Error()
		}
		defer l.Close()
		s := new(dataplane.Server)
		s.SetAddr(l.Addr().(*net.TCPAddr).AddrPort())
		u, err := g.keptOf(s).dial(context.Background(), patience, 0, nil)
		if err != nil {
			return err.Error()
		}
		defer u.close()
	}
	return ""
}

func loopbackUp() string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err.Error()
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err.Error()
	}
	return ""
}
