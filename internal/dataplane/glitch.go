package dataplane

// A Glitch is something that a client of HTTP/2 may do a few times: it makes work, and asks
// for nothing. ResetByClient and ResetByServer are streams that end before their answer, of the
// client's will or for its mistake.
type Glitch uint8

const (
	ResetByClient Glitch = iota
	ResetByServer
	GlitchSettings
	GlitchPing
	GlitchPriority
	GlitchWindow       // WINDOW_UPDATE
	GlitchEmpty        // DATA of nothing, or of next to nothing
	GlitchContinuation // of nothing, or too many
	GlitchClosed       // a frame for a stream that has ended
	GlitchOther        // a frame without a meaning here
	Glitches           // how many there are
)

// String returns the word for metrics.
func (g Glitch) String() string {
	return [...]string{"client", "server", "settings", "ping", "priority", "window", "empty", "continuation", "closed", "other"}[g]
}
