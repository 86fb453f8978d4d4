package freeport

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Ports are given once, here and in other processes, and are free.
func TestPortsAreGivenOnce(t *testing.T) {
	if os.Getenv("FREEPORT_ANOTHER") != "" {
		for range 200 {
			fmt.Println("port", Take(t, 1))
		}
		return
	}
	given := make(map[string]bool)
	for range 3 {
		c := exec.Command(os.Args[0], "-test.run=TestPortsAreGivenOnce", "-test.v")
		c.Env = append(os.Environ(), "FREEPORT_ANOTHER=1")
		// The others take theirs while this one holds its own.
		for range 100 {
			p := fmt.Sprint("port ", Take(t, 2))
			if given[p] {
				t.Errorf("%s is given twice", p)
			}
			given[p] = true
		}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		n := 0
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "port ") {
				n++
				if given[line] {
					t.Errorf("%s is given twice", line)
				}
			}
		}
		if n != 200 {
			t.Errorf("another process has %d ports, want 200: %s", n, out)
		}
	}
}

func TestATakenPortIsPassedOver(t *testing.T) {
	p := Take(t, 2)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p+1))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if !free(p, 1) || free(p, 2) || free(p+1, 1) {
		t.Error("a port is free that has a listener, or the other way round")
	}
}
