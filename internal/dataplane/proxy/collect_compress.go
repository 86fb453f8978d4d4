package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"proxyd/internal/dataplane/filter"
)

var (
	descCompressed      = desc("http_compressed_total", "Answers that were compressed.", "coding")
	descCompressedBytes = desc("http_compressed_bytes_total", "Bytes of answers before (in) and after (out) they were compressed.", "coding", "direction")
	descUncompressed    = desc("http_compress_skipped_total", "Answers that went as they are since too many were being compressed.")
)

func compressDescs() []*prometheus.Desc {
	return []*prometheus.Desc{descCompressed, descCompressedBytes, descUncompressed}
}

func collectCompress(m sink, c *filter.Coders) {
	for _, d := range c.Done() {
		m.counter(descCompressed, d.Answers, d.Coding)
		m.counter(descCompressedBytes, d.In, d.Coding, "in")
		m.counter(descCompressedBytes, d.Out, d.Coding, "out")
	}
	m.counter(descUncompressed, c.Spared())
}
