package proxy

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"proxyd/internal/dataplane/upstream"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("proxyd_"+name, help, labels, nil)
}

// A sink makes Prometheus' metrics of numbers.
type sink struct{ out chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func (s sink) histogram(d *prometheus.Desc, h *upstream.Histogram, labels ...string) {
	s.out <- &histogram{desc: d, labels: prometheus.MakeLabelPairs(d, labels), counts: h}
}

// A histogram is a metric with classic and native buckets at once, which a constant
// metric of the library cannot be. A scraper takes those that it asked for.
type histogram struct {
	desc   *prometheus.Desc
	labels []*dto.LabelPair
	counts *upstream.Histogram
}

// What every page says again.
var (
	classicBounds         = upstream.Bounds()
	nativeSchema    int32 = upstream.NativeSchema
	nativeThreshold       = float64(upstream.NativeZeroThreshold)
)

// Desc implements prometheus.Metric.
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// Write implements prometheus.Metric.
func (h *histogram) Write(m *dto.Metric) error {
	r := h.counts.Read()
	out := &dto.Histogram{
		SampleCount:   &r.Count,
		SampleSum:     &r.Seconds,
		Bucket:        make([]*dto.Bucket, 0, len(r.Classic)+1),
		Schema:        &nativeSchema,
		ZeroThreshold: &nativeThreshold,
		ZeroCount:     &r.Zero,
	}
	buckets := make([]dto.Bucket, len(r.Classic)) // at once: a page has thousands
	for i := range buckets {
		b := &buckets[i]
		b.UpperBound, b.CumulativeCount, b.Exemplar = &classicBounds[i], &r.Classic[i], exemplar(r.Exemplars[i])
		out.Bucket = append(out.Bucket, b)
	}
	if e := exemplar(r.Exemplars[len(r.Classic)]); e != nil {
		out.Bucket = append(out.Bucket, &dto.Bucket{UpperBound: proto.Float64(math.Inf(1)), CumulativeCount: proto.Uint64(r.Count), Exemplar: e})
	}
	addNative(out, r.Native)
	m.Label, m.Histogram = h.labels, out
	return nil
}

// addNative writes the native buckets that hold something: runs of them, each count as
// the difference to the one before.
func addNative(out *dto.Histogram, native []uint64) {
	var before int64
	end := 0 // of the last run, as an index of the schema
	for i, n := range native {
		if n == 0 {
			continue
		}
		at := upstream.FirstNative + i
		switch spans := out.PositiveSpan; {
		case len(spans) > 0 && at == end:
			*spans[len(spans)-1].Length++
		default: // the offset is from the end of the run before; for the first, from 0
			out.PositiveSpan = append(spans, &dto.BucketSpan{Offset: proto.Int32(int32(at - end)), Length: proto.Uint32(1)})
		}
		end = at + 1
		out.PositiveDelta = append(out.PositiveDelta, int64(n)-before)
		before = int64(n)
	}
}

// exemplar turns an exemplar into Prometheus' form; nil stays nil.
func exemplar(e *upstream.Exemplar) *dto.Exemplar {
	if e == nil {
		return nil
	}
	return &dto.Exemplar{
		Label:     []*dto.LabelPair{{Name: proto.String("trace_id"), Value: proto.String(e.Trace)}},
		Value:     proto.Float64(e.Took.Seconds()),
		Timestamp: timestamppb.New(e.At),
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
