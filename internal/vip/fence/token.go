package fence

import "net"

// A token is a socket that listens for as long as this process lives. The kernel closes it
// within milliseconds of a death, and a program can look for it. Nobody speaks to it; it
// listens on the loopback of this namespace alone, on a port of its own, because any
// listener for all addresses would count as one on a virtual address.
type token struct{ l net.Listener }

func openToken() (*token, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { // ends with close
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close() // a stranger's
		}
	}()
	return &token{l}, nil
}

// port returns the token's port, 0 of none.
func (t *token) port() uint16 {
	if t == nil {
		return 0
	}
	return uint16(t.l.Addr().(*net.TCPAddr).Port)
}

func (t *token) close() {
	if t != nil {
		_ = t.l.Close()
	}
}
