package lab

import (
	"context"
	"errors"
	"fmt"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

// Live shows a demo on the terminal until somebody presses q or ctx ends, and then writes
// the table of events to w.
func Live(ctx context.Context, p Plan, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rig, err := NewRig(p, DemoLoad())
	if err != nil {
		return err
	}
	defer rig.Close()
	show, err := NewShow(ctx, rig)
	if err != nil {
		return err
	}
	s := screen{ctx: ctx, show: show, hactl: hactlBeside(), width: 80, height: 24}
	s.scene = show.Scene(s.beats())
	_, err = tea.NewProgram(s, tea.WithContext(ctx), tea.WithoutSignalHandler()).Run()
	if err != nil && ctx.Err() == nil && !errors.Is(err, tea.ErrInterrupted) {
		return fmt.Errorf("show the screen: %w", err)
	}
	table := EventTable(show.Scene(1).Events)
	return table.WriteText(w)
}

// hactlBeside returns what to type for hactl in this directory.
func hactlBeside() string {
	path, err := Beside("hactl")
	if err != nil {
		return "hactl"
	}
	if here, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(here, path); err == nil && len(rel) < len(path) {
			return rel
		}
	}
	return path
}

// frame is how often the screen is drawn.
const frame = 100 * time.Millisecond

// A screen is what the terminal shows of a Show.
type screen struct {
	ctx           context.Context
	show          *Show
	scene         Scene
	hactl         string
	width, height int
	quitting      bool
}

type (
	tickMsg  time.Time
	sceneMsg Scene
	actedMsg struct{}
)

// Init implements tea.Model, as do the two methods below.
func (s screen) Init() tea.Cmd { return tick() }

func tick() tea.Cmd { return tea.Tick(frame, func(t time.Time) tea.Msg { return tickMsg(t) }) }

func (s screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case tickMsg:
		show, beats := s.show, s.beats()
		return s, func() tea.Msg { return sceneMsg(show.Scene(beats)) }
	case sceneMsg:
		s.scene = Scene(msg)
		return s, tick()
	case tea.KeyPressMsg:
		switch key := msg.String(); key {
		case "q", "ctrl+c", "esc":
			s.quitting = true
			return s, tea.Quit
		case "k", "f", "c", "h", "b":
			ctx, show := s.ctx, s.show
			return s, func() tea.Msg {
				show.Act(ctx, Action(key[0]))
				return actedMsg{}
			}
		}
	}
	return s, nil
}

func (s screen) View() tea.View {
	v := tea.NewView(s.draw())
	v.AltScreen = true
	v.WindowTitle = "proxyd demo"
	return v
}

// The colours are of the sixteen that every terminal has, so that its own theme holds.
func style(c color.Color) lipgloss.Style { return lipgloss.NewStyle().Foreground(c) }

func dim(text string) string  { return style(lipgloss.BrightBlack).Render(text) }
func bold(text string) string { return lipgloss.NewStyle().Bold(true).Render(text) }

// labelWidth is of the words before the three lines about the load.
const labelWidth = 12

// beats is how many quarters of a second fit on the screen.
func (s screen) beats() int { return min(max(s.inner()-labelWidth-16, 10), 240) }

// inner is the width between the margins.
func (s screen) inner() int { return max(s.width-2, 40) }

func (s screen) draw() string {
	if s.width < 60 || s.height < 18 {
		return "\n  the demo needs a terminal of 60 columns and 18 lines"
	}
	parts := []string{s.title(), s.nodes(), s.load()}
	foot := s.foot()
	used := lipgloss.Height(foot)
	for _, p := range parts {
		used += lipgloss.Height(p)
	}
	parts = append(parts, s.events(s.height-used), foot)
	return lipgloss.NewStyle().MaxWidth(s.width).MaxHeight(s.height).Render(strings.Join(parts, "\n"))
}

func (s screen) title() string {
	left := " " + bold("proxyd") + dim(" demo   VIP ") + bold(s.scene.VIP)
	right := dim("up " + s.scene.Up.Truncate(time.Second).String() + " ")
	return left + strings.Repeat(" ", max(s.width-lipgloss.Width(left)-lipgloss.Width(right), 1)) + right
}

func (s screen) nodes() string {
	if len(s.scene.Nodes) == 0 {
		return ""
	}
	width := (s.width - 2) / len(s.scene.Nodes)
	var boxes []string
	for _, n := range s.scene.Nodes {
		boxes = append(boxes, nodeBox(n, width))
	}
	return lipgloss.PlaceHorizontal(s.width, lipgloss.Center, lipgloss.JoinHorizontal(lipgloss.Top, boxes...))
}

func nodeBox(n NodeScene, width int) string {
	c := stateColor(n)
	text := width - 4
	answers, mark := dim(shortened("does not answer for the VIP", text-2)), "○"
	if n.Holds {
		answers, mark = bold(shortened("answers for the VIP", text-2)), "●"
	}
	state := n.State
	if n.Reason != "" {
		state += " (" + n.Reason + ")"
	}
	name, state := bold(n.Name), style(c).Bold(true).Render(shortened(state, max(text-len(n.Name)-4, 8)))
	head := style(c).Render(mark) + " " + name
	head += strings.Repeat(" ", max(text-lipgloss.Width(head)-lipgloss.Width(state), 1)) + state
	where := dim("  " + shortened(fmt.Sprintf("%s  pid %d", n.Addr, n.PID), text-2))
	return lipgloss.NewStyle().Border(lipgloss.RoundedBorder()).BorderForeground(c).
		Padding(0, 1).Width(width).Render(head + "\n  " + answers + "\n" + where)
}

func stateColor(n NodeScene) color.Color {
	switch n.State {
	case "holder":
		return lipgloss.BrightGreen
	case "standby":
		return lipgloss.BrightBlue
	case "dead", "frozen", "cut off":
		return lipgloss.BrightRed
	}
	return lipgloss.BrightYellow
}

func (s screen) load() string {
	sc := s.scene
	label := func(text string) string { return " " + fmt.Sprintf("%-*s", labelWidth-1, text) }
	share := ""
	if sc.Total > 0 {
		share = fmt.Sprintf("  (%.3f %%)", 100*float64(sc.Failed)/float64(sc.Total))
	}
	failed := fmt.Sprintf("%d of %d%s", sc.Failed, sc.Total, share)
	if sc.Failed > 0 {
		failed = style(lipgloss.BrightYellow).Render(failed)
	}
	return dim(label("requests/s")) + sparkline(sc.Rate) + bold(fmt.Sprintf(" %4d", sc.Requests)) + dim("  last 1s") +
		"\n" + dim(label("failed")) + failed +
		"\n" + dim(label("latency")) + "p50 " + bold(show(sc.P50)) + "   p99 " + bold(show(sc.P99)) + "\n"
}

// sparkline draws beats as bars of eight heights; red where requests failed.
func sparkline(beats []Beat) string {
	most := 1
	for _, b := range beats {
		most = max(most, b.OK+b.Failed)
	}
	bars := []rune("▁▂▃▄▅▆▇█")
	good, bad := style(lipgloss.BrightGreen), style(lipgloss.BrightRed)
	var out, run strings.Builder
	red := false
	flush := func() {
		st := good
		if red {
			st = bad
		}
		out.WriteString(st.Render(run.String()))
		run.Reset()
	}
	for _, b := range beats {
		if failed := b.Failed > 0; failed != red {
			flush()
			red = failed
		}
		n := b.OK + b.Failed
		if n == 0 {
			run.WriteRune(' ')
			continue
		}
		run.WriteRune(bars[(n*(len(bars)-1)+most/2)/most])
	}
	flush()
	return out.String()
}

// events draws the newest events that fit into lines.
func (s screen) events(lines int) string {
	name := max(s.inner()-52, 14)
	head := fmt.Sprintf(" %-*s %9s  %-9s %6s  %s", name, "EVENT", "OUTAGE", "PROMISE", "FAILED", "HOLDER")
	out := []string{dim(head)}
	events := s.scene.Events
	if room := max(lines-1, 1); len(events) > room {
		events = events[len(events)-room:]
	}
	for i, m := range events {
		out = append(out, s.event(m, name, s.scene.Watching && i == len(events)-1))
	}
	for len(out) < lines {
		out = append(out, "")
	}
	return strings.Join(out, "\n")
}

func (s screen) event(m Measure, name int, watching bool) string {
	c := color.Color(lipgloss.BrightGreen)
	switch {
	case !m.Within(single):
		c = lipgloss.BrightRed
	case !m.Within(1):
		c = lipgloss.BrightYellow
	}
	outage := style(c).Bold(true).Render(fmt.Sprintf("%9s", show(m.Outage)))
	holder := moved(m)
	if watching {
		holder += " ..."
	}
	return fmt.Sprintf(" %-*s %s  %-9s %6d  %s", name, shortened(m.Event, name), outage, "< "+show(m.Promise.Outage), m.FailedAll(), holder)
}

func (s screen) foot() string {
	key := func(k, what string) string { return style(lipgloss.BrightCyan).Bold(true).Render(k) + " " + what }
	between := "  ·  "
	if s.width < 80 {
		between = "  "
	}
	keys := strings.Join([]string{key("k", "kill"), key("f", "freeze"), key("c", "cut cable"), key("h", "hand over"),
		key("b", "bring back"), key("q", "quit")}, dim(between))
	notice := ""
	if s.scene.Notice != "" {
		notice = style(lipgloss.BrightYellow).Render(" " + shortened(s.scene.Notice, s.inner()))
	}
	second := ""
	if len(s.scene.Nodes) > 0 {
		second = dim(" $ ") + shortened(s.hactl+" --socket "+s.scene.Nodes[0].Socket+" status -w", s.inner()-1)
	}
	return notice + "\n " + keys + "\n" + second
}

// shortened cuts text to a width and shows that it did.
func shortened(text string, width int) string {
	r := []rune(text)
	if len(r) <= width {
		return text
	}
	return string(r[:max(width-1, 0)]) + "…"
}
