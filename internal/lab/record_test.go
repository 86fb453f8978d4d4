package lab

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRecordIsJudgedAsARigWould(t *testing.T) {
	ms := func(n int) string { return strconv.Itoa(n * int(time.Millisecond)) }
	load := strings.Join([]string{
		"n " + ms(0) + " " + ms(1) + " o",
		"n " + ms(5) + " " + ms(6) + " o",
		"n " + ms(10) + " " + ms(11) + " o",
		"n " + ms(12) + " " + ms(14) + " x", // the event begins at 11
		"k " + ms(12) + " " + ms(14) + " x",
		"n " + ms(80) + " " + ms(81) + " o",
		"n " + ms(85) + " " + ms(86) + " o",
	}, "\n")
	watch := strings.Join([]string{
		"a " + ms(0) + " one",
		"a " + ms(50) + " one two",
		"a " + ms(100) + " two",
		"a " + ms(150) + " two",
	}, "\n")
	r := Record{From: Instant(11 * time.Millisecond), To: Instant(200 * time.Millisecond), Load: strings.NewReader(load), Watch: strings.NewReader(watch)}
	m, err := r.Judge("kill", Promise{Outage: 100 * time.Millisecond, Failed: 1, Two: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// Nothing is known after the last success, so the silence at the end counts.
	if m.Outage != 109*time.Millisecond || m.FailedAll() != 1 || m.KeptFailed != 1 || m.Two != 50*time.Millisecond || m.After != "two" {
		t.Errorf("outage %v, failed %d and kept %d, two %v, after %q", m.Outage, m.FailedAll(), m.KeptFailed, m.Two, m.After)
	}
	if m.Within(1) || !m.Within(2) {
		t.Errorf("within once %v, within twice %v", m.Within(1), m.Within(2))
	}
}

func TestRecordRefusesOtherText(t *testing.T) {
	for _, text := range []string{"a", "a x one", "b 1 one"} {
		if a, err := parseAsk(text); err == nil {
			t.Errorf("parseAsk(%q) = %v", text, a)
		}
	}
	if _, err := (Record{Load: strings.NewReader("nonsense")}).Judge("x", Promise{}); err == nil {
		t.Error("nonsense was judged")
	}
}
