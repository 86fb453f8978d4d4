package backup

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"proxyd/internal/ha/wire/wiretest"
)

func sample() *Archive {
	a := &Archive{Manifest: Manifest{Format: format, Cluster: "edge", Node: "edge-1", Address: "10.0.0.11:7946", Version: "1.4.0", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Config: "7f3a91c04d11", Main: "/etc/proxyd/proxyd.toml", State: "/var/lib/proxyd", Secrets: []Secret{{Ref: "file:/etc/proxyd/cluster.key", Have: "no"}}}}
	a.Add("config/proxyd.toml", []byte("[node]\n"))
	a.Add("state/term", []byte("1001\n"))
	return a
}

func TestManifestKeepsItsFormat(t *testing.T) {
	text, err := json.MarshalIndent(sample().Manifest, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	wiretest.Golden(t, "v1/manifest.json", text)
}

// An archive that was written once is read for ever.
func TestArchiveOfTheFirstFormatIsRead(t *testing.T) {
	var now bytes.Buffer
	if err := sample().Write(&now); err != nil {
		t.Fatal(err)
	}
	a, err := Read(bytes.NewReader(wiretest.Kept(t, "v1/archive.hex", now.Bytes())))
	if err != nil {
		t.Fatal(err)
	}
	if a.Node != "edge-1" || string(a.Data["config/proxyd.toml"]) != "[node]\n" || string(a.Data["state/term"]) != "1001\n" || len(a.Secrets) != 1 {
		t.Errorf("%+v", a)
	}
}

func TestArchiveOfALaterFormatIsRefused(t *testing.T) {
	a := sample()
	var b bytes.Buffer
	if err := a.writeAs(&b, format+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(&b); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("Read = %v", err)
	}
}
