package rehearsal

import (
	"fmt"
	"testing"
	"time"

	"proxyd/internal/ha/election"
)

const (
	beat  = 40 * time.Millisecond
	lease = 240 * time.Millisecond
	guard = 30 * time.Millisecond
)

// scene is n fit nodes named a, b, c of which the named one holds.
func scene(n int, holder election.ID) Scene {
	s := Scene{Lease: lease, Guard: guard, Beat: beat}
	v := VIP{Name: "public", Holder: holder}
	for _, id := range []election.ID{"a", "b", "c", "d", "e"}[:n] {
		s.Nodes = append(s.Nodes, Node{ID: id, Name: string(id), Heard: true, Fit: true})
		v.Order = append(v.Order, id)
	}
	s.VIPs = []VIP{v}
	return s
}

func TestPlay(t *testing.T) {
	const dead = lease + guard
	for _, c := range []struct {
		name        string
		scene       Scene
		fault       Fault
		node        election.ID
		to          election.ID
		least, most time.Duration
	}{
		{"the holder of a pair is killed", scene(2, "a"), Kill, "a", "b", 0, 10 * time.Millisecond},
		{"the holder of a pair, which is not the first", scene(2, "b"), Kill, "b", "a", 0, 10 * time.Millisecond},
		{"the holder of three is killed", scene(3, "b"), Kill, "b", "a", 0, 10 * time.Millisecond},
		{"the holder of a pair is cut off", scene(2, "a"), Cut, "a", "b", lease, dead + beat},
		{"the holder of three is cut off", scene(3, "a"), Cut, "a", "b", lease, dead + 2*beat},
		{"the holder of a pair freezes", scene(2, "a"), Freeze, "a", "b", lease, dead + beat},
		{"the holder of three freezes", scene(3, "a"), Freeze, "a", "b", lease, dead + 2*beat},
		{"the holder is drained", scene(2, "a"), Drain, "a", "b", 0, 5 * time.Millisecond},
		{"a standby is killed", scene(2, "a"), Kill, "b", "a", 0, 0},
		{"a standby is cut off", scene(2, "a"), Cut, "b", "a", 0, 0},
		{"a standby of three freezes", scene(3, "a"), Freeze, "c", "a", 0, 0},
	} {
		out, err := Play(c.scene, c.fault, c.node)
		if err != nil || len(out) != 1 {
			t.Errorf("%s: %v, %v", c.name, out, err)
			continue
		}
		o := out[0]
		if o.From != c.scene.VIPs[0].Holder || o.To != c.to || o.After < c.least || o.After > c.most {
			t.Errorf("%s: %s -> %s after %v, want %s after %v to %v\n%v", c.name, o.From, o.To, o.After, c.to, c.least, c.most, o.Steps)
		}
		if o.From == o.To && o.Unheld != 0 {
			t.Errorf("%s: %v without a holder", c.name, o.Unheld)
		}
	}
}

func TestNobodyIsLeft(t *testing.T) {
	alone := scene(2, "a")
	alone.Nodes[1].Heard = false
	minority := scene(3, "a")
	minority.Nodes[2].Heard = false
	witness := scene(3, "a")
	witness.Nodes[1].Witness, witness.Nodes[2].Witness = true, true
	for i, s := range []Scene{alone, minority, witness} {
		out, err := Play(s, Kill, "a")
		if err != nil || out[0].To != "" || out[0].Unheld == 0 {
			t.Errorf("scene %d: %+v, %v; want nobody", i, out, err)
		}
	}
}

// Of two that are left an unfit one is taken only where nobody is well.
func TestUnfitNodesComeLast(t *testing.T) {
	s := scene(3, "a")
	s.Nodes[1].Fit = false
	if out, _ := Play(s, Kill, "a"); out[0].To != "c" {
		t.Errorf("held by %q, want c: %v", out[0].To, out[0].Steps)
	}
	s.Nodes[2].Fit = false
	if out, _ := Play(s, Kill, "a"); out[0].To == "" {
		t.Errorf("held by nobody, want an unfit node: %v", out[0].Steps)
	}
}

func TestANodeThatIsNotHeardCannotFail(t *testing.T) {
	s := scene(2, "a")
	s.Nodes[1].Heard = false
	if _, err := Play(s, Kill, "b"); err == nil {
		t.Error("played")
	}
}

// The same scene has the same end.
func TestPlaysAreEqual(t *testing.T) {
	first := ""
	for range 3 {
		out, err := Play(scene(5, "c"), Cut, "c")
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(out); first == "" {
			first = text
		} else if text != first {
			t.Errorf("%s\nand\n%s", first, text)
		}
	}
}
